"""The report of a comparison of which everything is known."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mbrl_async.analysis.comparison import Comparison, compare
from mbrl_async.analysis.csv_files import write_numbers
from mbrl_async.analysis.report import make_tables, write_report
from mbrl_async.analysis.series import ComparedRun
from mbrl_async.analysis.statistics import Resampling
from tests.analysis.synthetic import run
from tests.browser import chromium, console_errors, needs_chromium


def comparison(seeds: int = 3) -> Comparison:
    """async learns twice as fast as sync; MB-MPO, as it comes, has no baseline."""
    runs = [
        *(run(seed, lambda n, s=seed: 2 * n + s, tags={"schedule": "async"}) for seed in range(seeds)),
        *(run(seed, lambda n, s=seed: n + s, tags={"schedule": "sync"}) for seed in range(seeds)),
        *(run(seed, np.sqrt, tags={"algorithm": "mb_mpo", "schedule": "<b>async</b>"}) for seed in range(seeds)),
    ]
    resampling = Resampling(0.95, 200, np.random.default_rng(0))
    return compare("a & b", runs, baselines=["sync"], fractions=[0.5, 1.0], outcomes={}, resampling=resampling)


def two_tasks(*, variants: int = 1) -> Comparison:
    """In hopper, async needs half of sync's time for a trajectory, and in ant an eighth; all learn the same from each.

    One of sync's runs in hopper is shorter. With several variants, as many configurations of async were run in ant.
    """
    runs = [
        *(level("hopper", "async", seed, seconds=5.0) for seed in range(2)),
        level("hopper", "sync", 0),
        level("hopper", "sync", 1, trajectories=40),
        *(level("ant", "async", seed, seconds=1.25, hidden=each) for seed in range(2) for each in range(variants)),
        *(level("ant", "sync", seed) for seed in range(2)),
    ]
    resampling = Resampling(0.95, 100, np.random.default_rng(0))
    return compare("x", runs, baselines=["sync"], fractions=[0.75], outcomes={}, resampling=resampling)


def level(
    task: str, schedule: str, seed: int, *, seconds: float = 10.0, trajectories: int = 50, hidden: int = 0
) -> ComparedRun:
    """A run that learns until its trajectory 20: a shorter one ends as the others do."""
    tags, parameters = {"env": task, "schedule": schedule}, {"hidden": str(hidden)}
    shape = {"seconds": seconds, "trajectories": trajectories}
    return run(seed, lambda n: np.minimum(n, 20), **shape, tags=tags, parameters=parameters)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(comparison(), folder)
    return folder


def rows(directory: Path, name: str = "comparison.csv") -> list[dict[str, str]]:
    with (directory / name).open() as file:
        return list(csv.DictReader(file))


def test_all_files_are_there(directory: Path):
    assert {path.name for path in directory.iterdir()} == {
        "comparison.html",
        "comparison.md",
        "comparison.csv",
        "trajectories.csv",
        "runs.json",
        "hopper_env_steps.svg",
        "hopper_seconds.svg",
    }


def test_the_same_runs_make_the_same_files(directory: Path, tmp_path: Path):
    for path in write_report(comparison(), tmp_path):
        assert path.read_bytes() == (directory / path.name).read_bytes(), path.name


def test_the_csv_has_every_number(directory: Path):
    final = [row for row in rows(directory) if row["quantity"] == "final return" and row["statistic"] == "mean"]
    by_series = {row["series"]: row for row in final}
    assert set(by_series) == {"me_trpo async", "me_trpo sync", "mb_mpo <b>async</b>"}
    asynchronous = by_series["me_trpo async"]
    assert float(asynchronous["value"]) == 92  # 2 x 45.5, and 1 as the mean of the seeds
    assert 91 <= float(asynchronous["low"]) < 92 < float(asynchronous["high"]) <= 93, "the seeds have 91, 92, 93"
    assert asynchronous["seeds"] == "0 1 2"
    curve = [row for row in rows(directory) if row["quantity"] == "return" and row["unit"] == "environment steps"]
    assert len({row["x"] for row in curve if row["series"] == "me_trpo sync"}) == 201
    assert {row["statistic"] for row in curve} == {"mean", "interquartile mean"}


def test_a_csv_has_every_trajectory_as_it_was(directory: Path):
    every = rows(directory, "trajectories.csv")
    assert len(every) == 3 * 3 * 50
    third = {"task": "hopper", "series": "me_trpo async", "seed": "2", "run": "run-2-0", "trajectory": "3"}
    (row,) = [each for each in every if third.items() <= each.items()]
    assert row == third | {"env_steps": "600", "seconds": "30.0", "quantity": "return", "value": "8.0"}  # 2 x 3 + 2


def test_the_speed_up_is_told_for_what_has_a_baseline_alone(directory: Path):
    ratios = [row for row in rows(directory) if row["quantity"] == "speed-up (environment steps)"]
    assert [(row["series"], row["x"]) for row in ratios] == [("me_trpo async", "0.5"), ("me_trpo async", "1.0")]
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in ratios)


def test_the_markdown_is_the_tables(directory: Path):
    text = (directory / "comparison.md").read_text()
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == ["Final return", "Time and samples to a threshold", "What explains it"]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)
    assert "Intervals over 3 seeds are narrower" in text


def test_several_tasks_have_a_speed_up_over_all_of_them(tmp_path: Path):
    """The geometric mean of 2 and 8 in time; in samples async is no better."""
    result = two_tasks()
    (table,) = [table for table in make_tables(result) if table.title == "Speed-up over all tasks"]
    assert table.rows == [
        ("me_trpo async", "ant, hopper", "environment steps", "75%", "1.00 [1.00, 1.00]"),
        ("me_trpo async", "ant, hopper", "run time (s)", "75%", "4.00 [4.00, 4.00]"),
    ]
    write_numbers(result, tmp_path / "comparison.csv")
    *_, steps, seconds = rows(tmp_path)
    same = {"task": "ant hopper", "series": "me_trpo async", "x": "0.75", "unit": "", "statistic": "geometric mean"}
    for row, unit, ratio in ((steps, "environment steps", 1.0), (seconds, "run time (s)", 4.0)):
        assert row.items() >= (same | {"quantity": f"speed-up ({unit})", "seeds": ""}).items()
        assert [float(row[name]) for name in ("value", "low", "high")] == pytest.approx([ratio] * 3)


def test_several_variants_of_one_task_are_not_several_tasks():
    result = two_tasks(variants=2)
    assert result.overall == []
    assert [flag for flag in result.flags if "over all tasks" in flag] == [
        "me_trpo, async has several settings on ant: there is no speed-up over all tasks."
    ]
    assert not [flag for flag in two_tasks().flags if "over all tasks" in flag]


def test_a_task_in_a_folder_has_its_pictures(tmp_path: Path):
    runs = [run(seed, np.sqrt, tags={"env": "mine/arm"}) for seed in range(2)]
    resampling = Resampling(0.95, 10, np.random.default_rng(0))
    paths = write_report(
        compare("x", runs, baselines=["sync"], fractions=[1.0], outcomes={}, resampling=resampling), tmp_path
    )
    assert [path.name for path in paths if path.suffix == ".svg"] == ["mine_arm_env_steps.svg", "mine_arm_seconds.svg"]


@pytest.mark.parametrize(
    ("parameters", "axes"),
    [
        ({}, ["env_steps", "seconds"]),
        ({"env.horizon": "200", "pace.factor": "1"}, ["env_steps", "seconds"]),
        ({"pace.factor": "0.5"}, ["env_steps"]),
        ({"env.horizon": "10"}, []),
    ],
)
def test_the_authors_curve_is_shown_where_trajectories_take_as_long(parameters, axes):
    resampling = Resampling(0.95, 10, np.random.default_rng(0))
    runs = [run(0, np.sqrt, parameters=parameters)]
    result = compare("x", runs, baselines=["sync"], fractions=[1.0], outcomes={}, resampling=resampling)
    assert [curve.axis for curve in result.curves if curve.paper is not None] == axes


def test_steps_and_time_of_a_series_are_those_of_its_shortest_run():
    final, *_ = make_tables(two_tasks())
    assert {(task, series): (steps, seconds) for task, series, *_, steps, seconds in final.rows} == {
        ("ant", "me_trpo async"): ("10000", "62"),
        ("ant", "me_trpo sync"): ("10000", "500"),
        ("hopper", "me_trpo async"): ("10000", "250"),
        ("hopper", "me_trpo sync"): ("8000", "400"),
    }


class _Page(HTMLParser):
    """Collects what a browser would fetch, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        assert tag != "script"

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_from_outside_and_names_are_no_markup(directory: Path):
    page = _Page((directory / "comparison.html").read_text())
    assert len(page.sources) == 3
    assert all(source.startswith("data:") for source in page.sources)
    assert "mb_mpo <b>async</b>" in page.text
    assert "a & b" in page.text
    assert "95\N{NO-BREAK SPACE}%" in page.text


