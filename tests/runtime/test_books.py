"""Shares and staleness by hand-computed cases."""

from __future__ import annotations

from mbrl_async.runtime.shares import Shares
from mbrl_async.runtime.staleness import Staleness


def test_shares_add_up_each_activity():
    shares = Shares(["a", "b"])
    shares.advance(2.0)  # both blocked for 2 s
    shares.set("a", "busy")
    shares.advance(5.0)  # a busy for 3 s
    shares.set("a", "idle")
    shares.set("b", "busy")
    shares.advance(10.0)  # a idle, b busy for 5 s
    assert shares.metrics() == {
        "share/blocked_a": 0.2,
        "share/busy_a": 0.3,
        "share/idle_a": 0.5,
        "share/blocked_b": 0.5,
        "share/busy_b": 0.5,
        "share/idle_b": 0.0,
    }


def test_shares_before_any_time_has_passed_are_zero():
    assert set(Shares(["a"]).metrics().values()) == {0.0}


def test_staleness_counts_newer_versions_and_the_age_of_the_used_one():
    staleness = Staleness()
    for time in (1.0, 3.0, 4.0):
        staleness.publish("policy", time)
    assert staleness.metrics({"policy": 1}, 5.0) == {
        "staleness/policy_versions": 2.0,
        "staleness/policy_seconds": 4.0,
    }
    assert staleness.metrics({"policy": 3}, 5.0) == {
        "staleness/policy_versions": 0.0,
        "staleness/policy_seconds": 1.0,
    }


def test_what_nobody_published_is_not_stale():
    assert Staleness().metrics({"policy": 0}, 5.0) == {}
