"""Run an experiment: `python main.py`, with overrides as in `python main.py env=hopper seed=1`."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from mbrl_async.sweeps.callback import end_unfinished_sweep

CONFIG_DIRECTORY = str(Path(__file__).parent / "conf")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def run(cfg: DictConfig) -> float:
    """Run one job; a sweeper sees its score."""
    # Torch and MLflow take seconds to import, and --help needs neither.
    from joblib import effective_n_jobs

    from mbrl_async.checkpoint.codec import CheckpointError
    from mbrl_async.config import ConfigError
    from mbrl_async.job import Job, run_job
    from mbrl_async.replay import run_replay
    from mbrl_async.resume import resumed, use_folder_of
    from mbrl_async.search_path import search_path_of
    from mbrl_async.sweeps.job import run_job_of_sweep
    from mbrl_async.tracking.store import TrackingError

    hydra_cfg = HydraConfig.get()
    cfg.sweep.name = str(cfg.sweep.name)  # made of the time now: what a run saves has to be readable later
    job = Job(
        cfg=cfg,
        overrides=[*search_path_of(hydra_cfg.runtime.config_sources), *hydra_cfg.overrides.task],
        choices=dict(hydra_cfg.runtime.choices),
        output=Path(hydra_cfg.runtime.output_dir),
    )
    if hydra_cfg.mode == RunMode.MULTIRUN:
        return run_job_of_sweep(
            job,
            number=hydra_cfg.job.num,
            sweep_directory=Path(hydra_cfg.sweep.dir),
            parallel_jobs=effective_n_jobs(hydra_cfg.launcher.get("n_jobs", 1)),  # joblib's launcher has it
        )
    try:
        if "replay" in cfg:
            return run_replay(job)
        if cfg.resume is None:
            return run_job(job)
        before = resumed(job)
        use_folder_of(before, job.output)
        return run_job(before)
    except (ConfigError, TrackingError, CheckpointError) as error:
        raise SystemExit(_refuse(str(error))) from None  # keeps Hydra from adding words of its own


def main() -> int:
    """Run, and tell every mistake of the user in one sentence.

    Returns:
        The exit status: 0 finished, 1 a worker failed or some job of a sweep did, 2 refused before the start,
        130 interrupted.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # makes Hydra raise what it would otherwise print at length
    try:
        run()
    except KeyboardInterrupt:
        end_unfinished_sweep(interrupted=True)
        return 130
    except HydraException as error:
        from mbrl_async.refusals import explain

        return _refuse(explain(error, sys.argv[1:], CONFIG_DIRECTORY))
    except Exception as error:
        return _report(error)
    finally:
        end_unfinished_sweep(interrupted=False)
    return 0


def _report(error: Exception) -> int:
    from mbrl_async.checkpoint.codec import CheckpointError
    from mbrl_async.config import ConfigError
    from mbrl_async.replay import NotIdenticalError
    from mbrl_async.tracking.store import TrackingError

    if isinstance(error, (ConfigError, TrackingError, CheckpointError)):
        return _refuse(str(error))
    if isinstance(error, NotIdenticalError):
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    traceback.print_exception(error.__cause__ or error)
    print(f"\nThe run failed: {error}", file=sys.stderr)  # noqa: T201
    return 1


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main())