def test_one_seed_says_that_there_is_no_interval(tmp_path: Path):
    write_report(comparison(seeds=1), tmp_path)
    assert all(row["low"] == row["high"] == "" for row in rows(tmp_path))
    assert "an interval is not possible" in (tmp_path / "comparison.html").read_text()
    assert "[one seed]" in (tmp_path / "comparison.md").read_text()


def test_a_baseline_that_learned_nothing_gives_no_speed_up():
    runs = [run(0, lambda n: n), run(0, lambda n: -n, tags={"schedule": "sync"})]
    resampling = Resampling(0.95, 200, np.random.default_rng(0))
    result = compare("x", runs, baselines=["sync"], fractions=[1.0], outcomes={}, resampling=resampling)
    assert result.speedups == []
    sentence = "hopper: me_trpo sync earned no more at its end than random actions did: no speed-up is defined."
    assert sentence in result.flags


def test_a_baseline_some_of_whose_seeds_learned_nothing_is_told_for_every_task():
    runs = []
    for task, slope in (("ant", 0), ("hopper", 1)):  # in hopper, which comes last, every seed learns
        for seed, sign in enumerate((10, 10, -9)):
            gain = sign if task == "ant" else slope
            runs.append(run(seed, lambda n, gain=gain: gain * n, tags={"schedule": "sync", "env": task}))
        runs.append(run(0, lambda n: n, tags={"env": task}))
    resampling = Resampling(0.95, 200, np.random.default_rng(0))
    result = compare("x", runs, baselines=["sync"], fractions=[1.0], outcomes={}, resampling=resampling)
    told = [flag for flag in result.flags if "learned nothing in" in flag]
    assert len(told) == 1
    assert re.fullmatch(r"ant: me_trpo sync learned nothing in \d\d\.\d% of the resamples, .*", told[0])


