import pytest

from mbrl_async.trust import foreign_targets


@pytest.mark.parametrize(
    ("target", "foreign"),
    [
        ("mbrl_async.envs.linear_quadratic.LinearQuadratic", False),
        ("mbrl_async.envs.known_rules.pendulum_reward", False),
        ("mbrl_async.no_such_module.Thing", False),  # executes nothing
        ("mbrl_async.tracking.environment.subprocess.run", True),
        ("mbrl_asynchronous.Task", True),
        ("os.system", True),
    ],
)
def test_code_counts_as_ours_by_where_it_lies(target, foreign):
    assert list(foreign_targets({"env": {"_target_": target}})) == ([("env._target_", target)] if foreign else [])


def test_targets_are_found_at_every_depth():
    config = {"a": {"_target_": "x.Y", "b": [{"c": {"_target_": "os.system"}}, 3]}, "d": None}
    assert list(foreign_targets(config)) == [("a._target_", "x.Y"), ("a.b.0.c._target_", "os.system")]
