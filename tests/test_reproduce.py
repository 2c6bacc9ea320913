"""Recorded runs, made anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.conf import ConfigSourceInfo
from mlflow import MlflowClient
from omegaconf import OmegaConf

from mbrl_async.collectors import is_repeatable
from mbrl_async.config import ConfigError
from mbrl_async.distance import CurveDistance, Distance, curve_distance, distance, first_difference
from mbrl_async.recorded import RecordedRun, compose_again
from mbrl_async.reproduce import _lines, main, reproduce
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, Schedule
from mbrl_async.runtime.simulated import Simulated
from mbrl_async.runtime.trace import StepRecord
from mbrl_async.search_path import search_path, search_path_of
from tests.recordings import altered, altered_line, no_figures, record
from tests.small import FIXED_COSTS, composed


@pytest.fixture(scope="module", autouse=True)
def _without_figures() -> object:
    with no_figures():
        yield


@pytest.fixture(scope="module")
def recording(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A simulated run with fixed costs of 3 trajectories: its id."""
    return record(client, tmp_path_factory.mktemp("recording"), *FIXED_COSTS, "stop.trajectories=3")


def test_a_deterministic_run_reproduces_bit_for_bit(client, recording, tmp_path, capsys):
    assert reproduce(recording, [], client.tracking_uri, tmp_path) == 0
    told = capsys.readouterr().out
    assert f"Reproducing run {recording}. What differs:" in told
    assert "simulated.costs" not in told
    assert "identical in all " in told
    assert "and in policy.safetensors and model.safetensors" in told
    experiment = client.get_run(recording).info.experiment_id
    (run,) = client.search_runs([experiment], f"tags.reproduces = '{recording}'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["backend"] == "simulated"


def test_a_deterministic_run_that_deviates_is_told_with_its_first_step(client, recording, tmp_path, capsys):
    alter = altered_line(3, lambda line: line.update(digest="0" * 32))
    run_id = altered(client, recording, tmp_path / "copy", "trace.jsonl", alter)
    assert reproduce(run_id, [], client.tracking_uri, tmp_path / "output") == 1
    told = capsys.readouterr().out
    assert "not identical, although it should be: step " in told
    assert "(record 3 of the trace) has another result now" in told
    assert "returns: 0 apart at most, 0 on average, over 3 points" in told


def test_with_another_seed_it_says_what_differs_and_how_far_apart_they_are(client, recording, tmp_path, capsys):
    assert reproduce(recording, ["seed=1"], client.tracking_uri, tmp_path) == 0
    told = capsys.readouterr().out
    assert "seed: 0 in the recorded run, 1 here" in told
    assert "not identical: step 1 of collect (record 1 of the trace) has another result now" in told
    assert "over 3 points" in told
    assert "policy.safetensors: different" in told


def test_the_command_line_refuses_in_a_sentence(client, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["reproduce", "0123", f"tracking.uri={client.tracking_uri}"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("Run 0123 cannot be read from sqlite:")
    monkeypatch.setattr("sys.argv", ["reproduce", "0123", "--uri", "mlruns"])
    assert main() == 2
    assert "keeps no runs in plain directories" in capsys.readouterr().err


def test_what_was_recorded_counts_even_if_defaults_have_changed(client, recording, tmp_path):
    def alter(path: Path) -> None:
        config = OmegaConf.load(path)
        config.dynamics.training.batch_size = 77  # as if that had been the default then
        del config.matmul_precision  # as if there had been no such setting
        OmegaConf.save(config, path)

    run_id = altered(client, recording, tmp_path / "copy", "config.yaml", alter)
    recorded = RecordedRun(client, run_id, tmp_path / "files")
    cfg, choices = compose_again(recorded, ["policy.hidden=[5]"])
    assert cfg.dynamics.training.batch_size == 77
    assert cfg.policy.hidden == [5]
    assert cfg.matmul_precision == "highest"
    assert cfg.stop.trajectories == 3
    assert cfg.backend.torch_threads.collect == cfg.torch_threads.collect, "interpolations stay"
    assert choices["env"] == "linear_quadratic"


def test_an_override_counts_even_if_it_is_the_default_by_now(client, recording, tmp_path):
    def alter(path: Path) -> None:
        config = OmegaConf.load(path)
        config.dynamics.training.batch_size, config.seed = 77, 5
        OmegaConf.save(config, path)

    run_id = altered(client, recording, tmp_path / "copy", "config.yaml", alter)
    recorded = RecordedRun(client, run_id, tmp_path / "files")
    default = compose_again(recorded, [])[0]
    assert (default.dynamics.training.batch_size, default.seed) == (77, 5)
    asked, _ = compose_again(recorded, ["dynamics.training.batch_size=256", "++seed=0", "algorithm=me_trpo"])
    assert (asked.dynamics.training.batch_size, asked.seed) == (256, 0)
    assert asked.dynamics.ensemble == default.dynamics.ensemble


def test_another_group_option_takes_the_place_of_the_recorded_one(client, recording, tmp_path):
    recorded = RecordedRun(client, recording, tmp_path)
    cfg, choices = compose_again(recorded, ["backend=threads", "algorithm=me_ppo"])
    assert choices["backend"] == "threads"
    assert "costs" not in cfg.backend
    assert "simulated" not in cfg, "its overrides have lost their object"
    assert cfg.algorithm.improvement["update"]._target_.endswith("PPO")
    assert cfg.algorithm.improvement.rollouts == 10, "as it was recorded"


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A folder of the user's, whose name means something to Hydra's grammar, with a task in it."""
    folder = tmp_path / "my tasks, [new]"
    (folder / "env").mkdir(parents=True)
    (folder / "env" / "my_task.yaml").write_text("defaults: [linear_quadratic, _self_]\n")
    return folder


@pytest.fixture
def own_task(client: MlflowClient, own_folder: Path, tmp_path: Path) -> str:
    """The id of a run of that task."""
    where = search_path([f"file://{own_folder}"])
    return record(client, tmp_path / tmp_path.name, *where, *FIXED_COSTS, "env=my_task", "stop.trajectories=2")


def test_a_run_of_the_users_own_task_can_be_reproduced_also_where_its_folder_moved(
    client, own_task, own_folder, tmp_path, capsys
):
    assert reproduce(own_task, [], client.tracking_uri, tmp_path / "there") == 0
    assert "identical in all " in capsys.readouterr().out
    moved = own_folder.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"new\], where this run had configuration of its own, is not there: say"):
        reproduce(own_task, [], client.tracking_uri, tmp_path / "lost")
    now = search_path([f"file://{moved}"])
    assert reproduce(own_task, [*now, "seed=1"], client.tracking_uri, tmp_path / "moved run") == 0
    overrides = (tmp_path / "moved run" / "overrides.txt").read_text().splitlines()
    assert overrides[0] == now[0], "from there on it is found"
    assert sum(override.startswith("hydra.searchpath") for override in overrides) == 1


def test_the_search_path_is_the_users_own_and_is_written_for_hydra():
    sources = [
        ConfigSourceInfo("hydra.conf", "pkg", "hydra"),
        ConfigSourceInfo("/program/conf", "file", "main"),
        ConfigSourceInfo("my.package", "pkg", "hydra.searchpath in command-line"),
        ConfigSourceInfo("/it's mine", "file", "command-line"),
    ]
    assert search_path_of(sources) == ["hydra.searchpath=['pkg://my.package','file:///it\\'s mine']"]
    assert search_path_of(sources[:2]) == []


def test_an_unknown_setting_is_refused_in_a_sentence(client, recording, tmp_path):
    recorded = RecordedRun(client, recording, tmp_path)
    with pytest.raises(ConfigError, match=r"seeed=1 is no setting of the configuration: did you mean seed\?"):
        compose_again(recorded, ["seeed=1"])


@pytest.mark.parametrize("target", ["os.system", "mbrl_async.tracking.environment.subprocess.run", "my_task.Task"])
def test_a_stored_configuration_cannot_choose_what_is_executed(client, recording, tmp_path, target):
    def alter(path: Path) -> None:
        config = OmegaConf.load(path)
        config.env._target_ = target
        OmegaConf.save(config, path)

    run_id = altered(client, recording, tmp_path / "copy", "config.yaml", alter)
    recorded = RecordedRun(client, run_id, tmp_path / "files")
    with pytest.raises(ConfigError, match=rf"env\._target_={target} comes from the recorded run .* repeat this"):
        compose_again(recorded, [])
    cfg, _ = compose_again(recorded, [f"env._target_={target}"])
    assert cfg.env._target_ == target


STEPS = [
    StepRecord("collect", 1, 0.0, 1.0, {"policy": 0}, "aa"),
    StepRecord("learn_model", 1, 1.0, 2.0, {"trajectories": 1}, "bb"),
]


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (STEPS, None),
        (STEPS[:1], None),
        ([StepRecord("collect", 1, 0.5, 9.0, {"policy": 0}, "aa")], None),
        (
            [StepRecord("learn_model", 1, 0.0, 1.0, {}, "aa")],
            "step 1 of collect (record 1 of the trace) came first, step 1 of learn_model now",
        ),
        (
            [StepRecord("collect", 1, 0.0, 1.0, {"policy": 2}, "aa")],
            "step 1 of collect (record 1 of the trace) used {'policy': 0} first, {'policy': 2} now",
        ),
        (
            [STEPS[0], StepRecord("learn_model", 1, 1.0, 2.0, {"trajectories": 1}, "cc")],
            "step 1 of learn_model (record 2 of the trace) has another result now",
        ),
    ],
    ids=["equal", "shorter", "other times", "other worker", "other version", "other result"],
)
def test_the_first_difference_of_two_traces(now, sentence):
    assert first_difference(STEPS, now) == sentence


def test_curves_are_compared_where_both_have_as_many_steps():
    then, now = {20: 1.0, 40: -2.0, 60: 5.0}, {20: 1.5, 40: -5.0, 80: 9.0}
    assert curve_distance(then, now) == CurveDistance(points=2, maximum=3.0, mean=1.75)
    assert curve_distance(then, {}).points == 0


def test_who_takes_turns_and_what_repeats():
    assert Schedule(warm_up=[], cycle=[{COLLECT: 1}, {LEARN_MODEL: 1}]).takes_turns
    assert not Schedule(warm_up=[], cycle=[{COLLECT: 1}, {LEARN_MODEL: 1, IMPROVE_POLICY: 1}]).takes_turns
    fixed = {COLLECT: 0.0, LEARN_MODEL: 0.1, IMPROVE_POLICY: 0.1}
    assert Simulated(torch_threads={}, costs=fixed).repeats
    assert not Simulated(torch_threads={}, costs={**fixed, LEARN_MODEL: "measured"}).repeats


def test_what_cannot_be_repeated_is_not_expected_to_be_identical(client, recording, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mbrl_async.reproduce.is_repeatable", lambda _: False)
    run_id = altered(
        client, recording, tmp_path / "copy", "trace.jsonl", altered_line(3, lambda line: line.update(digest="0" * 32))
    )
    assert reproduce(run_id, [], client.tracking_uri, tmp_path / "output") == 0
    assert "although it should be" not in capsys.readouterr().out


def test_a_robot_in_real_time_cannot_be_repeated():
    assert is_repeatable(composed("env=linear_quadratic").env)
    assert is_repeatable(composed("env=arm_reach", "env/robot=stepped").env)
    assert not is_repeatable(composed("env=arm_reach", "env/robot=simulated").env)


@pytest.fixture
def apart_from(client: MlflowClient, recording: str, tmp_path: Path) -> Callable[..., Distance]:
    """How far the recording's own files are from a copy of it in which an artifact was altered."""

    def measure(name: str, alter: Callable[[Path], None], status: str = "FINISHED") -> Distance:
        copy = altered(client, recording, tmp_path / "copy", name, alter)
        client.update_run(copy, status=status)
        own = Path(client.download_artifacts(recording, "", str(tmp_path / "own")))
        return distance(RecordedRun(client, copy, tmp_path / "fetched"), own)

    return measure


def cut_off(trace: Path) -> None:
    trace.write_text("".join(trace.read_text().splitlines(keepends=True)[:-2]))


def doubled(trace: Path) -> None:
    trace.write_text(2 * trace.read_text())


def test_a_run_that_goes_on_after_the_end_of_a_finished_one_is_another(apart_from):
    apart = apart_from("trace.jsonl", cut_off)
    assert not apart.identical
    told = f"not identical, although it should be: there were {apart.steps} steps, there are {apart.steps + 2} now"
    assert next(_lines(apart, expected=True)) == told


def test_a_run_that_was_killed_is_compared_as_far_as_it_goes_and_without_its_parameters(apart_from):
    apart = apart_from("trace.jsonl", cut_off, status="KILLED")
    assert apart.identical
    assert apart.parameters == {}
    assert apart.steps > 0
    assert list(_lines(apart, expected=True)) == [f"identical in all {apart.steps} steps"]


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_a_run_that_gets_less_far_than_the_recorded_one_is_another(apart_from, status):
    apart = apart_from("trace.jsonl", doubled, status)
    assert not apart.identical
    assert apart.first_difference == f"there were {2 * apart.steps} steps, there are {apart.steps} now"


def test_without_recorded_trajectories_the_steps_alone_are_compared(apart_from):
    apart = apart_from("trajectories.safetensors", Path.unlink)
    assert (apart.returns.points, math.isnan(apart.returns.maximum), math.isnan(apart.returns.mean)) == (0, True, True)
    assert apart.identical


def test_without_a_recorded_trace_no_step_is_the_same(apart_from):
    apart = apart_from("trace.jsonl", Path.unlink, status="KILLED")
    assert apart.steps == 0
    assert not apart.identical
