"""The commands beside `main.py`, as far as they are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mbrl_async import compare, evaluate
from mbrl_async.robot import keys, serve
from tests.small import CONFIG_DIRECTORY

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "compare": lambda _: compare.main(),
    "evaluate": evaluate.main,
    "serve": serve.main,
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_all_settings_and_does_nothing_else(name, flag, monkeypatch, tmp_path: Path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, flag])
    assert COMMANDS[name]([flag]) == 0
    said = capsys.readouterr()
    assert said.out.endswith((CONFIG_DIRECTORY / f"{name}.yaml").read_text())
    assert said.err == ""
    assert list(tmp_path.iterdir()) == []


def test_no_keys_are_made_in_a_folder_that_is_a_flag(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert keys.main(["--help"]) == 2
    assert capsys.readouterr().err == "Write python -m mbrl_async.robot.keys FOLDER.\n"
    assert list(tmp_path.iterdir()) == []
