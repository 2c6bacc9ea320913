import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from mbrl_async.tracking.environment import cpu_model_of, describe_environment

CPU = torch.device("cpu")


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false")
    command = ("git", *identity, *arguments)
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("answer = 42\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--message", "begin")
    return tmp_path


def test_it_knows_the_commit_and_whether_the_tree_differs(repository: Path):
    clean = describe_environment(source=repository, device=CPU)
    assert (clean.git_commit, clean.git_dirty) == (git(repository, "rev-parse", "HEAD"), False)
    (repository / "code.py").write_text("answer = 43\n")
    changed = describe_environment(source=repository, device=CPU)
    assert (changed.git_commit, changed.git_dirty) == (clean.git_commit, True)
    assert changed.tags()["git_dirty"] == "true"


def test_code_outside_a_repository_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    environment = describe_environment(source=tmp_path, device=CPU)
    assert (environment.git_commit, environment.git_dirty) == (None, None)
    assert environment.tags()["git_commit"] == environment.tags()["git_dirty"] == "unknown"


def test_a_machine_without_git_has_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert describe_environment(source=repository, device=CPU).git_commit is None


def test_what_it_writes_can_be_read(tmp_path: Path):
    environment = describe_environment(source=tmp_path, device=CPU)
    environment.write(tmp_path / "environment.json")
    written = json.loads((tmp_path / "environment.json").read_text())
    assert written["packages"]["torch"] == version("torch")
    assert written["torch_threads"] == torch.get_num_threads()
    assert written["device"] == "cpu"
    assert written["cpu"]
    assert all(isinstance(value, str) and value for value in environment.tags().values())


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        (
            "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nmodel name\t: another\n",
            "AMD EPYC (family 25, model 17)",
        ),
        ("model name\t: ARMv7 rev 3\n", "ARMv7 rev 3"),
        ("BogoMIPS\t: 50.00\n", ""),
        ("", ""),
    ],
)
def test_generations_of_a_processor_differ_where_the_brand_does_not(cpuinfo: str, model: str):
    assert cpu_model_of(cpuinfo) == model
