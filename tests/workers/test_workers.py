"""Each worker alone: what it takes, what it leaves, and what it does with bad values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mbrl_async.algorithms.planning import CrossEntropyMethod, Planner, PlanSearch, RandomShooting
from mbrl_async.dynamics.buffer import TransitionBuffer
from mbrl_async.dynamics.early_stopping import EarlyStopping
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.dynamics.outputs import Point
from mbrl_async.dynamics.training import EnsembleTrainer
from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.policies.adapted import with_adapted
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.stop import Ending, StopSignal
from mbrl_async.types import (
    FloatArray,
    Interrupted,
    Metrics,
    NonFiniteError,
    SystemLostError,
    TaskSpec,
    TaskStep,
    Trajectory,
    transitions_of,
)
from mbrl_async.workers.acting import AdaptedPolicyActor, FirstActions, PlanningActor, PolicyActor
from mbrl_async.workers.collector import Collector
from mbrl_async.workers.model_learner import ModelLearner
from mbrl_async.workers.on_policy_learner import OnPolicyLearner, rollouts_of
from mbrl_async.workers.policy_learner import PolicyLearner

HORIZON = 10
PERIOD = 0.25


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_policy(seed: int = 0) -> GaussianMLP:
    return GaussianMLP(
        observation_size=4,
        action_size=2,
        hidden=[8],
        initial_log_std=-1.0,
        minimum_log_std=-10.0,
        generator=generator(seed),
        device="cpu",
    )


def make_ensemble(seed: int = 0) -> Ensemble:
    return Ensemble(
        observation_size=4,
        action_size=2,
        signals=0,
        members=2,
        hidden=[8],
        minimum_std=1e-3,
        observation_limit=100.0,
        observation_deviations=None,
        output=Point(),
        precision="float32",
        generator=generator(seed),
        device="cpu",
    )


def make_buffer(validation_fraction: float = 0.2) -> TransitionBuffer:
    return TransitionBuffer(
        members=2,
        capacity=100,
        validation_fraction=validation_fraction,
        observation_size=4,
        action_size=2,
        signals=0,
        generator=generator(),
        device="cpu",
    )


class Bench:
    """A collector and a model learner on the same channels."""

    def __init__(
        self,
        task: LinearQuadratic | None = None,
        pace: float = 1.0,
        first_actions: FirstActions = "random",
        actor: type[PolicyActor] = PolicyActor,
    ) -> None:
        self.stop = StopSignal()
        self.clock = VirtualClock(self.stop)
        self.trajectories: Stream[Trajectory] = Stream()
        self.policies, self.models = Latest(), Latest()
        self.task = task or LinearQuadratic(horizon=HORIZON, control_period=PERIOD)
        self.collector = Collector(
            task=self.task,
            actor=actor(
                policy=make_policy(),
                policies=self.policies,
                first_actions=first_actions,
                action_generator=generator(),
            ),
            trajectories=self.trajectories,
            pace=pace,
            clock=self.clock,
            environment_generator=np.random.default_rng(0),
        )
        ensemble = make_ensemble()
        self.learner = ModelLearner(
            ensemble=ensemble,
            trainer=EnsembleTrainer(ensemble=ensemble, learning_rate=1e-3, batch_size=8, generator=generator()),
            early_stopping=EarlyStopping(members=2, weight=0.4),
            buffer=make_buffer(),
            trajectories=self.trajectories,
            models=self.models,
            clock=self.clock,
            learned=(),
            device="cpu",
        )

    def collect(self) -> Trajectory:
        assert self.collector.pull()
        self.collector.step()
        self.collector.push()
        return self.trajectories.history[-1]


def test_the_collector_acts_uniformly_at_random_until_there_is_a_policy():
    bench = Bench()
    actions = np.concatenate([bench.collect().actions for _ in range(100)])  # (1000, 2)
    assert bench.collector.pulled == {"policy": 0}
    assert np.abs(actions).max() <= 1.0
    # 2000 draws of a uniform on [-1, 1]: the mean's standard error is 0.013, so 0.065 is wrong once in 2 million.
    assert abs(actions.mean()) < 0.065
    assert actions.std() == pytest.approx(3**-0.5, abs=0.03)


def test_the_initial_policy_acts_until_there_is_another_if_so_configured():
    trajectory = Bench(first_actions="policy").collect()
    noise = torch.randn(2, generator=generator())
    expected = make_policy()(torch.from_numpy(trajectory.observations[0])).sample(noise)
    assert torch.equal(torch.from_numpy(trajectory.actions[0]), expected.detach())
    assert trajectory.policy_version == 0


def test_the_collector_uses_the_newest_policy_and_says_which():
    bench = Bench()
    bench.policies.put(make_policy(1).state_dict())
    newest = make_policy(2)
    bench.policies.put(newest.state_dict())
    trajectory = bench.collect()
    assert trajectory.policy_version == 2
    noise = torch.randn(2, generator=generator())
    expected = newest(torch.from_numpy(trajectory.observations[0])).sample(noise)
    assert torch.allclose(torch.from_numpy(trajectory.actions[0]), expected.detach())


def test_with_adapted_policies_each_trajectory_has_one_of_them():
    bench = Bench(actor=AdaptedPolicyActor)
    bench.policies.put(published_by(-5.0, 5.0))
    # The spread of a mean of 20 actions is 0.08.
    means = [round(float(bench.collect().actions.mean())) for _ in range(40)]
    assert set(means) == {-5, 5}
    # Of two, alike probable, fewer than 8 of 40 are one of them once in 24 000 times; this generator's are fixed.
    assert min(means.count(-5), means.count(5)) >= 8
    assert bench.collector.pulled == {"policy": 1}
    bench.policies.put(published_by(-10.0, -20.0))
    trajectory = bench.collect()
    assert trajectory.policy_version == 2
    assert round(float(trajectory.actions.mean())) in (-10, -20)


def published_by(*means: float) -> dict[str, torch.Tensor]:
    """A policy that acts around 0, and adapted ones that act around these means."""
    states = []
    for mean in (0.0, *means):
        policy = make_policy()
        with torch.no_grad():
            policy.mean[-1].weight.zero_()
            policy.mean[-1].bias.fill_(mean)
        states.append(policy.state_dict())
    own, *adapted = states
    return with_adapted(own, {name: torch.stack([state[name] for state in adapted]) for name in own})


def test_a_trajectory_lasts_its_control_periods_times_the_pace():
    for pace in (1.0, 0.5, 0.0):
        bench = Bench(pace=pace)
        bench.collect()
        assert bench.clock.now() == pytest.approx(pace * HORIZON * PERIOD)


def test_the_collectors_metrics_describe_the_trajectory():
    bench = Bench()
    bench.collector.pull()
    report = bench.collector.step()
    bench.collector.push()
    (trajectory,) = bench.trajectories.history
    assert (report.trajectories, report.env_steps) == (1, HORIZON)
    assert report.metrics["return"] == trajectory.undiscounted_return
    assert report.metrics["length"] == HORIZON
    assert report.metrics["lateness_max_ms"] == report.metrics["deadline_misses"] == 0.0


@pytest.mark.parametrize("method", ["reset", "step"])
def test_an_observation_of_another_size_is_refused_where_broadcasting_would_let_it_pass(method, monkeypatch):
    bench = Bench()
    short = np.zeros(1, np.float32)
    result = short if method == "reset" else TaskStep(short, 0.0, False, False)
    monkeypatch.setattr(LinearQuadratic, method, lambda *_: result)
    bench.collector.pull()
    with pytest.raises(ValueError, match=r"an observation of shape \(1,\): its spec says \(4,\)"):
        bench.collector.step()
    assert bench.trajectories.history == []


def test_the_result_of_a_step_is_what_is_published():
    bench = Bench()
    trajectory = bench.collect()
    ended = {"terminated": torch.tensor(trajectory.terminated)}
    assert digest(bench.collector.result()) == digest({**trajectory.tensors, **ended})
    assert trajectory.tensors["rewards"].tolist() == trajectory.rewards.tolist()
    assert bench.learner.pull()
    bench.learner.step()
    result = digest(bench.learner.result())
    bench.learner.push()
    newest = bench.models.get()
    assert newest is not None
    assert result == digest(newest.parameters)


def test_an_interrupted_trajectory_is_dropped():
    bench = Bench()
    bench.collector.pull()
    bench.stop.request(Ending.KILLED)
    with pytest.raises(Interrupted):
        bench.collector.step()
    assert bench.trajectories.history == []


def test_a_return_that_is_not_finite_is_an_error_that_says_where():
    class Unbounded(LinearQuadratic):
        def step(self, action: FloatArray) -> TaskStep:
            return super().step(action)._replace(reward=float("nan"))

    bench = Bench(Unbounded(horizon=HORIZON, control_period=PERIOD))
    bench.collector.pull()
    with pytest.raises(NonFiniteError, match="return of a trajectory with policy 0 is not finite"):
        bench.collector.step()


def test_the_model_learner_waits_for_data_learns_until_it_stops_and_waits_again():
    bench = Bench()
    assert not bench.learner.pull()
    bench.collect()
    epochs = 0
    while bench.learner.pull():
        report = bench.learner.step()
        bench.learner.push()
        epochs += 1
        assert epochs < 10_000, "early stopping never fired"
    assert epochs >= 2, "early stopping cannot fire on the first epoch"
    assert report.metrics["epochs"] == epochs
    assert report.metrics["transitions"] == HORIZON
    newest = bench.models.get()
    assert newest is not None
    assert newest.version == epochs

    bench.collect()
    assert bench.learner.pull(), "new data makes all members learn again"
    assert bench.learner.pulled == {"trajectories": 2}


def test_an_interrupted_epoch_changes_nothing():
    bench = Bench()
    bench.collect()
    bench.learner.pull()
    before = {name: tensor.clone() for name, tensor in bench.learner._ensemble.state_dict().items()}
    bench.stop.request(Ending.KILLED)
    with pytest.raises(Interrupted):
        bench.learner.step()
    after = bench.learner._ensemble.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


class FakeImprovement:
    """Notes what it was given, and moves one parameter."""

    def require_compatible(self, members):
        if members != 2:
            raise ValueError(members)

    def improve(self, policy, model, task, starts, generator, check_interrupted):  # noqa: ARG002
        self.model, self.starts = model, starts(3)
        with torch.no_grad():
            policy.log_std.add_(0.5)
        return {"kl": 0.25}

    def published(self, policy):
        return policy.state_dict()


def make_policy_learner(
    improvement: FakeImprovement, models: Latest, policies: Latest, starts="reset"
) -> PolicyLearner:
    return PolicyLearner(
        policy=make_policy(),
        ensemble=make_ensemble(1),
        improvement=improvement,
        task=LinearQuadratic(horizon=HORIZON, control_period=PERIOD),
        starts=starts,
        models=models,
        policies=policies,
        clock=VirtualClock(StopSignal()),
        environment_generator=np.random.default_rng(0),
        generator=generator(),
    )


def test_the_policy_learner_needs_a_model_and_improves_in_the_newest():
    models, policies, improvement = Latest(), Latest(), FakeImprovement()
    learner = make_policy_learner(improvement, models, policies)
    assert not learner.pull()
    models.put(make_ensemble(2).state_dict())
    models.put(make_ensemble(3).state_dict())
    assert learner.pull()
    report = learner.step()
    learner.push()
    assert learner.pulled == {"model": 2}
    assert report.metrics == {"kl": 0.25, "updates": 1.0}
    rows = torch.ones(2, 1, 4), torch.ones(2, 1, 2), generator()
    assert torch.equal(improvement.model.predict(*rows), make_ensemble(3).predictor().predict(*rows))
    assert improvement.starts.shape == (3, 4)
    published = policies.get()
    assert published is not None
    assert torch.allclose(published.parameters["log_std"], torch.full((2,), -0.5))
    assert learner.pull(), "it always steps, also with a model that it used before"


class FakeGradientImprovement:
    """Notes what it was given."""

    def improve(self, policy, rollouts):  # noqa: ARG002
        self.rollouts = rollouts
        return {"kl": 0.25}

    def state_dict(self):
        return {}


def test_the_on_policy_learner_uses_every_trajectory_in_exactly_one_update():
    bench, improvement = Bench(first_actions="policy"), FakeGradientImprovement()
    learner = OnPolicyLearner(
        policy=make_policy(),
        improvement=improvement,  # type: ignore[arg-type]
        trajectories=bench.trajectories,
        policies=bench.policies,
        device="cpu",
    )
    assert not learner.pull()
    batches = [[bench.collect() for _ in range(count)] for count in (2, 3)]
    first, second = batches
    assert learner.pull(), "five have come, and none was used yet"
    report = learner.step()
    learner.push()
    assert report.metrics == {"kl": 0.25, "updates": 1.0}
    assert learner.pulled == {"trajectories": 5}
    for index, trajectory in enumerate(first + second):
        assert torch.equal(improvement.rollouts.observations[:, index], trajectory.tensors["observations"])
        assert torch.equal(improvement.rollouts.actions[:, index], trajectory.tensors["actions"])
        assert torch.equal(improvement.rollouts.rewards[:, index], trajectory.tensors["rewards"])
    assert not learner.pull(), "an update on the same data again would be off its policy"
    third = bench.collect()
    assert third.policy_version == 1
    assert learner.pull()
    assert learner.pull(), "what was pulled is not lost before a step used it"
    learner.step()
    assert improvement.rollouts.rewards.shape == (HORIZON, 1)


def test_the_on_policy_learner_lays_trajectories_of_different_lengths_side_by_side():
    trajectories = [Bench(EndsAfterThree(terminates=True)).collect(), Bench().collect()]
    trajectories.append(Bench(EndsAfterThree(terminates=False)).collect())
    rollouts = rollouts_of(trajectories, "cpu")
    assert rollouts.observations.shape == (HORIZON + 1, 3, 4)
    assert rollouts.ends.lengths.tolist() == [3, HORIZON, 3]
    assert rollouts.ends.terminated.tolist() == [True, False, False]
    for index, trajectory in enumerate(trajectories):
        length = trajectory.length
        assert torch.equal(rollouts.observations[: length + 1, index], trajectory.tensors["observations"])
        assert torch.equal(rollouts.actions[:length, index], trajectory.tensors["actions"])
        assert torch.equal(rollouts.rewards[:length, index], trajectory.tensors["rewards"])
        assert not rollouts.rewards[length:, index].any()


def test_imagined_rollouts_start_where_stored_trajectories_began_if_so_configured():
    bench, improvement = Bench(), FakeImprovement()
    began = [bench.collect().observations[0].tolist() for _ in range(2)]
    bench.learner.pull()
    bench.learner.push()
    learner = make_policy_learner(improvement, bench.models, Latest(), starts="stored")
    learner.pull()
    drawn = []
    for _ in range(20):
        learner.step()
        drawn += improvement.starts.tolist()
    assert {tuple(each) for each in drawn} == {tuple(each) for each in began}  # missed by 60 draws: once in 1e18


class EndsAfterThree(LinearQuadratic):
    """Terminates, or is cut off, after three steps."""

    def __init__(self, terminates: bool) -> None:
        super().__init__(horizon=HORIZON, control_period=PERIOD)
        self._terminates = terminates

    def judge(self, observation, action, next_observation):
        reward, *_ = super().judge(observation, action, next_observation)
        return reward, self._terminates and self._steps == 3, not self._terminates and self._steps == 3


@pytest.mark.parametrize("terminates", [True, False])
def test_a_trajectory_ends_where_the_task_does(terminates):
    bench = Bench(EndsAfterThree(terminates))
    bench.collector.pull()
    report = bench.collector.step()
    bench.collector.push()
    (trajectory,) = bench.trajectories.history
    assert (trajectory.length, trajectory.terminated) == (3, terminates)
    assert (trajectory.observations.shape, trajectory.actions.shape) == ((4, 4), (3, 2))
    assert (report.env_steps, report.metrics["length"]) == (3, 3.0)
    assert report.collection_seconds == bench.clock.now() == pytest.approx(3 * PERIOD)


def test_the_model_learner_waits_until_short_trajectories_fill_both_splits():
    bench = Bench(EndsAfterThree(terminates=True))
    bench.learner._buffer = make_buffer(validation_fraction=0.1)
    able = []
    for _ in range(3):
        bench.collect()
        able.append(bench.learner.pull())
    assert able == [False, True, True]  # of 3 transitions 0.3 are to be held out, of 6 0.6


def test_only_the_last_transition_of_a_trajectory_that_terminated_is_a_termination():
    trajectory = Bench(EndsAfterThree(terminates=True)).collect()
    outcomes = transitions_of(trajectory, learned=("reward", "termination")).outcomes
    assert torch.equal(outcomes[:, :4], torch.from_numpy(trajectory.observations[1:]))
    assert torch.equal(outcomes[:, 4], torch.from_numpy(trajectory.rewards))
    assert outcomes[:, 5].tolist() == [0.0, 0.0, 1.0]
    cut_off = Bench(EndsAfterThree(terminates=False)).collect()
    assert transitions_of(cut_off, learned=("termination",)).outcomes[:, 4].tolist() == [0.0, 0.0, 0.0]


def planning_collector(
    computing_cost: float = 0.0, task: LinearQuadratic | None = None, search: PlanSearch | None = None
) -> tuple[Collector, Latest, VirtualClock, Stream[Trajectory]]:
    models, trajectories, clock = Latest(), Stream[Trajectory](), VirtualClock(StopSignal(), computing_cost)
    task = task or LinearQuadratic(horizon=HORIZON, control_period=PERIOD)
    actor = PlanningActor(
        planner=Planner(search=search or RandomShooting(candidates=8), horizon=2, particles=1),
        ensemble=make_ensemble(),
        models=models,
        task=task,
        action_generator=generator(),
    )
    collector = Collector(
        task=task,
        actor=actor,
        trajectories=trajectories,
        pace=1.0,
        clock=clock,
        environment_generator=np.random.default_rng(0),
    )
    return collector, models, clock, trajectories


def test_the_planner_acts_at_random_until_there_is_a_model_and_then_with_the_newest():
    collector, models, _, trajectories = planning_collector()
    collector.pull()
    collector.step()
    collector.push()
    models.put(make_ensemble(1).state_dict())
    models.put(make_ensemble(2).state_dict())
    collector.pull()
    collector.step()
    collector.push()
    random, planned = trajectories.history
    assert (random.policy_version, planned.policy_version) == (0, 2)
    assert collector.pulled == {"model": 2}
    assert np.abs(planned.actions).max() <= 1


@pytest.mark.parametrize(
    ("seconds", "misses", "duration"),
    [
        (0.25 * PERIOD, 0, HORIZON * PERIOD),
        (1.5 * PERIOD, HORIZON, HORIZON * 1.5 * PERIOD),
    ],
)
def test_an_action_that_takes_longer_than_a_control_period_is_a_counted_miss(seconds, misses, duration):
    collector, _, clock, _ = planning_collector(seconds)
    collector.pull()
    report = collector.step()
    assert report.metrics["acting_misses"] == misses
    assert report.metrics["acting_max_ms"] == pytest.approx(1000 * seconds)
    assert clock.now() == pytest.approx(duration)


class RobotLike(LinearQuadratic):
    """Takes a second to reset, says how many observations it had, and is lost when told to."""

    def __init__(self, lost_at: tuple[int, ...] = (), *, real_time: bool = False) -> None:
        super().__init__(horizon=HORIZON, control_period=PERIOD)
        self._spec = TaskSpec(4, 2, HORIZON, PERIOD, reset_seconds=1.0, real_time=real_time)
        self._lost_at = list(lost_at)

    def heed(self, check) -> None:
        self._check = check

    def begin_episode(self, generator: np.random.Generator) -> FloatArray:
        self._check()
        return super().begin_episode(generator)

    def advance(self, action: FloatArray) -> FloatArray:
        if self._lost_at and self._steps == self._lost_at[0]:
            raise SystemLostError(f"gone at step {self._lost_at.pop(0)}")
        return super().advance(action)

    def outcome_metrics(self, observations: FloatArray) -> Metrics:
        return {"rows": float(len(observations))}


def test_a_reset_takes_the_runs_time_but_no_control_step():
    bench = Bench(RobotLike(), pace=0.5)
    bench.collector.pull()
    report = bench.collector.step()
    assert bench.clock.now() == 0.5 * (1.0 + HORIZON * PERIOD)
    assert report.collection_seconds == 0.5 * (1.0 + HORIZON * PERIOD)
    assert report.env_steps == HORIZON
    assert report.metrics["lateness_max_ms"] == 0.0


def test_a_task_may_say_more_of_a_trajectory_than_its_rewards():
    bench = Bench(RobotLike())
    bench.collector.pull()
    assert bench.collector.step().metrics["rows"] == HORIZON + 1


def test_a_trajectory_in_which_the_system_was_lost_leaves_no_trace(caplog):
    bench, undisturbed = Bench(RobotLike(lost_at=(4, 1))), Bench(RobotLike())
    for each in (bench, undisturbed):
        each.policies.put(make_policy(1).state_dict())
        each.collect()
        each.collect()
    for one, other in zip(bench.trajectories.history, undisturbed.trajectories.history, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
    assert caplog.messages == [
        f"The trajectory does not count, and is made anew: gone at step {step}" for step in (4, 1)
    ]


def test_a_plan_does_not_outlast_a_trajectory_that_was_lost():
    actions = []
    for lost_at in ((), (4,)):
        search = CrossEntropyMethod(candidates=8, iterations=1, elite_share=0.5, initial_std=0.5)
        collector, models, _, _ = planning_collector(task=RobotLike(lost_at), search=search)
        models.put(make_ensemble(1).state_dict())
        collector.pull()
        collector.step()
        actions.append(collector.result()["actions"])
    assert torch.equal(*actions)


def test_a_system_that_is_lost_again_and_again_ends_the_run():
    bench = Bench(RobotLike(lost_at=(4, 1, 2)))
    bench.collector.pull()
    with pytest.raises(SystemLostError, match="gone at step 2"):
        bench.collector.step()


def test_a_task_that_waits_hears_of_the_end():
    bench = Bench(RobotLike())
    bench.stop.request(Ending.KILLED)
    bench.collector.pull()
    with pytest.raises(Interrupted):
        bench.collector.step()


def test_a_robots_time_cannot_be_made_faster():
    with pytest.raises(ValueError, match=r"pace\.factor=0\.5 cannot be used with a robot"):
        Bench(RobotLike(real_time=True), pace=0.5)
