"""The folder of a run: what is in it, and which run it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mbrl_async.checkpoint.keeper import forget
from mbrl_async.config import ConfigError
from mbrl_async.results import RESULT_FILES, remove_results

CHECKPOINT = "checkpoint"
"""The folder, in it, of what a resumed run needs."""

FIGURES = "figures"
"""The folder of the figures, in it and among the artifacts."""

CONFIG_FILE, ENVIRONMENT_FILE = "config.yaml", "environment.json"

OVERRIDES_FILE = "overrides.txt"
"""What was changed on the command line, one a line."""

HYDRA_FOLDER, LOG_FILE = ".hydra", "main.log"
"""What Hydra puts into the folder of every run."""

ARTIFACTS = (CONFIG_FILE, ENVIRONMENT_FILE, OVERRIDES_FILE, HYDRA_FOLDER, LOG_FILE, *RESULT_FILES)
"""What MLflow is given; not the whole folder, which may be one that a person has chosen, with other things in it."""

IDENTITY_FILE = f"{CHECKPOINT}/run.json"


@dataclass(frozen=True)
class Identity:
    """What a run's folder says about itself.

    Args:
        run_id: MLflow's.
        tracking_uri: of the store that has the run, absolute.
        choices: group -> the option that was chosen for the run.
    """

    run_id: str
    tracking_uri: str
    choices: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Into the run's folder, where there is one for checkpoints."""
        (folder / IDENTITY_FILE).write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, folder: Path) -> Identity:
        """The inverse of `write`.

        Raises:
            ConfigError: this is not the folder of a run.
        """
        path = folder / IDENTITY_FILE
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"resume: {path} is not there or not what a run wrote, so nothing says how to go on; give the folder "
                "of a run."
            ) from error


def clear(folder: Path) -> None:
    """Of another run that had the same folder, neither checkpoints nor results remain."""
    forget(folder / CHECKPOINT)
    remove_results(folder)


def write_config(folder: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """The composed configuration, and what was changed on the command line."""
    (folder / CONFIG_FILE).write_text(OmegaConf.to_yaml(cfg))
    (folder / OVERRIDES_FILE).write_text("".join(f"{override}\n" for override in overrides))
