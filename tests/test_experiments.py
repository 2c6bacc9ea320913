"""The figures of the paper as sweeps: every job of every one composes, and each runs at the smallest scale."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from mbrl_async.config import validate
from tests.small import CONFIG_DIRECTORY, composed, options

ROOT = Path(__file__).parents[1]
EXPERIMENTS = options("experiment")
ROBOTS = {"robot_reach": 50, "robot_match": 100, "robot_stack": 100}
"""The paper's trajectories on its robot; everything else is 250 000 steps long."""
SEEDS = dict.fromkeys(("regularisation", "exploration", *ROBOTS), "0,1,2")
"""The paper's, where they are not four; on the robot there was one."""


def sweep(experiment: str, scale: str) -> DictConfig:
    """What Hydra is told of the sweep."""
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        cfg = compose("config", overrides=[f"experiment={experiment}", f"scale={scale}"], return_hydra_config=True)
    hydra: DictConfig = cfg.hydra
    return hydra


def jobs(experiment: str, scale: str) -> list[list[str]]:
    """The overrides of each job, of the first seed alone."""
    parameters = sweep(experiment, scale).sweeper.params
    values = [[f"{key}={value}" for value in str(parameters[key]).split(",")] for key in parameters if key != "seed"]
    return [list(combination) for combination in itertools.product(*values)]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_file_says_its_command_and_leaves_the_launcher_to_the_command_line(experiment):
    """A launcher that a swept experiment chose would be ignored without a word (hydra#2946)."""
    text = (CONFIG_DIRECTORY / "experiment" / f"{experiment}.yaml").read_text()
    assert text.splitlines()[1] == f"# python main.py experiment={experiment} scale=short"
    assert "launcher" not in text
    document = (ROOT / "docs" / "experiments.md").read_text()
    assert f"python main.py experiment={experiment} scale=short" in document


def test_other_seeds_are_quoted_in_the_document_so_that_a_shell_leaves_hydra_its_quotes():
    """Without them Hydra would take the list for a sweep over its own configuration, and refuse."""
    document = (ROOT / "docs" / "experiments.md").read_text()
    arguments = re.findall(r'"hydra\.sweeper\.params\.seed=[^"]*"', document)
    assert arguments
    for (override,) in map(shlex.split, arguments):
        parsed = OverridesParser.create().parse_override(override)
        assert not parsed.is_sweep_override()
        assert parsed.value() == "0,1,2,3,4"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_job_composes_and_is_valid(experiment):
    for overrides in jobs(experiment, "smoke"):
        cfg = composed(f"experiment={experiment}", "scale=smoke", *overrides)
        validate(cfg)
        assert cfg.stop.trajectories == 12
        assert cfg.policy.hidden == [8]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_scales_are_what_they_say(experiment):
    assert sweep(experiment, "paper").sweeper.params.seed == SEEDS.get(experiment, "0,1,2,3")
    paper = composed(f"experiment={experiment}", "scale=paper").stop
    length = (ROBOTS[experiment], None) if experiment in ROBOTS else (None, 250_000)
    assert (paper.trajectories, paper.env_steps) == length
    short = composed(f"experiment={experiment}", "scale=short").stop
    assert (short.trajectories, short.seconds) == (None, 600)


@pytest.mark.parametrize("group", ["algorithm", "experiment"])
def test_every_file_that_a_scale_has_for_a_choice_is_used_by_some_choice(group):
    used = {f"{scale}_{choice}" for scale in options("scale") for choice in options(group)}
    assert {path.stem for path in (CONFIG_DIRECTORY / "scale" / group).glob("*.yaml")} <= used


@pytest.mark.parametrize("experiment", ROBOTS)
def test_a_robots_experiment_is_about_its_own_task_at_every_scale(experiment):
    task = f"env=arm_{experiment.removeprefix('robot_')}"
    assert all(task in job for scale in options("scale") for job in jobs(experiment, scale))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_at_the_smallest_scale(experiment, tmp_path):
    command = [sys.executable, str(ROOT / "main.py"), f"experiment={experiment}", "scale=smoke", "sweep.name=smoke"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"sweep: {2 * len(jobs(experiment, 'smoke'))} finished." in result.stdout
    assert (tmp_path / "multirun/smoke/comparison/comparison.html").exists()
