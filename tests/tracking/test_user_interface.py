"""MLflow's pages on a store with two runs, in a browser, as a user compares them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow import MlflowClient

from mbrl_async.job import Job, run_job
from mbrl_async.sweeps.record import close_sweep, open_sweep
from mbrl_async.tracking.store import LOCAL_PAGES, charts_page, open_store
from tests.browser import PAGE_SECONDS, chromium, needs_chromium
from tests.small import FEW_STEPS, FIXED_COSTS, composed, small
from tests.tracking.server import mlflow_server

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.slow, needs_chromium]

NAMES = {"async seed 0 linear_quadratic me_trpo", "sync seed 0 linear_quadratic me_trpo"}
GROUPS = ["collect", "improve_policy", "learn_model", "run", "share", "staleness"]

CURVES = """
return Array.from(document.querySelectorAll(".js-plotly-plot"), (plot) =>
    plot.data.map((line) => [line.name, Array.from(line.x), Array.from(line.y)]));
"""
"""Of each chart on the page, its lines: the name of the run, environment steps, and values."""


@pytest.fixture
def store(tmp_path: Path) -> MlflowClient:
    """With a sweep of a synchronous and an asynchronous run."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sweep = open_sweep("first", uri, "mbrl-async")
    for number, (schedule, few) in enumerate({"sync": FEW_STEPS, "async": ()}.items()):
        cfg = composed(*small(*FIXED_COSTS, f"schedule={schedule}", *few, f"tracking.uri={uri}"))
        choices = {"env": "linear_quadratic", "algorithm": "me_trpo", "schedule": schedule, "backend": "simulated"}
        run_job(Job(cfg, [], choices, tmp_path / schedule, sweep.tags(number, schedule)))
    close_sweep(sweep, "FINISHED")
    return open_store(uri)


@pytest.fixture
def pages(store: MlflowClient, tmp_path: Path) -> Iterator[str]:
    """The address of `mlflow ui`."""
    with mlflow_server("ui", "--backend-store-uri", store.tracking_uri, log=tmp_path / "ui.log") as address:
        yield address


def test_two_runs_are_compared_by_their_names_and_groups_of_metrics(store: MlflowClient, pages: str, tmp_path: Path):
    (experiment,) = [each for each in store.search_experiments() if each.name != "Default"]
    charts = charts_page(store.tracking_uri, experiment.experiment_id).replace(LOCAL_PAGES, pages)
    histories = {
        run.info.run_name: store.get_metric_history(run.info.run_id, "collect/return")
        for run in store.search_runs([experiment.experiment_id], "tags.schedule LIKE '%'")
    }
    assert histories.keys() == NAMES
    with chromium(tmp_path / "profile") as browser:
        browser.get(charts)
        wait_for(browser, lambda: len(curves(browser)) > 0, "a chart")
        wait_for(browser, lambda: groups(browser)[: len(GROUPS)] == GROUPS, f"the groups {GROUPS}")
        assert {name.partition(" (")[0] for name, _, _ in curves(browser)[0]} == NAMES

        browser.get(charts.replace("&compareRunsMode=CHART", ""))
        wait_for(browser, lambda: all(box_of(browser, name) for name in NAMES), "a row for each run")
        for name in NAMES:
            click(browser, box_of(browser, name))
        wait_for(browser, lambda: button(browser, "Compare") is not None, "the button Compare")
        click(browser, button(browser, "Compare"))
        links = "a[href*=plot_metric_keys]"
        wait_for(browser, lambda: len(find_all(browser, links)) > 0, "the list of metrics")
        assert all(name in browser.find_element("tag name", "body").text for name in NAMES)

        # The first link, but to the return: the list is longer than its window, and holds only what is seen of it.
        browser.get(find_all(browser, links)[0].get_attribute("href").replace("acting_max_ms", "return"))
        wait_for(browser, lambda: len(curves(browser)) == 1, "the curves of the return")
        drawn = {name.partition(" (")[0]: (steps, values) for name, steps, values in curves(browser)[0]}
    assert drawn == {
        name: ([each.step for each in history], pytest.approx([each.value for each in history]))
        for name, history in histories.items()
    }


def curves(browser: Chrome) -> list[list[Any]]:
    return browser.execute_script(CURVES)


def groups(browser: Chrome) -> list[str]:
    """The titles of the charts' groups, without the number of charts in each."""
    titles = find_all(browser, "[data-testid=experiment-view-compare-runs-section-header]")
    return [title.text.split()[0] for title in titles]


def click(browser: Chrome, element: Any) -> None:
    """Whatever the page draws over it, such as boxes of its own and hints."""
    browser.execute_script("arguments[0].click()", element)


def find_all(browser: Chrome, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def box_of(browser: Chrome, run: str) -> Any:
    """The box before the name of a run in the table, once there is one."""
    boxes = f"//*[@role='row'][.//*[text()='{run}']]//input[contains(@aria-label, 'toggle row selection')]"
    return next(iter(browser.find_elements("xpath", boxes)), None)


def button(browser: Chrome, text: str) -> Any:
    return next((each for each in browser.find_elements("tag name", "button") if each.text == text), None)


def wait_for(browser: Chrome, condition: Callable[[], bool], what: str) -> None:
    """The pages fetch and draw in their own time, and may replace an element while it is looked at."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    wait = WebDriverWait(browser, PAGE_SECONDS, ignored_exceptions=[StaleElementReferenceException])
    wait.until(lambda _: condition(), f"{what} never appeared on {browser.current_url}")
