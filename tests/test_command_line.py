"""The program as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from mlflow import MlflowClient

from mbrl_async.refusals import explain
from tests.small import CONFIG_DIRECTORY, FIXED_COSTS, options, small

ROOT = Path(__file__).parents[1]


def main(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_a_run_from_another_directory_leaves_its_files_there(tmp_path):
    result = main(tmp_path, *small(*FIXED_COSTS))
    assert result.returncode == 0, result.stderr
    assert "5/5 trajectories" in result.stdout
    assert (tmp_path / "mlflow.db").exists()
    (output,) = tmp_path.glob("outputs/*/*-linear_quadratic-async-seed-0")
    assert (output / "policy.safetensors").exists()
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_a_refusal_is_one_sentence_and_an_exit_status(tmp_path):
    result = main(tmp_path, "dynamics.ensemble.members=0")
    assert result.returncode == 2
    assert result.stderr == "dynamics.ensemble.members=0 cannot be used: it should be greater than 0.\n"
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_run_of_the_users_own_task_is_replayed_from_anywhere(tmp_path):
    folder = tmp_path / "my tasks"
    (folder / "env").mkdir(parents=True)
    (folder / "env" / "my_task.yaml").write_text("defaults: [linear_quadratic, _self_]\n")
    small_but = [each for each in small(*FIXED_COSTS, "stop.trajectories=2") if each != "env=linear_quadratic"]
    result = main(tmp_path, "--config-dir", "my tasks", "env=my_task", *small_but)
    assert result.returncode == 0, result.stderr
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (run,) = MlflowClient(store).search_runs(["1"])
    (tmp_path / "elsewhere").mkdir()
    replayed = ("backend=replay", f"replay.run_id={run.info.run_id}", f"tracking.uri={store}")
    result = main(tmp_path / "elsewhere", *replayed)
    assert result.returncode == 0, result.stderr
    assert "identical to run" in result.stdout
    resumed = (f"resume={run.info.run_id}", replayed[-1], "stop.trajectories=3")
    result = main(tmp_path / "elsewhere", "--config-dir", str(folder), *resumed)
    assert result.returncode == 0, result.stderr


def test_help_is_ours(tmp_path):
    result = main(tmp_path, "--help")
    assert result.returncode == 0
    assert "schedule   when each worker works: async" in result.stdout


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "dynamics.ensemble.membres=3",
            "dynamics.ensemble.membres=3 is no setting of dynamics.ensemble: did you mean members?",
        ),
        ("seeds=3", "seeds=3 is no setting of the configuration: did you mean seed?"),
        ("pace.xyz=3", "pace.xyz=3 is no setting of pace: there are factor."),
        (
            "iteration.rollouts=3",
            "iteration.rollouts=3 is no setting of iteration: the present choices have none there.",
        ),
        (
            "env=cheetah",
            f"In 'config': Could not find 'env/cheetah' Available options in 'env': {' '.join(options('env'))}",
        ),
    ],
)
def test_hydras_own_refusals_become_a_sentence(override, sentence):
    with (
        initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"),
        pytest.raises(HydraException) as refusal,
    ):
        compose("config", overrides=[override])
    assert explain(refusal.value, [override], str(CONFIG_DIRECTORY)) == sentence