def test_whether_a_baseline_learned_is_asked_as_thresholds_are_made():
    """A run of three trajectories has windows of one: at its end it is below its beginning, in its mean above."""
    returns = np.array([0.0, 9.0, -1.0])
    runs = [run(0, returns, trajectories=3), run(0, returns, trajectories=3, tags={"schedule": "sync"})]
    resampling = Resampling(0.95, 200, np.random.default_rng(0))
    result = compare("x", runs, baselines=["sync"], fractions=[1.0], outcomes={}, resampling=resampling)
    assert result.speedups == []
    assert any("no speed-up is defined" in flag for flag in result.flags)


COLOURED_PIXELS = """
return Array.from(document.images, (image) => {
    if (image.naturalWidth === 0) return 0;  // it could not be read
    const context = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
    context.drawImage(image, 0, 0);
    const {data} = context.getImageData(0, 0, image.naturalWidth, image.naturalHeight);
    let coloured = 0;
    for (let i = 0; i < data.length; i += 4) {
        const [red, green, blue] = data.slice(i, i + 3);
        coloured += Math.max(red, green, blue) - Math.min(red, green, blue) > 100;
    }
    return coloured;
});
"""
"""Of each picture on the page: how many of its pixels belong to a curve, since axes and text are black or grey."""


@needs_chromium
def test_a_browser_draws_every_figure_without_an_error(directory: Path, tmp_path: Path):
    with chromium(tmp_path / "profile") as browser:
        browser.get((directory / "comparison.html").as_uri())
        titles = [heading.text for heading in browser.find_elements("tag name", "h2")]
        captions = [caption.text for caption in browser.find_elements("tag name", "figcaption")]
        pixels = browser.execute_script(COLOURED_PIXELS)
        errors = console_errors(browser)
    assert errors == []
    assert titles == ["Final return", "Time and samples to a threshold", "What explains it"]
    assert captions == ["hopper: return against environment steps", "hopper: return against run time (min)"]
    assert len(pixels) == len(captions)
    assert min(pixels) > 500, "three curves across a picture are thousands of pixels"
