"""Playing what a run has learned, on a run that was made for it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import imageio.v2
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from safetensors.torch import load_file, save_file

from mbrl_async.checkpoint.snapshots import SavedSnapshot, SnapshotFolder
from mbrl_async.commands import command_settings
from mbrl_async.config import ConfigError, build
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.envs.mujoco_tasks import InvertedPendulum
from mbrl_async.evaluate import Settings, evaluate, main
from mbrl_async.evaluation import mean_action, play, record, sampled_action
from mbrl_async.players import computing_as_its_collector
from mbrl_async.policies.adapted import with_adapted
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.robot.interface import RobotError
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.recovery import Snapshot
from mbrl_async.supplies import torch_generator
from mbrl_async.tracking.store import experiment_id
from mbrl_async.types import Parameters, TaskStep
from mbrl_async.wiring import Channels
from mbrl_async.workers.acting import PlanningActor
from tests.recordings import no_figures
from tests.recordings import record as record_run
from tests.small import FIXED_COSTS, SMALL, composed, small

SHORT = ("env=inverted_pendulum", "env.horizon=5")


def make_run(client: MlflowClient, folder: Path, *overrides: str) -> str:
    """A run with a configuration and a policy whose parameters are all 0.1."""
    cfg = composed(*SMALL, *overrides)
    parameters = new_policy(cfg).state_dict()
    save_file({name: torch.full_like(each, 0.1) for name, each in parameters.items()}, folder / "policy.safetensors")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    run = client.create_run(experiment_id(client, "evaluated"))
    client.log_artifacts(run.info.run_id, str(folder))
    return str(run.info.run_id)


def new_policy(cfg: DictConfig) -> GaussianMLP:
    spec = build(cfg.env).spec
    sizes = {"observation_size": spec.observation_size, "action_size": spec.action_size}
    made: GaussianMLP = build(cfg.policy, **sizes, generator=torch.Generator(), device="cpu")
    return made


def make_planner_run(client: MlflowClient, folder: Path, *overrides: str) -> str:
    """A run of a planner with a model that nobody trained."""
    cfg = composed(*small("algorithm=mb_mpc", *overrides))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    save_file(new_ensemble(cfg).state_dict(), folder / "model.safetensors")
    run = client.create_run(experiment_id(client, "evaluated"))
    client.log_artifacts(run.info.run_id, str(folder))
    return str(run.info.run_id)


def new_ensemble(cfg: DictConfig) -> Ensemble:
    spec = build(cfg.env).spec
    sizes = {"observation_size": spec.observation_size, "action_size": spec.action_size, "signals": 0}
    made: Ensemble = build(cfg.dynamics.ensemble, **sizes, generator=torch.Generator().manual_seed(1), device="cpu")
    return made


def saved_snapshot(channels: Channels, directory: Path) -> Path:
    """The folder of a snapshot that holds the channels."""
    folder = directory / "snapshots"
    SnapshotFolder(folder, keep=1).save(SavedSnapshot(Snapshot(1, {}, {}), channels.state_dict()))
    return next(folder.iterdir())


def settings(client: MlflowClient, output: Path, *arguments: str) -> Settings:
    given = [f"tracking.uri={client.tracking_uri}", f"output={output}", "episodes=4", *arguments]
    return command_settings("evaluate", given, Settings)


class Foreign(LinearQuadratic):
    """A task from outside the package."""


class Counting:
    """A task whose reward is the action, and whose observation counts the steps from a drawn start."""

    spec = InvertedPendulum(horizon=3).spec
    ends = False

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        self.state = np.full(4, generator.integers(100), np.float32)
        return self.state

    def step(self, action: np.ndarray) -> TaskStep:
        self.state = self.state + 1
        return TaskStep(self.state, float(action[0]), terminated=self.ends, truncated=False)


def test_an_episode_earns_the_sum_of_its_rewards_and_is_looked_at_after_each_step():
    looked = []
    task = Counting()
    total = play(task, lambda observation: observation, np.random.default_rng(0), lambda: looked.append(task.state[0]))
    start = np.random.default_rng(0).integers(100)
    assert total == 3 * start + 3  # start, start + 1, start + 2
    assert looked == [start + 1, start + 2, start + 3]


def test_an_episode_is_over_when_the_task_ends():
    task = Counting()
    task.ends = True
    total = play(task, lambda observation: observation, np.random.default_rng(0))
    assert total == np.random.default_rng(0).integers(100), "the reward of one step"


def test_the_mean_action_does_not_explore_and_the_sampled_one_does():
    cfg = composed("policy.hidden=[8]")
    policy = build(cfg.policy, observation_size=3, action_size=2, generator=torch.Generator(), device="cpu")
    observation = np.ones(3, np.float32)
    first, second = (mean_action(policy, observation) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    generator = torch.Generator().manual_seed(0)
    sampled = np.stack([sampled_action(policy, generator, observation) for _ in range(2000)])
    # The standard deviation is 1: that of a mean of 2000 is 0.022, and the bound four of them.
    np.testing.assert_allclose(sampled.mean(axis=0), first, atol=0.09)
    np.testing.assert_allclose(sampled.std(axis=0), 1, atol=0.07)


def test_a_run_is_played_and_gets_what_came_out(client: MlflowClient, tmp_path: Path):
    run_id = make_run(client, tmp_path)
    screen = io.StringIO()
    first = evaluate(run_id, settings(client, tmp_path / "a"), Console(file=screen, width=120))
    again = evaluate(run_id, settings(client, tmp_path / "b"), Console(file=io.StringIO()))
    assert first["stochastic"].value == again["stochastic"].value, "the same seed plays the same"
    numbers = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert len(numbers["deterministic"]["returns"]) == 4
    assert numbers["deterministic"]["mean"] == pytest.approx(np.mean(numbers["deterministic"]["returns"]))
    low, high = numbers["stochastic"]["interval"]
    assert low < numbers["stochastic"]["mean"] < high
    assert "95% interval over 4 episodes" in screen.getvalue()
    assert artifacts_of(client, run_id, "policy-seed-0") == ["evaluation.json"]


def artifacts_of(client: MlflowClient, run_id: str, evaluation: str) -> list[str]:
    return [Path(each.path).name for each in client.list_artifacts(run_id, f"evaluation/{evaluation}")]


def test_another_seed_does_not_replace_the_first_and_foreign_files_stay_where_they_are(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run_id = make_run(client, tmp_path)
    given = [f"tracking.uri={client.tracking_uri}", "episodes=2"]
    folder = Path("evaluations", run_id, "policy-seed-0")
    folder.mkdir(parents=True)
    (folder / "private.txt").write_text("not for everybody")
    for seed in (0, 1):
        evaluate(run_id, command_settings("evaluate", [*given, f"seed={seed}"], Settings), Console(file=io.StringIO()))
        assert artifacts_of(client, run_id, f"policy-seed-{seed}") == ["evaluation.json"]
        numbers = json.loads(Path("evaluations", run_id, f"policy-seed-{seed}", "evaluation.json").read_text())
        assert numbers["settings"]["seed"] == seed


def test_one_episode_has_no_interval(client: MlflowClient, tmp_path: Path):
    screen = io.StringIO()
    evaluate(
        make_run(client, tmp_path), settings(client, tmp_path / "a", "episodes=1"), Console(file=screen, width=120)
    )
    assert screen.getvalue().count("not possible: one episode") == 2


@pytest.mark.parametrize(("period", "pictures", "rate"), [(0.04, 10, 25), (0.008, 2, 25)])
def test_a_video_shows_real_time(tmp_path: Path, period: float, pictures: int, rate: int):
    """Thirty pictures a second at most: of a control step every 0.04 s each is shown, of one every 0.008 s a fifth."""

    class Drawn(LinearQuadratic):
        def draw(self) -> NDArray[np.uint8]:
            return np.zeros((48, 64, 3), np.uint8)

    task = Drawn(horizon=10, control_period=period)
    record(task, lambda observation: observation[:2], np.random.default_rng(0), tmp_path / "a.mp4")
    video = imageio.v2.get_reader(tmp_path / "a.mp4")
    assert (video.count_frames(), video.get_meta_data()["fps"]) == (pictures, rate)


def test_an_episode_is_the_same_with_a_video_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(InvertedPendulum, "draw", lambda self: np.zeros((48, 64, 3), np.uint8))
    task = InvertedPendulum(horizon=5)
    filmed, played = np.random.default_rng(0), np.random.default_rng(0)
    for _ in range(2):
        seen = record(task, lambda observation: observation[:1], filmed, tmp_path / "a.mp4")
        assert seen == play(task, lambda observation: observation[:1], played)
    task.close()


def returns_by_hand(configuration: Path, parameters: Parameters) -> list[float]:
    """Of four episodes of the policy with these parameters, without exploring."""
    cfg = OmegaConf.load(configuration)
    policy, task, starts = new_policy(cfg), build(cfg.env), np.random.default_rng(0)
    policy.load_state_dict(parameters)
    return [play(task, partial(mean_action, policy), starts) for _ in range(4)]


def test_a_policy_plays_as_it_was_in_a_snapshot(client: MlflowClient, tmp_path: Path):
    run_id = make_run(client, tmp_path)
    earlier = {name: -each for name, each in load_file(tmp_path / "policy.safetensors").items()}
    channels = Channels(Stream(), Latest(), Latest())
    channels.policies.put(earlier)
    channels.models.put({"a model's": torch.ones(1)})  # there is one, too, when there is a policy
    given = settings(client, tmp_path / "a", f"snapshot={saved_snapshot(channels, tmp_path)}")
    evaluate(run_id, given, Console(file=io.StringIO()))
    played = json.loads((tmp_path / "a" / "evaluation.json").read_text())["deterministic"]["returns"]
    assert played == returns_by_hand(tmp_path / "config.yaml", earlier)


def test_of_a_policy_that_adapts_its_own_parameters_are_played(client: MlflowClient, tmp_path: Path):
    """A run of MB-MPO ends with the policies that it adapted in the same file."""
    run_id = make_run(client, tmp_path, "algorithm=mb_mpo")
    own = load_file(tmp_path / "policy.safetensors")
    adapted = {name: torch.zeros(4, *each.shape) for name, each in own.items()}
    save_file(with_adapted(own, adapted), tmp_path / "policy.safetensors")
    client.log_artifact(run_id, str(tmp_path / "policy.safetensors"))
    evaluate(run_id, settings(client, tmp_path / "a"), Console(file=io.StringIO()))
    played = json.loads((tmp_path / "a" / "evaluation.json").read_text())["deterministic"]["returns"]
    assert played == returns_by_hand(tmp_path / "config.yaml", own)


def test_a_planner_plays_as_its_collector_did(client: MlflowClient, tmp_path: Path):
    """The same as the actor by hand, with its own generator, in episodes that each begin without a plan."""
    run_id = make_planner_run(client, tmp_path, "algorithm/planner=cem", "algorithm.planner.search.candidates=20")
    screen = io.StringIO()
    estimates = evaluate(run_id, settings(client, tmp_path / "a", "seed=3"), Console(file=screen, width=120))
    cfg = OmegaConf.load(tmp_path / "config.yaml")
    task, models = build(cfg.env), Latest()
    models.put(new_ensemble(cfg).state_dict())
    actor = PlanningActor(
        planner=build(cfg.algorithm.planner),
        ensemble=new_ensemble(cfg),
        models=models,
        task=task,
        action_generator=torch_generator(3, "collect algorithm.actor.action_generator", "cpu"),
    )
    starts, returns = np.random.default_rng(3), []
    for _ in range(4):
        actor.pull()
        returns.append(play(task, actor.act, starts))
    assert list(estimates) == ["planned"], "a planner has no stochastic and deterministic pair"
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["planned"]["returns"] == returns
    assert "planned" in screen.getvalue()


def test_a_planner_plays_in_the_last_model_of_its_run_and_in_that_of_a_snapshot(client: MlflowClient, tmp_path: Path):
    with no_figures():
        run_id = record_run(client, tmp_path / "planner", "algorithm=mb_mpc", *FIXED_COSTS[:3])
    channels = Channels(Stream(), Latest(), Latest())
    channels.models.put(new_ensemble(OmegaConf.load(tmp_path / "planner" / "config.yaml")).state_dict())
    silent, snapshot = Console(file=io.StringIO()), f"snapshot={saved_snapshot(channels, tmp_path)}"
    last = evaluate(run_id, settings(client, tmp_path / "a"), silent)["planned"]
    earlier = evaluate(run_id, settings(client, tmp_path / "b", snapshot), silent)["planned"]
    assert last.value > earlier.value, "the snapshot's model was never trained"


def test_a_snapshot_without_a_model_is_refused_in_a_sentence(client: MlflowClient, tmp_path: Path):
    snapshot = f"snapshot={saved_snapshot(Channels(Stream(), Latest(), Latest()), tmp_path)}"
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="was made before there was a model: give a later one"):
        evaluate(make_planner_run(client, tmp_path / "run"), settings(client, tmp_path / "a", snapshot), Console())


def test_torch_computes_as_in_the_run_and_afterwards_as_before():
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cfg = composed(f"torch_threads.collect={before[0] + 1}", "matmul_precision=medium")
    with computing_as_its_collector(cfg):
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (before[0] + 1, "medium")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    with computing_as_its_collector(OmegaConf.create({})):
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


def test_a_planner_is_filmed(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(InvertedPendulum, "draw", lambda self: np.zeros((48, 64, 3), np.uint8))
    run_id = make_planner_run(client, tmp_path, *SHORT)
    given = ("video=true", "episodes=1")
    evaluate(run_id, settings(client, tmp_path / "a", *given), Console(file=io.StringIO()))
    assert imageio.v2.get_reader(tmp_path / "a" / "planned.mp4").count_frames() == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["policy=a"], "policy=a cannot be played: this run plans in a model; write model= or snapshot= instead."),
        (["model=a"], "has no a: it has config.yaml, model.safetensors."),
        (["model=config.yaml"], "model=config.yaml holds no parameters of this run's model"),
        (["model=a", "snapshot=b"], "model=a and snapshot=b name several things to play: give one of them."),
        (["snapshot=nowhere"], "snapshot=nowhere is no snapshot that can be read"),
    ],
)
def test_what_a_planner_cannot_play_is_refused_in_a_sentence(
    client: MlflowClient, tmp_path: Path, capsys, arguments, sentence
):
    run_id = make_planner_run(client, tmp_path)
    given = [f"tracking.uri={client.tracking_uri}", f"output={tmp_path / 'new'}", *arguments]
    assert main([run_id, *given]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dynamics.ensemble.hidden": [4]}, "model=model.safetensors holds no parameters of this run's model"),
        ({"algorithm.planner.search.candidates": 3, "algorithm.planner.particles": 1}, "The run's planner cannot be"),
        ({"dynamics": None}, "The run's configuration has no dynamics, so that its planner cannot be made again"),
        ({"algorithm.actor._target_": "os.system"}, "names os.system, which is code from outside"),
    ],
)
def test_a_planner_that_cannot_be_made_again_is_refused_in_a_sentence(
    client: MlflowClient, tmp_path: Path, capsys, change, sentence
):
    run_id = make_planner_run(client, tmp_path)
    cfg = OmegaConf.load(tmp_path / "config.yaml")
    for key, value in change.items():
        if value is None:
            del cfg[key]
        else:
            OmegaConf.update(cfg, key, value)
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    client.log_artifact(run_id, str(tmp_path / "config.yaml"))
    assert main([run_id, f"tracking.uri={client.tracking_uri}", f"output={tmp_path / 'new'}"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_makes_videos_without_a_screen(client: MlflowClient, tmp_path: Path):
    run_id = make_run(client, tmp_path, *SHORT)
    command = [sys.executable, "-m", "mbrl_async.evaluate", run_id, "video=true", "episodes=2"]
    store = [f"tracking.uri={client.tracking_uri}", f"output={tmp_path / 'new'}"]
    result = subprocess.run([*command, *store], capture_output=True, text=True, check=False, timeout=300)
    if "MuJoCo found no renderer" in result.stderr:
        assert result.returncode == 2
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr
    frames = list(imageio.v2.get_reader(tmp_path / "new" / "deterministic.mp4").iter_data())  # it knows no length
    assert len(frames) == 5
    assert np.std(frames[0]) > 1, "something is to be seen: of an empty picture it is 0"


def test_a_machine_without_a_renderer_says_what_to_install(client: MlflowClient, tmp_path: Path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ImportError("no libEGL")

    monkeypatch.setattr("mujoco.Renderer", fail)
    run_id = make_run(client, tmp_path, *SHORT)
    given = [f"tracking.uri={client.tracking_uri}", f"output={tmp_path / 'new'}"]
    assert main([run_id, *given, "video=true"]) == 2
    assert "no renderer (no libEGL): set MUJOCO_GL=egl" in capsys.readouterr().err
    assert not list((tmp_path / "new").glob("*.mp4"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Write python -m mbrl_async.evaluate RUN_ID"),
        (["episodes=3"], "Write python -m mbrl_async.evaluate RUN_ID"),
        (["RUN", "episodes=0"], "episodes=0 cannot be used: it should be greater than 0."),
        (["RUN", "episode=3"], "did you mean episodes?"),
        (["RUN", "policy=snapshot"], "has no snapshot: it has config.yaml, policy.safetensors."),
        (
            ["RUN", "model=a"],
            "model=a cannot be played: this run acts with a policy; write policy= or snapshot= instead.",
        ),
        (["RUN", "policy=config.yaml"], "policy=config.yaml holds no parameters of this run's policy"),
        (["RUN", "video=true"], "LinearQuadratic has no picture of itself"),
        (["no-such-run"], "There is no run no-such-run: copy the id of one from mlflow ui."),
    ],
)
def test_what_cannot_be_played_is_refused_in_a_sentence(
    client: MlflowClient, tmp_path: Path, capsys, arguments, sentence
):
    run_id = make_run(client, tmp_path) if "RUN" in arguments else ""
    given = [run_id if each == "RUN" else each for each in arguments]
    uri = [f"tracking.uri={client.tracking_uri}", f"output={tmp_path / 'new'}"] if given and "=" not in given[0] else []
    assert main([*given, *uri]) == 2
    assert sentence in capsys.readouterr().err


def test_foreign_code_is_not_imported_unless_it_is_trusted(client: MlflowClient, tmp_path: Path, capsys):
    (tmp_path / "config.yaml").write_text("env: {_target_: os.system, command: x}\npolicy: {_target_: mbrl_async.x}\n")
    run = client.create_run(experiment_id(client, "evaluated"))
    client.log_artifacts(run.info.run_id, str(tmp_path))
    assert main([run.info.run_id, f"tracking.uri={client.tracking_uri}"]) == 2
    assert "names os.system, which is code from outside" in capsys.readouterr().err


def test_foreign_code_is_executed_if_it_is_trusted(client: MlflowClient, tmp_path: Path):
    run_id = make_run(client, tmp_path, f"env._target_={__name__}.Foreign")
    given = settings(client, tmp_path / "a", "episodes=1", "trust=true")
    assert evaluate(run_id, given, Console(file=io.StringIO())).keys() == {"deterministic", "stochastic"}


def test_foreign_code_that_is_not_there_is_named(client: MlflowClient, tmp_path: Path, capsys):
    run_id = make_run(client, tmp_path)
    cfg = OmegaConf.load(tmp_path / "config.yaml")
    cfg.env._target_ = "not_installed.Task"
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    client.log_artifact(run_id, str(tmp_path / "config.yaml"))
    assert main([run_id, f"tracking.uri={client.tracking_uri}", f"output={tmp_path / 'a'}", "trust=true"]) == 2
    assert "_target_=not_installed.Task cannot be imported" in capsys.readouterr().err


class Unanswering(LinearQuadratic):
    """Its system is away, and it remembers whether it was given back."""

    closed = False

    def reset(self, _generator: np.random.Generator, /) -> NDArray[np.float32]:
        Unanswering.closed = False
        raise RobotError("No robot answers at tcp://127.0.0.1:9.")

    def close(self) -> None:
        Unanswering.closed = True


def test_a_robot_that_is_away_is_named_and_its_task_given_back(client: MlflowClient, tmp_path: Path, capsys):
    run_id = make_run(client, tmp_path, f"env._target_={__name__}.Unanswering")
    assert main([run_id, f"tracking.uri={client.tracking_uri}", f"output={tmp_path / 'a'}", "trust=true"]) == 2
    assert "No robot answers" in capsys.readouterr().err
    assert Unanswering.closed
