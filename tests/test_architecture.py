"""Imports point one way; nothing in the package does what its place forbids."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mbrl_async"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each part may import of the others. Parts are folders, or modules at the top of the package.
ARROWS = {
    "types": set(),
    "envs": {"types"},
    "dynamics": {"types"},
    "policies": {"types"},
    "algorithms": {"types", "policies", "dynamics"},
    "priority": set(),
    "runtime": {"types", "priority"},
    "robot": {"settings", "types", "envs", "config", "commands", "search_path"},
    "workers": {"types", "envs", "dynamics", "policies", "algorithms", "runtime.channels"},
    "tracking": {"types", "priority", "runtime.trace"},
    "analysis": {"types", "runtime.trace", "tracking.run", "tracking.store"},
    "settings": set(),
    "config": {"types", "settings"},
    "collectors": {"types", "config"},
    "supplies": {"config"},
    "wiring": {"types", "config", "collectors", "supplies", "runtime"},
    "experiment": {"settings", "types", "config", "collectors", "wiring", "envs", "runtime"},
    "results": {"types", "wiring", "runtime"},
    "checkpoint": {"types", "priority", "runtime"},
    "run_folder": {"config", "results", "checkpoint"},
    "job": {"types", "config", "experiment", "results", "run_folder", "runtime", "tracking", "analysis", "checkpoint"},
    "search_path": {"config"},
    "resume": {"config", "job", "run_folder", "tracking", "trust", "search_path"},
    "commands": {"settings", "config"},
    "trust": {"config"},
    "selection": {"config", "tracking", "analysis"},
    "compare": {"settings", "config", "commands", "tracking", "analysis", "selection"},
    "evaluation": {"envs", "policies"},
    "players": {"types", "config", "wiring", "envs", "policies", "runtime", "evaluation"},
    "evaluate": {
        "types",
        "settings",
        "config",
        "collectors",
        "commands",
        "trust",
        "envs",
        "tracking",
        "analysis",
        "evaluation",
    }
    | {"players", "results", "run_folder", "checkpoint"},
    "sweeps": {"settings", "types", "config", "job", "run_folder", "tracking", "analysis", "commands", "compare"},
    "refusals": {"config"},
    "recorded": {"run_folder", "config", "commands", "trust", "refusals", "search_path", "tracking"},
    "recorded_task": {"types", "envs", "results", "runtime"},
    "differences": {"recorded", "tracking"},
    "distance": {"recorded", "results", "runtime"},
    "replay": {
        "settings",
        "types",
        "config",
        "collectors",
        "recorded",
        "differences",
        "distance",
        "wiring",
        "experiment",
        "results",
    }
    | {"job", "runtime", "tracking"},
    "reproduce": {
        "settings",
        "config",
        "collectors",
        "recorded",
        "differences",
        "distance",
        "experiment",
        "job",
        "replay",
    }
    | {"runtime", "tracking", "checkpoint.codec"},
    "__init__": set(),
}
FORBIDDEN = {
    "types": {"hydra", "omegaconf", "mlflow", "threading", "time"},
    "envs": {"hydra", "omegaconf", "mlflow", "threading", "time"},
    "dynamics": {"hydra", "omegaconf", "mlflow", "threading", "time"},
    "policies": {"hydra", "omegaconf", "mlflow", "threading", "time"},
    "algorithms": {"hydra", "omegaconf", "mlflow", "threading", "time"},
    "robot": {"mlflow"},
    "workers": {"hydra", "omegaconf", "mlflow", "threading", "time", "multiprocessing", "queue"},
    "runtime": {"hydra", "omegaconf", "mlflow"},
    "tracking": {"hydra", "omegaconf"},
    "analysis": {"hydra", "omegaconf"},
}


def part(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_point_one_way(module):
    own = part(module)
    for name in imports(module):
        if name.startswith("mbrl_async."):
            inside = name.removeprefix("mbrl_async.")
            allowed = ARROWS[own] | {own}
            assert any(inside == each or inside.startswith(f"{each}.") for each in allowed), f"{own} imports {name}"
        else:
            assert name.split(".")[0] not in FORBIDDEN.get(own, set()), f"{own} imports {name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_nobody_touches_a_global_generator(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"torch.manual_seed", "random.seed", "np.random.seed"}, f"{name} at {node.lineno}"
            if name in {"torch.rand", "torch.randn", "torch.randperm", "torch.randint"}:
                given = {keyword.arg for keyword in node.keywords}
                assert "generator" in given, f"{name} without a generator at line {node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_functions_and_modules_stay_short(module):
    text = module.read_text()
    assert len(text.splitlines()) <= 320, "a module does one thing"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
