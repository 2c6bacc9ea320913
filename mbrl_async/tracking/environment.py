"""What made a run: the code, the packages, the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "mlflow", "hydra-core", "omegaconf", "pydantic", "safetensors")
"""Packages whose version can alter a result or how it is stored."""

GIT_SECONDS = 5.0

LATER = "resumed"
"""In the file: what processes that resumed the run had instead."""


@dataclass(frozen=True)
class Environment:
    """Everything outside the configuration that a result may depend on. None: not known."""

    git_commit: str | None
    git_dirty: bool | None
    """Whether the working tree differs from that commit."""
    packages: dict[str, str]
    python: str
    platform: str
    cpu: str
    cores: int | None
    """Logical cores of the machine."""
    usable_cores: int | None
    """Those of them that this process may use."""
    torch_threads: int
    """Intra-op threads of the thread that asked; workers set their own."""
    matmul_precision: str
    device: str

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def append_to(self, path: Path) -> None:
        """Add it to those of earlier processes of the run, unless the last of them had the same."""
        earlier = read_environments(path) if path.exists() else []
        if earlier[-1:] != [asdict(self)]:
            first, *later = [*earlier, asdict(self)]
            path.write_text(json.dumps({**first, **({LATER: later} if later else {})}, indent=2) + "\n")

    def tags(self) -> dict[str, str]:
        """What runs are searched by."""
        return {
            "git_commit": self.git_commit or "unknown",
            "git_dirty": "unknown" if self.git_dirty is None else str(self.git_dirty).lower(),
            "cpu": self.cpu,
            "cores": str(self.usable_cores or self.cores),
            "device": self.device,
        }


def read_environments(path: Path) -> list[dict[str, Any]]:
    """Those of all processes of a run that differed from the one before, the first of which is as `Environment`."""
    first: dict[str, Any] = json.loads(path.read_text())
    later: list[dict[str, Any]] = first.pop(LATER, [])
    return [first, *later]


def describe_environment(*, source: Path, device: torch.device) -> Environment:
    """What this process runs on, with the code in `source`, computing on `device`."""
    return Environment(
        git_commit=_git(source, "rev-parse", "HEAD"),
        git_dirty=_is_dirty(source),
        packages=dict(_package_versions()),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu_model(),
        cores=os.cpu_count(),
        usable_cores=usable_cores(),
        torch_threads=torch.get_num_threads(),
        matmul_precision=torch.get_float32_matmul_precision(),
        device=_device_name(device),
    )


def _git(source: Path, *arguments: str) -> str | None:
    """What git prints; None without git or without a repository. Runs no hook and writes nothing."""
    command = ["git", "-c", "core.fsmonitor=false", "--no-optional-locks", "-C", str(source), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _is_dirty(source: Path) -> bool | None:
    changes = _git(source, "status", "--porcelain")
    return None if changes is None else bool(changes)


def _package_versions() -> list[tuple[str, str]]:
    found = []
    for package in PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    """Linux tells the model in a file; elsewhere Python knows it, or at least the architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    return cpu_model_of(text) or platform.processor() or platform.machine()


def cpu_model_of(cpuinfo: str) -> str:
    """Name, family and model of the first processor in the text of Linux's /proc/cpuinfo; "" if it names none.

    Virtual machines often name no more than the brand, of which generations differ in instructions and so in rounding.
    """
    first, *_ = cpuinfo.strip().split("\n\n")
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    numbers = [f"{key.removeprefix('cpu ')} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    name = fields.get("model name", "")
    return f"{name} ({', '.join(numbers)})" if name and numbers else name


def usable_cores() -> int | None:
    """Cores that this process may use; None where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None  # Linux knows it


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
