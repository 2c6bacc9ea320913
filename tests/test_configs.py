"""Every configuration composes, is valid and can be built; every impossible one is refused in a sentence."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
import yaml

from mbrl_async.config import ConfigError, validate
from mbrl_async.experiment import build_experiment, without_effect
from mbrl_async.runtime.trace import TRACE_FILE, StepRecord, write_trace
from tests.small import CONFIG_DIRECTORY, FIXED_COSTS, composed, options, small

GROUPS = ("env", "dynamics", "policy", "algorithm", "schedule", "backend", "tracking", "experiment", "scale")


@pytest.mark.parametrize("override", [f"{group}={name}" for group in GROUPS for name in options(group)])
def test_every_option_of_every_group_can_be_built(override, tmp_path):
    write_trace(tmp_path / TRACE_FILE, [StepRecord("collect", 1, 0.0, 1.0, {"policy": 0}, "00")])
    needed = {"backend=replay": ("replay.run_id=recorded", f"replay.trace={tmp_path / TRACE_FILE}")}
    cfg = composed("schedule=sync", override, *needed.get(override, ()))
    assert set(build_experiment(cfg).makers) == set(cfg.algorithm.workers)


@pytest.mark.parametrize("algorithm", options("algorithm"))
@pytest.mark.parametrize("env", options("env"))
def test_every_task_composes_with_every_algorithm(env, algorithm):
    validate(composed(f"env={env}", "schedule=sync", f"algorithm={algorithm}"))


@pytest.mark.parametrize(
    ("overrides", "weight", "learning_rate", "capacity"),
    [
        (("algorithm=me_ppo", "env=half_cheetah"), 0.4, 5e-4, 10_000),
        (("algorithm=me_ppo", "env=ant"), 0.1, 5e-4, 10_000),
        (("algorithm=me_ppo", "env=hopper"), 0.9, 5e-4, 10_000),
        (("algorithm=me_ppo", "env=walker2d"), 0.99, 5e-4, 10_000),
        (("algorithm=me_ppo", "env=hopper", "schedule=sync"), 0.4, 5e-4, 25_000),
        (("algorithm=mb_mpo", "env=hopper"), 0.1, 1e-3, 10_000),
        (("algorithm=mb_mpo", "env=walker2d"), 0.1, 5e-4, 10_000),
        (("algorithm=mb_mpo", "env=hopper", "schedule=sync"), 0.4, 1e-3, 25_000),
        (("algorithm=mb_mpo", "env=ant", "schedule=sync"), 0.4, 5e-4, 25_000),
        (("env=half_cheetah",), 0.4, 5e-4, 10_000),
        (("env=walker2d",), 0.4, 5e-4, 10_000),
        (("env=ant",), 0.1, 5e-4, 10_000),
        (("env=hopper",), 0.9, 5e-4, 10_000),
        (("env=hopper", "schedule=sync"), 0.4, 1e-3, 25_000),
        (("schedule=interleaved_model_policy",), 0.9, 1e-3, 25_000),
        (("schedule=interleaved_data_policy",), 0.9, 1e-3, 25_000),
    ],
)
def test_the_papers_settings_come_with_the_task_and_the_schedule(overrides, weight, learning_rate, capacity):
    cfg = composed(*overrides)
    assert cfg.dynamics.early_stopping.weight == weight
    assert cfg.dynamics.training.learning_rate == learning_rate
    assert cfg.dynamics.buffer.capacity == capacity


@pytest.mark.parametrize(
    ("env", "step_size"), [("half_cheetah", 0.01), ("walker2d", 0.01), ("ant", 0.02), ("hopper", 0.02)]
)
def test_the_papers_trust_region_comes_with_the_task(env, step_size):
    assert composed(f"env={env}").algorithm.improvement["update"].step_size == step_size


@pytest.mark.parametrize(("schedule", "rollouts", "step_size"), [("sync", 20, 0.01), ("async", 25, 0.05)])
def test_the_papers_settings_of_mb_mpo_come_with_the_schedule(schedule, rollouts, step_size):
    improvement = composed("algorithm=mb_mpo", f"schedule={schedule}").algorithm.improvement
    assert (improvement.tasks, improvement.rollouts, improvement.adaptation_rate) == (20, rollouts, 1e-3)
    assert improvement.trust_region.step_size == step_size


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for group in ("paper", "policy/task", "algorithm/task")
        for path in (CONFIG_DIRECTORY / group).rglob("*.yaml")
    ),
    ids=lambda path: path.stem,
)
def test_every_file_of_settings_that_come_with_a_choice_is_used_by_some_choice(path):
    """Hydra skips an optional file that does not exist without a word, so a misnamed one would never be read."""
    algorithms, schedules, tasks = (options(group) for group in ("algorithm", "schedule", "env"))
    choices = {
        "paper/schedule": product(algorithms, schedules),
        "paper/task": product(algorithms, schedules, tasks),
        "paper/robot": product(algorithms, tasks),
        "policy/task": product(tasks),
        "algorithm/task": product(algorithms, tasks),
    }
    group = path.parent.relative_to(CONFIG_DIRECTORY).as_posix()
    if group != "paper/base":  # what other files name would be missed
        assert path.stem in map("_".join, choices[group])


@pytest.mark.parametrize(
    ("env", "schedule", "algorithm"),
    [
        ("arm_reach", "async", "mb_mpo"),
        ("arm_match", "sync", "mb_mpo"),
        ("arm_stack", "async", "me_ppo"),
        ("arm_reach", "sync", "me_trpo"),
    ],
)
def test_the_papers_settings_come_with_its_robot(env, schedule, algorithm):
    cfg = composed(f"env={env}", f"schedule={schedule}", f"algorithm={algorithm}")
    dynamics = cfg.dynamics
    assert (dynamics.ensemble.hidden, dynamics.ensemble.members) == ([512, 512], 5)
    assert (dynamics.training.learning_rate, dynamics.buffer.capacity) == (5e-4, 5000)
    assert (dynamics.early_stopping.weight, cfg.policy.hidden, cfg.algorithm.starts) == (0.1, [32, 32], "stored")
    assert cfg.algorithm.improvement.rollouts == 50
    if algorithm == "mb_mpo":
        assert (cfg.algorithm.improvement.tasks, cfg.algorithm.improvement.trust_region.step_size) == (5, 0.05)


def test_the_command_line_wins_over_the_papers_settings():
    assert composed("env=hopper", "dynamics.early_stopping.weight=0.5").dynamics.early_stopping.weight == 0.5


def test_every_option_says_in_its_first_lines_what_it_is():
    for path in CONFIG_DIRECTORY.rglob("*.yaml"):
        if "hydra" not in path.parts:
            comments = [line for line in path.read_text().splitlines()[:2] if line.startswith("# ")]
            assert any(not line.startswith("# @package") for line in comments), f"{path} begins without a word"


def test_the_help_lists_every_group_and_every_option():
    text = yaml.safe_load((CONFIG_DIRECTORY / "hydra/help/mbrl_async.yaml").read_text())["template"]
    for group in GROUPS:
        line = next(line for line in text.splitlines() if re.match(rf"\s+{group}\s", line))
        listed = line.partition(": ")[2].split(", ")
        assert sorted(listed) == options(group), f"--help is wrong about {group}"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("+dynamics.ensemble.membres=3",), r"dynamics\.ensemble\.membres=3 is no setting .* did you mean members\?"),
        (("+pace.typo=1",), r"pace\.typo=1 is no setting of pace: there are factor\."),
        (("+sead=1",), r"sead=1 is no setting of the configuration: did you mean seed\?"),
        (("dynamics.ensemble.members=0",), r"dynamics\.ensemble\.members=0 .* greater than 0"),
        (("dynamics.ensemble.members=7",), r"rollouts=50 .* 7 ensemble members: choose a multiple"),
        (("dynamics.ensemble.hidden=[64,0]",), r"dynamics\.ensemble\.hidden\.1=0 .* greater than 0"),
        (("algorithm=mb_mpo", "algorithm.improvement.tasks=12"), r"tasks=12 .* 5 ensemble members: choose a multiple"),
        (("algorithm=mb_mpo", "algorithm.improvement.adaptation_rate=0"), r"adaptation_rate=0 .* greater than 0"),
        (("algorithm.improvement.update=ppo",), r"improvement\.update=ppo is no component: choose a file .* slashes"),
        (("env=arm_reach", "env.robot=simulated"), r"env\.robot=simulated is no component"),
        (("dynamics.ensemble.output=point",), r"dynamics\.ensemble\.output=point is no component"),
        (("dynamics.training.learning_rate=-1",), r"learning_rate=-1 .* greater than 0"),
        (("dynamics.early_stopping.weight=1",), r"weight=1 .* less than 1"),
        (("dynamics.buffer.capacity=1",), r"learn_model cannot be made: validation_fraction=0\.2 of capacity=1"),
        (("policy.initial_log_std=-20",), r"initial_log_std=-20 is below"),
        (("pace.factor=-1",), r"pace\.factor=-1 .* greater than or equal to 0"),
        (("pace.factor=0",), r"pace\.factor=0 lets the collector .* run away.*schedule=sync"),
        (("pace.factor=inf",), r"pace\.factor=inf .* finite number"),
        (("pace.factor=fast",), r"pace\.factor=fast .* valid number"),
        (("stop.trajectories=ten",), r"stop\.trajectories=ten .* valid integer"),
        (("stop.trajectories=0",), r"stop\.trajectories=0 .* greater than 0"),
        (("stop.trajectories=null",), r"stop\.trajectories=null.* set one of them"),
        (("schedule.cycle=[{learn_model: 1}]",), r"schedule\.cycle=.* never collects"),
        (("schedule.cycle=[{collect: -1}]",), r"schedule\.cycle: collect=-1 is no number of steps"),
        (("schedule=sync", "iteration.rollouts=0"), r"iteration\.rollouts=0 .* greater than 0"),
        (("schedule=sync", "+iteration.turns=3"), r"iteration\.turns=3 is read by nobody"),
        (
            ("+dynamics.learning_rate=0.5",),
            r"=0\.5 is read by nobody: did you mean dynamics\.training\.learning_rate\?",
        ),
        (
            ("schedule=sync", "+algorithm.rollouts=7"),
            r"rollouts=7 is read by nobody: did you mean algorithm\.improvement\.rollouts\?",
        ),
        (("+dynamics.bufer=3",), r"dynamics\.bufer=3 is read by nobody: did you mean buffer\?"),
        (("backend=simulated", "simulated.costs=fast"), r"simulated\.costs=fast cannot be used"),
        (
            ("backend=simulated", "simulated.costs.learn_model=0"),
            r"simulated\.costs=.* only collect may have as 0",
        ),
        (("torch_threads.collect=0",), r"torch_threads\.collect=0 .* greater than 0"),
        (("env.horizon=2.5",), r"env\.horizon=2\.5 .* valid integer"),
        (("env._target_=no.such.Task",), r"env\._target_=no\.such\.Task cannot be imported"),
        (("env=gymnasium", "env.id=Pendulm-v1"), r"env\.id=Pendulm-v1 is no task .* did you mean Pendulum-v1"),
        (("env=gymnasium", "env.id=CartPole-v1"), r"env\.id=CartPole-v1 takes Discrete"),
        (("env=gymnasium", "env.reward=known"), r"env\.reward=known is none of learned"),
        (("env=gymnasium", "env.reward._target_=no.such.reward"), r"env\.reward\._target_=no\.such\.reward cannot be"),
        (("env=gymnasium", "env.control_period=0"), r"env\.control_period=0 .* greater than 0"),
        (("algorithm.starts=buffer",), r"starts=buffer .* 'reset' or 'stored'"),
        (("dynamics=probabilistic", "dynamics.ensemble.output.bound_penalty=-1"), r"bound_penalty=-1 .* or equal to 0"),
        (
            ("dynamics=probabilistic", "dynamics.ensemble.output.minimum_log_variance=1.0"),
            r"minimum_log_variance=1\.0 is not below maximum_log_variance=0\.5",
        ),
        (("device=tpu",), r"device=tpu .* 'cpu' or 'cuda'"),
        (("seed=-1",), r"seed=-1 .* greater than or equal to 0"),
        (("seed=true",), r"seed=True .* valid integer"),
        (("tracking.experiment=3",), r"tracking\.experiment=3 .* valid string"),
        (("env.horizon=${no.such.key}",), r"cannot be resolved.*no\.such\.key"),
        (("~dynamics.ensemble.members",), r"ensemble, which needs members, which needs ensemble: give one .* a value"),
        (("~policy.hidden",), r"policy\.hidden has no value, and nobody supplies it"),
        (("algorithm=trpo",), r"newest policy alone, .* use schedule=sync"),
        (("algorithm=ppo", "+algorithm.workers.learn_model._target_=no.Such"), r"no\.Such cannot be imported"),
        (
            ("algorithm=mb_mpc", "algorithm.planner.particles=1"),
            r"collect cannot be made: candidates x particles=1024 .* 5 ensemble members",
        ),
        (
            ("algorithm=mb_mpc", "algorithm/planner=cem", "algorithm.planner.search.elite_share=0.001"),
            r"elite_share=0\.001 of candidates=200 leaves 0 elites",
        ),
        (("algorithm=mb_mpc", "schedule.cycle=[{collect: 1}, {improve_policy: 1}]"), r"never lets learn_model work"),
        (("~algorithm.workers.collect",), r"algorithm\.workers=\['improve_policy', 'learn_model'\] .* name collect"),
        (("+algorithm.workers.dream=1",), r"algorithm\.workers=.*dream.* cannot be used: name collect"),
        (("~algorithm.workers.learn_model",), r"improve_policy asks for models, but .* no learn_model: add it"),
        (
            (
                *("algorithm=trpo", "schedule=sync"),
                "+algorithm.workers.learn_model._target_=mbrl_async.workers.model_learner.ModelLearner",
            ),
            r"improve_policy asks for trajectories, but they go to learn_model, each once: let one of the two learn",
        ),
        (("~algorithm.workers.improve_policy",), r"collect asks for policies, but .* no improve_policy: add it"),
        (("schedule.cycle=[{collect: 1}, {learn_model: 1}]",), r"never lets improve_policy work.*improve_policy: 10"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(overrides, sentence):
    with pytest.raises(ConfigError, match=re.compile(sentence, re.DOTALL)) as refusal:
        build_experiment(composed(*overrides))
    assert "Traceback" not in str(refusal.value)


@pytest.mark.parametrize("override", ["device=cuda", "devices.improve_policy=cuda"])
def test_cuda_is_refused_where_there_is_none(monkeypatch, override):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="device=cuda cannot be used: torch sees no GPU"):
        build_experiment(composed(override))


def test_a_target_outside_the_package_is_checked_like_ours(tmp_path: Path, monkeypatch):
    (tmp_path / "my_task.py").write_text(
        "from mbrl_async.envs.linear_quadratic import LinearQuadratic\n\n"
        "class MyTask(LinearQuadratic):\n"
        "    def __init__(self, *, horizon: int, control_period: float, wind: float) -> None:\n"
        "        super().__init__(horizon=horizon, control_period=control_period)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = (*small(*FIXED_COSTS), "env._target_=my_task.MyTask")
    build_experiment(composed(*mine, "+env.wind=1.5"))
    with pytest.raises(ConfigError, match=r"env\.wind=strong .* valid number"):
        build_experiment(composed(*mine, "+env.wind=strong"))
    with pytest.raises(ConfigError, match="wind"):
        build_experiment(composed(*mine))


@pytest.mark.parametrize(
    ("algorithm", "idle", "effective", "absent"),
    [
        (
            "trpo",
            ["dynamics.training.learning_rate=9.0", "iteration.epochs=7", "dynamics=probabilistic"],
            [
                "policy.hidden=[3]",
                "iteration.updates=7",
                "stop.trajectories=3",
                "algorithm.improvement.update.damping=1",
            ],
            "learn_model",
        ),
        ("mb_mpc", ["policy.hidden=[3]", "++iteration.updates=33"], ["dynamics.ensemble.members=3"], "improve_policy"),
        (
            "me_trpo",
            [],
            ["policy.hidden=[3]", "iteration.epochs=7", "dynamics.ensemble.members=3", "iteration.rollouts=2"],
            "",
        ),
    ],
)
def test_what_no_worker_of_the_algorithm_reads_is_told(algorithm, idle, effective, absent):
    overrides = [f"algorithm={algorithm}", "schedule=sync", *idle, *effective]
    told = without_effect(composed(*overrides), overrides)
    assert told == [f"{each} has no effect: this algorithm has no {absent}." for each in idle]


def test_a_schedule_that_stays_where_nobody_collects_is_refused_unless_time_ends_it():
    cycle = "schedule.cycle=[{collect: 10}, {learn_model: 200}, {improve_policy: inf}]"
    with pytest.raises(ConfigError, match=r"phase of improve_policy: \.inf in which nobody collects"):
        build_experiment(composed("schedule=async", cycle))
    build_experiment(composed("schedule=async", cycle, "stop.seconds=10"))
