"""What a series is measured by."""

from __future__ import annotations

from collections.abc import Sequence

from mbrl_async.analysis.series import NO_VARIANT, Series, differing_parameters

OF_THE_SCHEDULE = ("schedule.", "iteration.")
"""Beginnings of the names of parameters in which a series has to differ from its baseline."""


def baseline_of(series: Series, others: Sequence[Series], schedules: Sequence[str]) -> Series | None:
    """The series of the same task, algorithm and backend under the first of the schedules that there is.

    An ablation is measured by its own counterpart, `interleaved_data_policy` by `in_order_data_policy`, if that is one.

    Of several, the one that agrees with this series in all in which they differ from each other; None if there is no
    such one: to choose the best of them would be unfair.
    """
    candidates = _candidates(series, others, schedules)
    if len(candidates) > 1:
        candidates = _with_the_same_settings(series, candidates)
    return candidates[0] if len(candidates) == 1 else None


def settings_besides_the_schedule(series: Series, baseline: Series) -> dict[str, tuple[str, str]]:
    """Those in which the series differs from its baseline -> its own value and the baseline's."""
    both = sorted(series.parameters.keys() & baseline.parameters.keys())
    values = {name: (series.parameters[name], baseline.parameters[name]) for name in both}
    return {
        name: (own, base)
        for name, (own, base) in values.items()
        if own != base and not name.startswith((*NO_VARIANT, *OF_THE_SCHEDULE))
    }


def without_baseline(series: Sequence[Series], schedules: Sequence[str]) -> list[str]:
    """A sentence for each series that is not of these schedules and has no baseline; one for all if there is none."""
    measured = [each for each in series if each.schedule not in schedules]
    if measured and len(measured) == len(series):
        return [f"No run has the schedule {' or '.join(schedules)}: there is no speed-up."]
    lacking = [each for each in measured if baseline_of(each, series, schedules) is None]
    return [f"{each.task}: {each.label} has no baseline: {_reason(each, series, schedules)}." for each in lacking]


def _reason(series: Series, others: Sequence[Series], schedules: Sequence[str]) -> str:
    candidates = _candidates(series, others, schedules)
    if candidates:
        return f"none of {len(candidates)} {candidates[0].schedule} series has its settings"
    return f"no run of its task, algorithm and backend has the schedule {' or '.join(schedules)}"


def _candidates(series: Series, others: Sequence[Series], schedules: Sequence[str]) -> list[Series]:
    if series.schedule in schedules:
        return []
    alike = [each for each in others if _alike(series, each)]
    counterpart = series.schedule.replace("interleaved_", "in_order_")
    for schedule in sorted(schedules, key=lambda name: name != counterpart):
        if candidates := [each for each in alike if each.schedule == schedule]:
            return candidates
    return []


def _alike(one: Series, other: Series) -> bool:
    """Many tasks are called `gymnasium`, so their parameters count, too; one that an older run lacks does not."""
    names = [name for name in one.parameters.keys() & other.parameters.keys() if name.startswith("env.")]
    same = all(one.parameters[name] == other.parameters[name] for name in names)
    return same and (one.task, one.algorithm, one.backend) == (other.task, other.algorithm, other.backend)


def _with_the_same_settings(series: Series, candidates: Sequence[Series]) -> list[Series]:
    names = differing_parameters([each.runs[0] for each in candidates])
    return [
        each for each in candidates if all(each.parameters.get(name) == series.parameters.get(name) for name in names)
    ]
