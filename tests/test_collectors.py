"""Which settings are each collector's own, and what is refused about them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from omegaconf import OmegaConf, open_dict

from mbrl_async.collectors import require_one_each, settings_of
from mbrl_async.config import ConfigError, validate
from mbrl_async.experiment import build_experiment
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.schedule import role_of
from mbrl_async.runtime.stop import Ending, StopSignal
from mbrl_async.runtime.trace import StepRecord
from tests.runtime.fakes import Recorder
from tests.small import FEW_STEPS, FIXED_COSTS, composed, small

NETWORK = ("env=arm_reach", "env/robot=network")
ADDRESS = "env.robot.address"
TWO = ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")
LIST = f"{ADDRESS}=[{','.join(TWO)}]"


def resolved(*overrides: str) -> Any:
    return OmegaConf.to_container(composed(*overrides), resolve=True)


def test_each_collector_has_its_own_address_and_they_share_what_is_no_list():
    configuration = resolved(*NETWORK, LIST, "env.robot.server_key=[a,b]", "collectors=2")
    require_one_each(configuration, 2)
    first, second = (settings_of(configuration, number) for number in range(2))
    assert [each["env"]["robot"]["address"] for each in (first, second)] == list(TWO)
    assert [each["env"]["robot"]["server_key"] for each in (first, second)] == ["a", "b"]
    assert first["env"]["robot"]["client_key"] == second["env"]["robot"]["client_key"]
    assert first["env"]["goals"] == configuration["env"]["goals"], "other lists are nobody's own"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("collectors=2",),
            rf"{ADDRESS}=tcp://127\.0\.0\.1:5555 cannot be used with collectors=2.*list of 2 different",
        ),
        (("collectors=3", LIST), rf"{ADDRESS}=\[.*\] has 2 values for collectors=3: give as many"),
        ((LIST,), rf"{ADDRESS}=\[.*\] has 2 values for collectors=1: give as many"),
        ((f"{ADDRESS}=[]",), rf"{ADDRESS}=\[\] has 0 values for collectors=1"),
        (("collectors=2", f"{ADDRESS}=[tcp://a,tcp://a]"), rf"{ADDRESS}=\[.*\] cannot be used .* needs its own"),
        (("collectors=2", f"{ADDRESS}=[tcp://a,7]"), rf"{ADDRESS}\.1=7 cannot be used: it should be a valid string"),
        (("collectors=2", LIST, "env.robot.client_key=[a,b,c]"), r"client_key=\[a,b,c\] has 3 values for collectors=2"),
        (("collectors=2", LIST, "env.robot.scene=[reach,match]"), r"env\.robot\.scene=.* should be a valid string"),
    ],
)
def test_settings_that_do_not_fit_the_collectors_are_refused(overrides, sentence):
    with pytest.raises(ConfigError, match=re.compile(sentence, re.DOTALL)):
        build_experiment(composed(*NETWORK, *overrides))


@pytest.mark.parametrize(("collectors", "names"), [(1, ["collect"]), (3, ["collect_0", "collect_1", "collect_2"])])
def test_there_is_a_maker_for_each_collector(collectors, names):
    makers = build_experiment(composed(*small(f"collectors={collectors}"))).makers
    assert list(makers) == [*names, "learn_model", "improve_policy"]


def test_collectors_start_with_one_policy_and_draw_from_generators_of_their_own():
    makers = build_experiment(composed(*small("collectors=2"))).makers
    clock = VirtualClock(StopSignal())
    first, second = (makers[name](clock).state_dict() for name in ("collect_0", "collect_1"))
    assert first["environment_generator"] != second["environment_generator"]
    assert not first["actor"]["generator"].equal(second["actor"]["generator"])
    for name, parameter in first["actor"]["policy"].items():
        assert parameter.equal(second["actor"]["policy"][name])


def test_a_configuration_from_before_there_could_be_several_means_one():
    cfg = composed(*small())
    with open_dict(cfg):
        del cfg["collectors"]
    assert validate(cfg).collectors == 1
    assert "collect" in build_experiment(cfg).makers


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two", "true", "null"])
def test_what_is_no_number_of_collectors_is_refused(value):
    with pytest.raises(ConfigError, match=rf"collectors=(?i:{value if value != 'null' else 'none'}) cannot be used"):
        validate(composed(f"collectors={value}"))


@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        (("schedule=sync", "iteration.rollouts=3", "collectors=4"), 3),
        (("schedule=interleaved_data_policy", "collectors=2"), 1),
    ],
)
def test_a_collector_that_would_never_work_is_refused(overrides, most):
    sentence = rf"{overrides[-1]} are too many .* more than {most}, .* would never work\. Use collectors={most}, or"
    with pytest.raises(ConfigError, match=sentence):
        build_experiment(composed(*overrides))


@pytest.mark.parametrize("algorithm", ["me_trpo", "me_ppo", "mb_mpo", "mb_mpc", "trpo", "ppo"])
def test_every_algorithm_can_have_several(algorithm):
    makers = build_experiment(composed(*small("schedule=sync", f"algorithm={algorithm}", "collectors=2"))).makers
    assert {"collect_0", "collect_1"} < set(makers)


def left_by(*overrides: str) -> tuple[list[StepRecord], list[str | None]]:
    """The trace of a small run of two collectors, and digests of what its channels held at the end."""
    experiment = build_experiment(composed(*small("collectors=2", *overrides)))
    run = experiment.backend.run
    summary = run(experiment.makers, experiment.schedule, experiment.rule, StopSignal(), Recorder(), Forgetful())
    assert summary.ending is Ending.FINISHED
    channels = experiment.channels
    newest = [each.get() for each in (channels.models, channels.policies)]
    published = [digest({} if each is None else each.parameters) for each in newest]
    return summary.records, [*published, *(digest(each.tensors) for each in channels.trajectories.history)]


@pytest.mark.parametrize(
    "overrides",
    [(), ("schedule=sync", *FEW_STEPS), ("algorithm=mb_mpc",), ("algorithm=mb_mpo",)],
    ids=["async", "sync", "mb_mpc", "mb_mpo"],
)
def test_simulated_runs_with_fixed_costs_repeat_to_the_last_bit(overrides):
    records, published = left_by(*FIXED_COSTS, *overrides)
    assert (records, published) == left_by(*FIXED_COSTS, *overrides)
    collected = [record for record in records if role_of(record.worker) == "collect"]
    assert len({record.digest for record in collected}) == len(collected) == 5, "no two trajectories are the same"


@pytest.mark.parametrize("algorithm", ["trpo", "ppo"])
@pytest.mark.parametrize("backend", [FIXED_COSTS, ("backend=threads", "pace.factor=0")], ids=["simulated", "threads"])
def test_on_policy_updates_get_exactly_the_trajectories_of_an_iteration_from_all_collectors(algorithm, backend):
    settings = ("schedule=sync", "iteration.rollouts=3", "stop.trajectories=9")
    records, _ = left_by(*backend, f"algorithm={algorithm}", *settings)
    updates = [record.pulled["trajectories"] for record in records if record.worker == "improve_policy"]
    assert updates == [3, 6]
    collected = sorted((each.worker, each.pulled["policy"]) for each in records if role_of(each.worker) == "collect")
    iteration = ("collect_0", "collect_0", "collect_1")
    assert collected == sorted((worker, policy) for policy in range(3) for worker in iteration)
