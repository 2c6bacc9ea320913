"""Format, lint, types, and the two commands that everything begins with."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    "command",
    [("ruff", "format", "--check", "."), ("ruff", "check", "."), ("mypy",)],
    ids=["format", "lint", "types"],
)
def test_the_gates_are_passed(command):
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_continuous_integration_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text().splitlines()[-1].replace('"$venv"', ".venv")
    assert script in (ROOT / "README.md").read_text()


def test_every_file_that_the_package_reads_is_shipped_with_it():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    shipped = {
        path for package, patterns in settings.items() for each in patterns for path in _folder(package).glob(each)
    }
    read = {path for path in (ROOT / "mbrl_async").rglob("*.*") if path.suffix not in {".py", ".pyc"}}
    assert shipped == {path for path in read if path.is_file()}


def _folder(package):
    return ROOT.joinpath(*package.split("."))


def test_pinned_versions_lie_within_the_declared_ranges():
    from packaging.requirements import Requirement

    declared = re.findall(r'^    "([^"]+)",', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    ranges = {Requirement(each).name.lower(): Requirement(each).specifier for each in declared if ">=" in each}
    pins = dict(line.lower().split("==") for line in (ROOT / "requirements.txt").read_text().splitlines())
    assert pins.keys() == ranges.keys()
    for name, version in pins.items():
        assert ranges[name].contains(version), f"{name}=={version} is outside {ranges[name]}"


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_documents_refer_to_tests_that_exist(document):
    text = document.read_text()
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", text))
    assert [name for name in sorted(names) if f"def {name}(" not in tests] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lines_of_documents_are_as_short_as_those_of_the_code(document):
    """Tables, code and a link that stands alone cannot be broken."""
    width = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
    prose = re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL).splitlines()
    breakable = [line for line in prose if not re.fullmatch(r" *(\|.*|([-*] )?!?\[[^]]*\]\(\S*\)\S*)", line)]
    assert [line for line in breakable if len(line) > width] == []
