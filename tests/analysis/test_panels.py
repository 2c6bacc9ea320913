"""What the pictures of a comparison show, of curves that are straight lines."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from mbrl_async.analysis.comparison import compare
from mbrl_async.analysis.panels import draw_curves
from mbrl_async.analysis.statistics import Resampling
from tests.analysis.synthetic import run


def drawn(axis: str) -> Axes:
    """Two seeds whose trajectory n of 50 earns n, or one more, in a setting that the authors show, too."""
    runs = [run(seed, lambda n, more=seed: n + more) for seed in range(2)]
    resampling = Resampling(0.95, 100, np.random.default_rng(0))
    result = compare("x", runs, baselines=["sync"], fractions=[1.0], outcomes={}, resampling=resampling)
    return draw_curves([each for each in result.curves if each.axis == axis], axis, flags=[]).axes[0]


@pytest.mark.parametrize(
    ("axis", "label", "begin", "end", "authors"),
    [
        ("seconds", "run time (min)", 100 / 60, 500 / 60, [(5, 511), (10, 629)]),
        ("env_steps", "environment steps", 2000, 10_000, [(50_000, 533), (100_000, 648)]),
    ],
    ids=["seconds", "env_steps"],
)
def test_a_curve_its_interval_and_that_of_the_authors_are_drawn_in_the_unit_of_the_axis(
    axis: str, label: str, begin: float, end: float, authors: list[tuple[float, float]]
):
    """Ours is the mean of ten trajectories and both seeds, so that it begins after the tenth."""
    axes = drawn(axis)
    assert (axes.get_xlabel(), axes.get_xlim()) == (label, (0, pytest.approx(end)))
    mean, interquartile, paper = axes.lines
    for line in (mean, interquartile):
        assert line.get_xydata()[[0, -1]] == pytest.approx(np.array([(begin, 6.0), (end, 46.0)]))
    assert paper.get_xydata()[:2].tolist() == [list(point) for point in authors]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--", ":"]
    assert (mean.get_label(), paper.get_label()) == (
        "me_trpo async (2 seeds)",
        "me_trpo async, the authors' (their settings)",
    )
    (shade,) = axes.collections
    corners = shade.get_paths()[0].vertices
    for x, low, high in ((begin, 5.5, 6.5), (end, 45.5, 46.5)):  # one seed alone, and the other
        assert sorted({float(y) for at, y in corners if at == pytest.approx(x)}) == pytest.approx([low, high])
