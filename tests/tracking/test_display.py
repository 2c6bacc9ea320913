import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.tracking.display import Display, PlainLines

ENOUGH = 10.0
"""Seconds after which a test gives up; what it waits for takes milliseconds."""


def recorded_console(terminal: bool, width: int = 120) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


def text_of(console: Console) -> str:
    return console.file.getvalue()


def display_on(console: Console, trajectories: int | None = 40) -> Display:
    now = iter(range(0, 10**6, 30))  # each look at the clock comes half a minute after the last
    limits = {"trajectories": trajectories, "env_steps": None, "seconds": 600.0}
    return Display(title="hopper · async", console=console, now=lambda: float(next(now)), **limits)


def collect(display: Display, index: int) -> None:
    counters = Counters(index, 200 * index, 10.5 * index, 10.0 * index)
    metrics = {
        "collect/return": float(index),
        "share/busy_collect": 0.97,
        "staleness/policy_versions": 35.0,
        "staleness/policy_seconds": 10.25,
        "run/time_ratio": 1.05,
    }
    display.on_step(StepRecord("collect", index, 0.0, 1.0, {"policy": index}), metrics, counters)


def run_to(display: Display, trajectories: int) -> None:
    counters = Counters(trajectories, 200 * trajectories, 10.5 * trajectories, 10.0 * trajectories)
    for index in range(1, trajectories + 1):
        collect(display, index)
    display.on_step(StepRecord("learn_model", 1, 0, 1, {}), {"learn_model/epochs": 9.0 * trajectories}, counters)
    display.on_step(
        StepRecord("improve_policy", 1, 0, 1, {}), {"improve_policy/updates": 33.0 * trajectories}, counters
    )


def test_a_terminal_keeps_the_last_state_on_screen():
    console = recorded_console(terminal=True)
    with display_on(console) as display:
        run_to(display, 12)
    last = text_of(console).split("hopper · async")[-1]
    assert "12/40 trajectories · 2400 env steps · 126/600 s" in last
    assert " left" in last
    row = next(line for line in last.splitlines() if line.startswith("collect"))
    assert row.split()[1:3] == ["12", "97%"]
    assert row.split()[-4:] == ["policy", "35", "10.2", "s"]
    assert "return 12.0 · mean of last 10 7.5 · run/collection 1.050" in last
    assert "per trajectory 33 policy updates, 9 model epochs" in last


def test_each_of_several_collectors_has_a_row_of_its_own_with_its_own_staleness():
    console = recorded_console(terminal=True)
    counters = Counters(2, 400, 10.5, 10.0)
    with display_on(console) as display:
        for name, versions in (("collect_0", 35.0), ("collect_1", 7.0)):
            metrics = {"collect/return": versions, "share/busy_collect_0": 0.97, "share/busy_collect_1": 0.5}
            metrics |= {"staleness/policy_versions": versions, "staleness/policy_seconds": 1.0}
            metrics |= {f"staleness/policy_versions_{name}": versions, f"staleness/policy_seconds_{name}": versions / 2}
            display.on_step(StepRecord(name, 1, 0.0, 1.0, {"policy": 1}), metrics, counters)
    rows = [line.split() for line in text_of(console).split("hopper · async")[-1].splitlines()]
    assert [(row[:3], row[-3:]) for row in rows if row and row[0].startswith("collect")] == [
        (["collect_0", "1", "97%"], ["35", "17.5", "s"]),
        (["collect_1", "1", "50%"], ["7", "3.5", "s"]),
    ]


def test_a_terminal_shows_a_run_before_its_first_step_and_without_a_limit_on_trajectories():
    console = recorded_console(terminal=True)
    with display_on(console, trajectories=None):
        pass
    assert "0 trajectories · 0 env steps · 0/600 s" in text_of(console)
    assert "– left" in text_of(console)


def test_no_terminal_gets_plain_lines():
    console = recorded_console(terminal=False)
    with display_on(console) as display:
        run_to(display, 12)
    assert text_of(console).splitlines() == [
        "12/40 trajectories · 2400 env steps · 126/600 s · return 12.0 · mean of last 10 7.5 · "
        "run/collection 1.050 · per trajectory 33 policy updates, 9 model epochs"
    ]


def test_plain_lines_come_when_there_is_news_and_the_last_one_at_the_end():
    console = recorded_console(terminal=False)
    lines = ["", "one", "one", "two"]
    asked = threading.Event()

    def line() -> str:
        if len(lines) == 1:
            asked.set()
            return lines[0]
        return lines.pop(0)

    printer = PlainLines(console, line, interval=0.001)
    printer.start()
    assert asked.wait(ENOUGH)
    printer.stop()
    assert text_of(console).splitlines() == ["one", "two"]


def test_an_output_that_hangs_does_not_keep_the_run_from_ending(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mbrl_async.tracking.display.LAST_LINE_SECONDS", 0.05)
    hanging = threading.Event()
    console = recorded_console(terminal=False)
    monkeypatch.setattr(console, "print", lambda *_, **__: hanging.wait(ENOUGH))
    with display_on(console) as display:
        collect(display, 1)  # returns at once
    assert not hanging.is_set()
    hanging.set()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_summary_has_the_results_and_a_command_that_can_be_copied(terminal: bool):
    console = recorded_console(terminal, width=60)
    command = "mlflow ui --backend-store-uri sqlite:////home/somebody/" + "deep/" * 20 + "mlflow.db"
    page = "http://127.0.0.1:5000/#/experiments/" + "1" * 80
    with display_on(console) as display:
        run_to(display, 12)
    figures = [Path("a/return.png")]
    display.summary(ending="reached its stop rule", figures=figures, run_id="0f3a", user_interface=command, page=page)
    summary = text_of(console).split("hopper · async: ")[-1]
    rows = {" ".join(line.split()) for line in summary.splitlines()}
    assert rows >= {
        "the run reached its stop rule.",
        "trajectories 12",
        "environment steps 2400",
        "return, mean of the last 10 7.5",
        "run / collection time 1.050",
        "policy updates per trajectory 33",
        "model epochs per trajectory 9",
        "figures a/return.png",
        "run id: 0f3a",
        f"all curves: {command}",
        f"shown at: {page}",
    }


def test_the_summary_of_a_run_without_a_trajectory_invents_no_numbers():
    console = recorded_console(terminal=False)
    with display_on(console) as display:
        pass
    display.summary(ending="failed", figures=[], run_id="0f3a", user_interface="mlflow ui", page="http://host")
    rows = {" ".join(line.split()) for line in text_of(console).splitlines()}
    assert {"return, mean of the last 10 –", "run / collection time –"} <= rows


def test_only_those_who_work_are_shown():
    console = recorded_console(terminal=True)
    with display_on(console) as display:
        collect(display, 1)
        update = {"improve_policy/updates": 3.0, "staleness/trajectories_versions": 2.0}
        display.on_step(
            StepRecord("improve_policy", 1, 0, 1, {"trajectories": 1}), update, Counters(1, 200, 10.0, 10.0)
        )
    display.summary(
        ending="reached its stop rule", figures=[], run_id="0f3a", user_interface="mlflow ui", page="http://host"
    )
    screen, summary = text_of(console).split("hopper · async")[-2:]
    row = next(line for line in screen.splitlines() if line.startswith("improve_policy"))
    assert row.split()[-3:] == ["trajectories", "2", "–"]
    assert "per trajectory 3 policy updates\n" in screen.replace(" \n", "\n")
    assert "epochs" not in summary
