"""Recorded threaded runs, replayed in one thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from mbrl_async.config import ConfigError
from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.job import Job
from mbrl_async.recorded_task import RecordedTask
from mbrl_async.replay import NotIdenticalError, Replayed, replayed, run_replay
from mbrl_async.results import read_trajectories, write_trajectories
from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.replay import DeviationError
from mbrl_async.runtime.trace import TRACE_FILE, StepRecord, read_trace, write_trace
from mbrl_async.types import FloatArray, Trajectory
from tests.recordings import THREADS, altered, altered_json, altered_line, no_figures, record
from tests.small import FEW_STEPS, composed


class Unrepeatable(LinearQuadratic):
    """Like a robot: never moves the same way twice."""

    def __init__(self, *, horizon: int, control_period: float, repeatable: bool) -> None:
        super().__init__(horizon=horizon, control_period=control_period)
        self._spec = type(self.spec)(**{**vars(self.spec), "repeatable": repeatable})

    def advance(self, action: FloatArray) -> FloatArray:
        observation: FloatArray = super().advance(action) + np.random.default_rng().normal(0, 0.01, 4)
        return observation.astype(np.float32)


UNREPEATABLE = "env._target_=tests.test_replay.Unrepeatable"


@pytest.fixture(scope="module", autouse=True)
def _without_figures() -> object:
    with no_figures():
        yield


@pytest.fixture(scope="module")
def recording(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A threaded asynchronous run of 5 trajectories: its id and its files."""
    output = tmp_path_factory.mktemp("recording")
    return record(client, output, *THREADS), output


@pytest.fixture
def replay(client: MlflowClient, tmp_path: Path) -> Callable[..., Path]:
    """Replay a run; returns the folder of the replay's files."""

    def run(run_id: str, *overrides: str) -> Path:
        overrides = ("backend=replay", f"replay.run_id={run_id}", f"tracking.uri={client.tracking_uri}", *overrides)
        run_replay(Job(composed(*overrides), overrides, {}, tmp_path / "replay"))
        return tmp_path / "replay"

    return run


