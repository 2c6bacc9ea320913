import pytest

from mbrl_async.config import ConfigError
from mbrl_async.trust import foreign_targets, require_trusted


@pytest.mark.parametrize(
    ("target", "foreign"),
    [
        ("mbrl_async.envs.linear_quadratic.LinearQuadratic", False),
        ("mbrl_async.envs.known_rules.pendulum_reward", False),
        ("mbrl_async.no_such_module.Thing", False),  # executes nothing
        ("mbrl_async.tracking.environment.subprocess.run", True),
        ("mbrl_asynchronous.Task", True),
        ("os.system", True),
        ("mbrl_async.${elsewhere}", True),  # what it names is known only when it is built
    ],
)
def test_code_counts_as_ours_by_where_it_lies(target, foreign):
    assert list(foreign_targets({"env": {"_target_": target}})) == ([("env._target_", target)] if foreign else [])


def test_targets_are_found_at_every_depth():
    config = {"a": {"_target_": "x.Y", "b": [{"c": {"_target_": "os.system"}}, 3]}, "d": None}
    assert list(foreign_targets(config)) == [("a._target_", "x.Y"), ("a.b.0.c._target_", "os.system")]


def test_a_module_that_gymnasium_is_to_import_is_code_of_others():
    task = {"_target_": "mbrl_async.envs.gymnasium_task.GymnasiumTask", "id": "their_module:Task-v0"}
    assert list(foreign_targets({"env": task})) == [("env.id", "their_module:Task-v0")]
    assert list(foreign_targets({"env": {**task, "id": "Pendulum-v1"}})) == []


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"env": {"_target_": "os.system"}}, "env._target_=os.system"),
        ({"env": "${oc.create:${text}}", "text": "{_target_: os.system}"}, "env=${oc.create:${text}}"),
        ({"env": [{"a": "x${ oc.decode : y}"}]}, "env.0.a=x${ oc.decode : y}"),
        ({"env": "${now:${oc.create:y}}"}, "env=${now:${oc.create:y}}"),
    ],
    ids=["class", "made of a text", "within a text", "within the time"],
)
def test_what_is_foreign_must_be_said_again(config, setting):
    with pytest.raises(ConfigError) as refusal:
        require_trusted(config, ["seed=1", f"{setting}s"])
    assert str(refusal.value) == (
        f"{setting} comes from the recorded run and would execute code that is not this program's: if you trust it, "
        f"repeat this setting as an override, ++{setting}."
    )
    for said in (setting, f"+{setting}", f"++{setting}"):
        require_trusted(config, [said])


def test_our_own_code_and_references_need_no_trust():
    stop = {"_target_": "mbrl_async.runtime.stop.StopRule", "seconds": "${seconds}"}
    require_trusted({"stop": stop, "sweep": {"name": "${now:%Y-%m-%d}/${now:%H:%M}"}, "seconds": 3}, [])
