"""What explains a run, read from its metrics."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mbrl_async.analysis.measures import MEASURES, read_measures


class FakeClient:
    """Has the histories of one run's metrics, newest first."""

    def __init__(self, histories: dict[str, list[float]]) -> None:
        self._histories = histories

    def get_metric_history(self, _: str, name: str) -> list[SimpleNamespace]:
        values = list(enumerate(self._histories[name]))
        return [SimpleNamespace(step=step, timestamp=step, value=value) for step, value in reversed(values)]


def test_outcomes_are_those_of_the_last_trajectories():
    client = FakeClient({"collect/success": [0.0] * 15 + [1.0] * 5})
    last = {"run/trajectories": 20.0, "collect/success": 1.0}
    measures = read_measures(client, "run", last)  # type: ignore[arg-type]
    assert measures == {"success, last 10": 0.5}
    assert set(measures) <= set(MEASURES)


def test_what_a_run_does_not_have_is_not_told():
    client = FakeClient({"staleness/policy_versions": [1.0, 5.0, 2.0]})
    last = {"run/trajectories": 4.0, "staleness/policy_versions": 2.0, "improve_policy/updates": 6.0}
    assert read_measures(client, "run", last) == {  # type: ignore[arg-type]
        "updates / trajectory": pytest.approx(1.5),
        "staleness: policy (versions)": 2.0,
    }