def test_a_replay_is_identical_says_so_and_is_a_run_of_its_own(client, recording, replay, capsys):
    run_id, recorded = recording
    experiment = client.get_run(run_id).info.experiment_id
    before = {run.info.run_id for run in client.search_runs([experiment])}
    output = replay(run_id)
    steps = len(read_trace(recorded / "trace.jsonl"))
    verdict = f"identical to run {run_id} in all {steps} steps, and in policy.safetensors and model.safetensors"
    assert verdict in capsys.readouterr().out
    assert read_trace(output / "trace.jsonl") == read_trace(recorded / "trace.jsonl")
    for name in ("policy", "model", "trajectories"):
        assert digest(load_file(output / f"{name}.safetensors")) == digest(load_file(recorded / f"{name}.safetensors"))
    replays = client.search_runs([experiment], f"tags.replays = '{run_id}'")
    (run,) = [each for each in replays if each.info.run_id not in before]  # other tests replay the recording, too
    assert run.info.status == "FINISHED"
    assert run.data.tags["backend"] == "replay"
    assert run.data.tags["env"] == "linear_quadratic", "the recorded run's, not the default"
    assert "trace.jsonl" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=me_ppo", *THREADS),
        pytest.param(
            ("schedule=interleaved_data_policy", "iteration.turns=2", "iteration.updates=2", *THREADS),
            marks=pytest.mark.slow,
        ),
        pytest.param(("algorithm=mb_mpo", *THREADS), marks=pytest.mark.slow),
        pytest.param(("algorithm=mb_mpc", *THREADS), marks=pytest.mark.slow),
        pytest.param(
            ("algorithm=trpo", "schedule=sync", "pace.factor=0", "iteration.rollouts=2"), marks=pytest.mark.slow
        ),
        pytest.param(("schedule=sync", "pace.factor=0", *FEW_STEPS), marks=pytest.mark.slow),
        pytest.param(
            ("schedule=interleaved_model_policy", "iteration.rollouts=2", "iteration.turns=2", *THREADS),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("torch_threads.learn_model=2", "env=inverted_pendulum", "env.horizon=20", "pace.factor=0.5"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("backend=simulated", "pace.factor=0.05"), marks=pytest.mark.slow),
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_kind_of_run_can_be_replayed(client, tmp_path, overrides):
    run_id = record(client, tmp_path / "recorded", *overrides)
    again = replayed(run_id, uri=client.tracking_uri)
    assert again.summary.failure is None
    published = {"policy": again.channels.policies.get(), "model": again.channels.models.get()}
    digests = {name: digest(newest.parameters) for name, newest in published.items() if newest is not None}
    files = {name: tmp_path / "recorded" / f"{name}.safetensors" for name in published}
    assert digests == {name: digest(load_file(path)) for name, path in files.items() if path.exists()}
    assert digests, "nothing was learned"


def deviation(again: Replayed) -> str:
    assert again.summary.failure is not None
    assert isinstance(again.summary.failure.error, DeviationError)
    return str(again.summary.failure.error)


def test_another_seed_is_found_at_the_first_step(recording, replay, client):
    run_id, _ = recording
    sentence = rf"Not identical to run {run_id}: step 1 of collect \(record 1 of the trace\) has another result"
    with pytest.raises(NotIdenticalError, match=sentence):
        replay(run_id, "seed=1")
    (run, *_) = client.search_runs([client.get_run(run_id).info.experiment_id], f"tags.replays = '{run_id}'")
    assert run.info.status == "FAILED"


def test_another_setting_is_found_where_it_first_counts(client, recording):
    run_id, _ = recording
    again = replayed(run_id, uri=client.tracking_uri, overrides=["dynamics.training.learning_rate=0.02"])
    assert deviation(again).startswith("step 1 of learn_model ")


def test_a_changed_trace_is_found_at_the_changed_step(client, recording, replay, tmp_path):
    alter = altered_line(7, lambda line: line.update(digest="0" * 32))
    run_id = altered(client, recording[0], tmp_path, "trace.jsonl", alter)
    with pytest.raises(NotIdenticalError, match=r"record 7 of the trace"):
        replay(run_id)


def test_a_changed_weight_is_found(client, recording, replay, tmp_path):
    def alter(path: Path) -> None:
        tensors = load_file(path)
        tensors["log_std"][0] += 1e-6
        save_file(tensors, path)

    run_id = altered(client, recording[0], tmp_path, "policy.safetensors", alter)
    with pytest.raises(NotIdenticalError, match=r"stored policy\.safetensors is not what they ended with"):
        replay(run_id)


def test_a_replay_stops_where_it_is_told_and_can_be_inspected(client, recording, replay, capsys):
    run_id, recorded = recording
    trace = read_trace(recorded / "trace.jsonl")
    position = 1 + next(i for i, each in enumerate(trace) if (each.worker, each.index) == ("improve_policy", 2))
    again = replayed(run_id, until="improve_policy:2", uri=client.tracking_uri)
    assert again.summary.records == trace[:position]
    newest = again.channels.policies.get()
    assert newest is not None
    assert newest.version == 2
    assert digest(newest.parameters) == trace[position - 1].digest
    learner = again.workers["improve_policy"]
    assert digest(learner.result()) == trace[position - 1].digest
    assert learner.pull()
    assert learner.step().metrics["updates"] == 3.0, "it can go on by hand"

    output = replay(run_id, f"replay.until={position}")
    assert f"identical to run {run_id} in all of the first {position} of {len(trace)} steps" in capsys.readouterr().out
    assert digest(load_file(output / "policy.safetensors")) == trace[position - 1].digest


@pytest.mark.parametrize(
    ("repeatable", "overrides"), [("false", []), ("true", ["replay.trajectories=recorded"])], ids=["robot", "asked for"]
)
def test_recorded_trajectories_stand_in_for_what_cannot_be_repeated(client, tmp_path, repeatable, overrides):
    run_id = record(client, tmp_path / "recorded", UNREPEATABLE, f"+env.repeatable={repeatable}", *THREADS)
    again = replayed(run_id, uri=client.tracking_uri, overrides=[UNREPEATABLE, *overrides])
    assert again.summary.failure is None
    anew = ["replay.trajectories=simulated", UNREPEATABLE]
    assert "step 1 of collect" in deviation(replayed(run_id, uri=client.tracking_uri, overrides=anew))


def test_with_recorded_trajectories_the_actions_are_still_compared(client, recording, tmp_path):
    def alter(path: Path) -> None:
        first, second, *others = read_trajectories(path)
        observations = second.observations.copy()
        observations[3, 0] += 0.01
        write_trajectories(path, [first, Trajectory(observations, second.actions, second.rewards, 1), *others])

    run_id = altered(client, recording[0], tmp_path, "trajectories.safetensors", alter)
    again = replayed(run_id, uri=client.tracking_uri, overrides=["replay.trajectories=recorded"])
    assert "step 2 of collect" in deviation(again)


@pytest.mark.parametrize("missing", ["trace.jsonl", "config.yaml", "overrides.txt"])
def test_a_run_that_left_too_little_is_refused(client, recording, tmp_path, missing):
    run_id = altered(client, recording[0], tmp_path, missing, Path.unlink)
    with pytest.raises(ConfigError, match=rf"left no {missing}, .*: choose a run that ended in order"):
        replayed(run_id, uri=client.tracking_uri)


def test_a_run_that_does_not_exist_is_refused(client):
    with pytest.raises(ConfigError, match=r"Run 0123 cannot be read from sqlite:.*: give the id that MLflow shows"):
        replayed("0123", uri=client.tracking_uri)


def test_no_run_at_all_is_refused(client, tmp_path):
    overrides = ("backend=replay", f"tracking.uri={client.tracking_uri}")
    with pytest.raises(ConfigError, match=r"replay\.run_id is missing: give the id of the run"):
        run_replay(Job(composed(*overrides), overrides, {}, tmp_path))


def test_a_trace_from_before_digests_is_refused(client, recording, tmp_path):
    alter = altered_line(1, lambda line: line.pop("digest"))
    run_id = altered(client, recording[0], tmp_path, "trace.jsonl", alter)
    with pytest.raises(ConfigError, match=r"has no digest at record 1: .* record the run anew"):
        replayed(run_id, uri=client.tracking_uri)


def test_another_environment_is_refused_unless_it_is_wanted(client, recording, tmp_path):
    alter = altered_json(lambda values: values["packages"].update(torch="1.0", mlflow="1.0"))
    run_id = altered(client, recording[0], tmp_path, "environment.json", alter)
    sentence = r"here \(packages\.torch: 1\.0 in the recorded run, 2\.[^;]* here\): .*replay\.environment=any"
    with pytest.raises(ConfigError, match=sentence):
        replayed(run_id, uri=client.tracking_uri)
    again = replayed(run_id, until=3, uri=client.tracking_uri, overrides=["replay.environment=any"])
    assert again.summary.failure is None


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("replay.until=0", r"replay\.until=0 names no step of this trace"),
        ("replay.until=100000", r"replay\.until=100000 names no step of this trace"),
        ("replay.until=learn_model:100000", r"replay\.until=learn_model:100000 names no step"),
        ("replay.trajectories=none", r"replay\.trajectories=none cannot be used"),
        ("replay.environment=other", r"replay\.environment=other cannot be used"),
        ("replay.untill=3", r"replay\.untill=3 is no setting of replay: did you mean until\?"),
    ],
)
def test_what_cannot_be_meant_is_refused(client, recording, override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        replayed(recording[0], uri=client.tracking_uri, overrides=[override])


@pytest.mark.parametrize("overrides", [(), (UNREPEATABLE, "+env.repeatable=false")], ids=["anew", "recorded"])
def test_a_run_of_several_collectors_is_replayed_each_with_its_own_trajectories(client, tmp_path, overrides):
    run_id = record(client, tmp_path, *THREADS, *overrides, "collectors=2", "stop.trajectories=6")
    recorded = read_trace(tmp_path / "trace.jsonl")
    again = replayed(run_id, uri=client.tracking_uri, overrides=overrides[:1])  # foreign code is named anew
    assert again.summary.failure is None
    assert again.summary.records == recorded
    assert {"collect_0", "collect_1"} < set(again.workers)
    history = again.channels.trajectories.history
    for mine, other in zip(history, read_trajectories(tmp_path / "trajectories.safetensors"), strict=True):
        assert np.array_equal(mine.observations, other.observations)
        assert np.array_equal(mine.actions, other.actions)


@pytest.mark.parametrize(
    ("horizon", "terminated", "ending"),
    [(3, False, (False, False)), (3, True, (True, False)), (9, True, (True, False)), (9, False, (False, True))],
    ids=["time limit", "terminated at the limit", "terminated", "cut off"],
)
def test_a_recorded_task_says_what_was_recorded_and_no_more(tmp_path, horizon, terminated, ending):
    generator = np.random.default_rng(0)
    trajectories = [
        Trajectory(
            *(generator.normal(size=size).astype(np.float32) for size in ((4, 4), (3, 2), 3)),
            policy_version=0,
            terminated=terminated,
        )
        for _ in range(2)
    ]
    write_trajectories(tmp_path / "trajectories.safetensors", trajectories)
    write_trace(tmp_path / TRACE_FILE, [StepRecord("collect", index, 0.0, 1.0, {}) for index in (1, 2)])
    inner = LinearQuadratic(horizon=horizon, control_period=0.1)
    files = {"file": str(tmp_path / "trajectories.safetensors"), "trace": str(tmp_path / TRACE_FILE)}
    task = RecordedTask(task=inner, collector="collect", **files)
    assert task.spec == inner.spec
    for trajectory in trajectories:
        assert np.array_equal(task.reset(generator), trajectory.observations[0])
        for t in range(3):
            observation, reward, over, cut_off = task.step(np.zeros(2, np.float32))
            assert np.array_equal(observation, trajectory.observations[t + 1])
            assert reward == trajectory.rewards[t]
            assert (over, cut_off) == (ending if t == 2 else (False, False))
        with pytest.raises(IndexError, match="reset before the next step"):
            task.step(np.zeros(2, np.float32))
    with pytest.raises(IndexError, match="No more trajectories were recorded"):
        task.reset(generator)
