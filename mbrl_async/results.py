"""What a run leaves in files: data only, nothing whose loading could execute code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from mbrl_async.runtime.channels import Latest
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.trace import TRACE_FILE, write_trace
from mbrl_async.types import Trajectory
from mbrl_async.wiring import Channels

POLICY_FILE = "policy.safetensors"
MODEL_FILE = "model.safetensors"
TRAJECTORIES_FILE = "trajectories.safetensors"
RESULT_FILES = (TRACE_FILE, TRAJECTORIES_FILE, POLICY_FILE, MODEL_FILE)


def write_results(directory: Path, channels: Channels, summary: RunSummary) -> None:
    """The trace, all trajectories, and the newest policy and model, as far as there are any."""
    directory.mkdir(parents=True, exist_ok=True)
    write_trace(directory / TRACE_FILE, summary.records)
    write_trajectories(directory / TRAJECTORIES_FILE, channels.trajectories.history)
    _write_parameters(directory / POLICY_FILE, channels.policies)
    _write_parameters(directory / MODEL_FILE, channels.models)


def remove_results(directory: Path) -> None:
    """Those of another run that had the same folder: not every run leaves all of them."""
    for name in RESULT_FILES:
        (directory / name).unlink(missing_ok=True)


def write_trajectories(path: Path, trajectories: Sequence[Trajectory]) -> None:
    """N trajectories one behind the other, with S steps in all, as tensors; no file for none.

    observations (S + N, O), actions (S, A), rewards (S,), and lengths, policy_versions and terminated (N,).
    """
    if trajectories:
        tensors = {
            "observations": torch.from_numpy(np.concatenate([each.observations for each in trajectories])),
            "actions": torch.from_numpy(np.concatenate([each.actions for each in trajectories])),
            "rewards": torch.from_numpy(np.concatenate([each.rewards for each in trajectories])),
            "lengths": torch.tensor([each.length for each in trajectories]),
            "policy_versions": torch.tensor([each.policy_version for each in trajectories]),
            "terminated": torch.tensor([each.terminated for each in trajectories]),
        }
        save_file(tensors, path)


def read_trajectories(path: Path) -> list[Trajectory]:
    """The inverse of `write_trajectories`."""
    tensors = load_file(path)
    lengths = tensors["lengths"]
    observations = torch.split(tensors["observations"], (lengths + 1).tolist())
    actions, rewards = (torch.split(tensors[name], lengths.tolist()) for name in ("actions", "rewards"))
    versions, terminated = (tensors[name].tolist() for name in ("policy_versions", "terminated"))
    parts = zip(observations, actions, rewards, versions, terminated, strict=True)
    return [Trajectory(o.numpy(), a.numpy(), r.numpy(), version, ended) for o, a, r, version, ended in parts]


def _write_parameters(path: Path, channel: Latest) -> None:
    newest = channel.get()
    if newest is not None:
        tensors = {name: tensor.contiguous() for name, tensor in newest.parameters.items()}
        save_file(tensors, path, metadata={"version": str(newest.version)})
