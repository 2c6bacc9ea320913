import json

import pytest
from rich.console import Console

from benchmarks.__main__ import parse
from benchmarks.measurement import Measurement
from benchmarks.report import machine, table, write_json
from mbrl_async.tracking.environment import Environment

ROWS = [
    Measurement("epoch", 0.71234, "s", 2, 0.755, 1.62),
    Measurement("imagined transitions", 93456.7, "1/s", 1),
]


def lines(measurements):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table("title", measurements))
    return [line.split() for line in capture.get().splitlines()]


def test_the_table_shows_every_part_of_a_figure():
    assert lines(ROWS) == [
        ["title"],
        ["figure", "value", "unit", "threads", "of", "ceiling", "of", "peer"],
        ["epoch", "0.712", "s", "2", "76%", "162%"],
        ["imagined", "transitions", "93,457", "1/s", "1"],
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0012345, "0.00123"), (999.4, "999"), (999.6, "1,000"), (1000, "1,000"), (1.5, "1.5")],
)
def test_three_digits_are_enough_below_a_thousand(value, shown):
    assert lines([Measurement("figure", value, "s", 1)])[-1][1] == shown


def test_the_file_holds_what_was_measured(tmp_path):
    write_json(tmp_path / "figures.json", ROWS)
    assert json.loads((tmp_path / "figures.json").read_text()) == [
        {
            "name": "epoch",
            "value": 0.71234,
            "unit": "s",
            "threads": 2,
            "ratio_to_ceiling": 0.755,
            "ratio_to_peer": 1.62,
        },
        {
            "name": "imagined transitions",
            "value": 93456.7,
            "unit": "1/s",
            "threads": 1,
            "ratio_to_ceiling": None,
            "ratio_to_peer": None,
        },
    ]


def test_the_machine_is_named_with_the_cores_that_can_be_used():
    environment = Environment(
        git_commit=None,
        git_dirty=None,
        packages={"torch": "2.13.0"},
        python="3.11.7",
        platform="Linux",
        cpu="AMD EPYC",
        cores=64,
        usable_cores=2,
        torch_threads=1,
        matmul_precision="medium",
        device="cpu",
    )
    assert machine(environment) == (
        "AMD EPYC, 2 cores, Python 3.11.7, torch 2.13.0, medium precision of float32 matrix products"
    )


def test_the_command_line(tmp_path):
    arguments = parse(["dynamics", "--quick", "--json", str(tmp_path / "figures.json")])
    assert (arguments.parts, arguments.quick, arguments.json) == (["dynamics"], True, tmp_path / "figures.json")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["dynamic"],
            "there is no part dynamic: choose from whole_run, backends, keeping, dynamics, policy_step, meta_update, "
            "collection, tracking, checkpoint, peer",
        ),
        (["peer"], "say where it is, --mbrl-lib FOLDER"),
        (["--mbrl-lib", "/nowhere"], "pip install --no-deps --target /nowhere mbrl==0.2.0"),
        (["--json", "/nowhere/at/all.json"], "make the folder /nowhere/at first"),
        (["--json"], "expected one argument"),
    ],
)
def test_a_mistake_is_told_before_minutes_of_measuring(arguments, sentence, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert sentence in capsys.readouterr().err
