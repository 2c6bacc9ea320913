"""What a run leaves in files can be read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mbrl_async.results import read_trajectories, write_trajectories
from mbrl_async.types import Trajectory


def trajectory(length: int, terminated: bool) -> Trajectory:
    generator = np.random.default_rng(length)
    observations, actions, rewards = (
        generator.standard_normal(shape).astype(np.float32) for shape in ((length + 1, 3), (length, 2), length)
    )
    return Trajectory(observations, actions, rewards, policy_version=10 * length, terminated=terminated)


def test_trajectories_of_different_lengths_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [trajectory(4, False), trajectory(1, True), trajectory(7, True)]
    write_trajectories(tmp_path / "file", written)
    read = read_trajectories(tmp_path / "file")
    assert [(each.policy_version, each.terminated) for each in read] == [(40, False), (10, True), (70, True)]
    for one, other in zip(read, written, strict=True):
        assert (one.observations == other.observations).all()
        assert (one.actions == other.actions).all()
        assert (one.rewards == other.rewards).all()


def test_no_trajectory_no_file(tmp_path: Path) -> None:
    write_trajectories(tmp_path / "file", [])
    assert not (tmp_path / "file").exists()
