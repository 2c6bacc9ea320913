from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mbrl_async.analysis.curves import RunHistory
from mbrl_async.analysis.figures import ROW_HEIGHT, SIZE, draw_figures


def labels(figure: Figure) -> list[tuple[str, str]]:
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]


def bars(axes) -> np.ndarray:
    """Left, right, bottom and top of every bar."""
    boxes = [path.get_extents() for collection in axes.collections for path in collection.get_paths()]
    return np.array([(box.x0, box.x1, box.y0, box.y1) for box in boxes])


def test_each_figure_has_labels_with_units_and_the_name_of_the_run(history: RunHistory):
    figures = draw_figures(history)
    assert {name: labels(figure) for name, figure in figures.items()} == {
        "return_against_env_steps": [("environment steps", "return (sum of rewards)")],
        "return_against_run_time": [("run time (min)", "return (sum of rewards)")],
        "losses": [("run time (min)", "loss (mean over members)")],
        "timeline": [("run time (min)", ""), ("run time (s)", "")],
        "staleness": [("", "newer versions"), ("run time (min)", "age (s)")],
    }
    assert all(figure.get_suptitle() == "hopper async seed 0" for figure in figures.values())
    assert all(figure.get_size_inches()[0] == SIZE[0] for figure in figures.values())


def test_the_return_has_a_dot_a_trajectory_and_the_mean_of_the_last_ten(history: RunHistory):
    dots, mean = draw_figures(history)["return_against_env_steps"].axes[0].lines
    assert dots.get_xydata().tolist() == [[200.0 * (index + 1), index] for index in range(20)]
    assert mean.get_ydata()[[0, 9, 19]].tolist() == [0, 4.5, 14.5]
    minutes = draw_figures(history)["return_against_run_time"].axes[0].lines[0].get_xdata()
    assert minutes[5] == 1


def test_losses_are_told_apart(history: RunHistory):
    axes = draw_figures(history)["losses"].axes[0]
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.lines] == ["training", "validation"]
    assert axes.lines[1].get_ydata()[0] == 2 / 11


def test_the_timeline_of_a_long_run_has_the_whole_and_one_minute_with_every_step(history: RunHistory):
    whole, zoom = draw_figures(history)["timeline"].axes
    assert [label.get_text() for label in zoom.get_yticklabels()] == ["collect", "learn_model", "improve_policy"]
    assert whole.get_xlim() == (0, 200 / 60)
    assert zoom.get_xlim() == (70, 130)
    rows = bars(zoom)[:, 2]
    assert [int((rows == row).sum()) for row in range(3)] == [6, 60, 240]
    assert whole.get_ylim()[0] > whole.get_ylim()[1], "rows are counted from the top"


def test_busy_time_grows_upwards_from_the_floor_of_its_row(history: RunHistory):
    half = [replace(record, finish=(record.start + record.finish) / 2) for record in history.trace]
    whole = draw_figures(replace(history, trace=half))["timeline"].axes[0]
    updates = next(patch for patch in whole.patches if patch.get_data().baseline == 2 + ROW_HEIGHT)
    # Bins of about three seconds hold updates of 0.125 s every 0.25 s: busy for half of the time, up to one update.
    np.testing.assert_allclose(updates.get_data().values, 2 + ROW_HEIGHT / 2, atol=ROW_HEIGHT * 0.125 / 3)


def test_the_timeline_of_a_short_run_shows_every_step_of_it(history: RunHistory):
    short = [record for record in history.trace if record.finish <= 30]
    (axes,) = draw_figures(replace(history, trace=short))["timeline"].axes
    assert axes.get_xlim() == (0, 30)
    assert len(bars(axes)) == 3 + 30 + 120


def test_a_run_without_a_model_has_only_the_figures_of_what_it_logged(history: RunHistory):
    returns = {"collect/return": history.curves["collect/return"]}
    figures = draw_figures(replace(history, curves=returns, trace=[]))
    assert set(figures) == {"return_against_env_steps", "return_against_run_time"}
