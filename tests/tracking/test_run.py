import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mbrl_async import job
from mbrl_async.checkpoint import keeper
from mbrl_async.runtime import concurrent, processes
from mbrl_async.runtime.stop import Ending
from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.tracking import display
from mbrl_async.tracking.run import LONGEST_PARAMETER, PATIENCE, MlflowRun, flatten, shorten

STARTED = 1_600_000_000.25
"""Seconds since 1970."""


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = STARTED

    def __call__(self) -> float:
        return self.seconds


def start(client: MlflowClient, experiment: str, **arguments) -> MlflowRun:
    return MlflowRun(client=client, experiment_id=experiment, name="a run", tags={"seed": "3"}, **arguments)


def step(run: MlflowRun, finish: float, env_steps: int, **metrics: float) -> None:
    record = StepRecord("collect", 1, 0.0, finish, {})
    run.on_step(record, {f"collect/{name}": value for name, value in metrics.items()}, Counters(env_steps=env_steps))


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_it_is_told_and_when(client: MlflowClient, experiment: str, status):
    now = Now()
    run = start(client, experiment, now=now)
    assert client.get_run(run.run_id).info.status == "RUNNING"
    now.seconds += 60
    run.finish(status)
    info = client.get_run(run.run_id).info
    assert (info.status, info.run_name) == (status, "a run")
    assert (info.start_time, info.end_time) == (1_600_000_000_250, 1_600_000_060_250)


def test_the_first_end_counts(client: MlflowClient, experiment: str):
    run = start(client, experiment)
    run.finish("KILLED")
    run.finish("FINISHED")
    assert client.get_run(run.run_id).info.status == "KILLED"


def test_metrics_carry_environment_steps_and_the_clock_of_the_run(client: MlflowClient, experiment: str):
    run = start(client, experiment, now=Now())
    step(run, finish=1.5, env_steps=200, length=200.0)
    step(run, finish=3600.0, env_steps=400, length=200.0, **{"return": -7.5})
    run.finish("FINISHED")
    lengths = client.get_metric_history(run.run_id, "collect/length")
    assert [(m.value, m.step, m.timestamp) for m in lengths] == [
        (200.0, 200, 1_600_000_001_750),
        (200.0, 400, 1_600_003_600_250),
    ]
    assert client.get_run(run.run_id).data.metrics["collect/return"] == -7.5


def test_the_first_end_writes_every_metric_that_was_left(client: MlflowClient, experiment: str):
    run = start(client, experiment)
    for index in range(1200):  # more than one batch
        step(run, finish=float(index), env_steps=index, value=float(index))
    run.finish("FINISHED")
    history = client.get_metric_history(run.run_id, "collect/value")
    assert sorted(m.value for m in history) == list(range(1200))


def test_a_nested_configuration_becomes_parameters(client: MlflowClient, experiment: str):
    run = start(client, experiment)
    run.log_parameters(
        {"env": {"name": "hopper", "limits": [1, 2]}, "stop": None, "many": dict.fromkeys(map(str, range(250)), 1)}
    )
    run.finish("FINISHED")
    data = client.get_run(run.run_id).data
    assert data.params["env.name"] == "hopper"
    assert data.params["env.limits"] == "[1, 2]"
    assert data.params["stop"] == "None"
    assert len(data.params) == 253
    assert data.tags["seed"] == "3"


def test_the_phases_of_a_schedule_are_numbered():
    cycle = [{"collect": 10}, {"repeat": 25, "cycle": [{"learn_model": 1}]}]
    assert dict(flatten({"schedule": {"cycle": cycle}})) == {
        "schedule.cycle.0.collect": 10,
        "schedule.cycle.1.repeat": 25,
        "schedule.cycle.1.cycle.0.learn_model": 1,
    }


def test_empty_groups_and_texts_are_leaves():
    assert dict(flatten({"a": {}, "b": [], "c": "text", "d": {"e": ""}})) == {"a": {}, "b": [], "c": "text", "d.e": ""}


def test_a_long_value_says_that_it_was_shortened():
    assert shorten("x" * LONGEST_PARAMETER) == "x" * LONGEST_PARAMETER
    text = shorten("x" * 1234)
    assert len(text) == LONGEST_PARAMETER
    assert text.endswith("x ... [1234 characters]")


def test_artifacts_are_copied_also_after_the_end(client: MlflowClient, experiment: str, tmp_path: Path):
    run = start(client, experiment)
    run.finish("FINISHED")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"picture")
    (tmp_path / "private.txt").touch()
    run.log_artifacts(tmp_path, ["figures", "missing.txt"])
    assert Path(client.download_artifacts(run.run_id, "figures/a.png")).read_bytes() == b"picture"
    assert [artifact.path for artifact in client.list_artifacts(run.run_id)] == ["figures"]


class BrokenClient:
    """A store that answers at the start and then not any more."""

    def __init__(self, client: MlflowClient, hang: bool) -> None:
        self.create_run = client.create_run
        self._hang = threading.Event() if hang else None

    def _break(self, *_: object, **__: object) -> None:
        if self._hang is not None:
            self._hang.wait(10)  # longer than the test's patience; the thread is a daemon
        raise ConnectionError("the store is away")

    log_batch = set_terminated = log_artifact = _break


@pytest.mark.parametrize(("hang", "reason"), [(False, "the store is away"), (True, "no answer")])
def test_a_store_that_stays_away_stops_nothing_and_is_told(
    client: MlflowClient, experiment: str, tmp_path: Path, caplog, hang: bool, reason: str
):
    run = start(BrokenClient(client, hang), experiment, patience=dict.fromkeys(PATIENCE, 0.05))
    step(run, finish=1.0, env_steps=1, length=1.0, value=2.0)
    (tmp_path / "file").touch()
    run.log_artifacts(tmp_path, ["file"], patience=0.05)
    run.finish("KILLED")
    sentences = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(sentences) == 3
    assert all(run.run_id in sentence and reason in sentence for sentence in sentences)
    assert str(tmp_path) in sentences[0]
    assert "last 2 metrics are lost" in sentences[1]
    assert "ended as KILLED" in sentences[2]
    client.set_terminated(run.run_id)


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_all_that_an_interrupted_run_waits_for_takes_less_than_five_seconds(backend: str):
    """Everything that can go wrong on the way out, one after the other; what is written to the disk comes on top."""
    waits = {
        "the main thread looks for the signal": concurrent.POLL_SECONDS,
        "workers leave their steps": concurrent.GRACE_SECONDS,
        "the display's last line": display.LAST_LINE_SECONDS,
        "artifacts": job.ARTIFACT_SECONDS[Ending.KILLED],
        "the last metrics": PATIENCE["KILLED"],
        "the status": PATIENCE["KILLED"],
        "a snapshot": keeper.CLOSE_SECONDS,
    }
    if backend == "processes":
        waits |= {
            "processes leave": processes.LEAVE_SECONDS,
            "those that are killed die": processes.DEATH_SECONDS[Ending.KILLED],
        }
    assert sum(waits.values()) < 5
