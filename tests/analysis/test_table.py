from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mlflow import MlflowClient

from mbrl_async.analysis.curves import RunHistory
from mbrl_async.analysis.table import main, summarise
from mbrl_async.sweeps.record import close_sweep, open_sweep
from mbrl_async.tracking.run import Status
from mbrl_async.tracking.store import experiment_id
from tests.analysis.conftest import curve


@pytest.fixture
def complete(history: RunHistory) -> RunHistory:
    """The history with what the table needs besides."""
    trajectories = np.arange(10.0, 201.0, 10.0)
    more = {
        "collect/lateness_p50_ms": np.full(20, 0.25),
        "collect/lateness_p99_ms": np.arange(20.0),
        "collect/lateness_max_ms": np.arange(20.0) + 5,
        "collect/deadline_misses": np.repeat([0.0, 1.0], 10),
        "run/time_ratio": np.linspace(1.2, 1.01, 20),
    }
    curves = {**history.curves, **{name: curve(trajectories, values) for name, values in more.items()}}
    return dataclasses.replace(history, curves=curves)


def log_ended(
    client: MlflowClient,
    experiment: str,
    name: str,
    history: RunHistory,
    tags: dict[str, str] | None = None,
    status: Status = "FINISHED",
) -> None:
    """A run with the last value of each curve."""
    run = client.create_run(experiment_id(client, experiment), run_name=name, tags=tags)
    for metric, values in history.curves.items():
        client.log_metric(run.info.run_id, metric, values.values[-1])
    client.set_terminated(run.info.run_id, status)


def test_a_run_is_summarised_as_computed_by_hand(complete):
    line = summarise(complete, 10, 14)
    assert line.mean_return == 12.0  # of 10, 11, 12, 13, 14
    assert line.updates == 800 / 20
    assert line.epochs == 200 / 20
    assert line.time_ratio == 1.01
    assert line.lateness_ms == (0.25, 9.5, 24.0)
    assert line.misses == 10.0


def test_trajectories_that_a_run_does_not_have_give_no_number(complete):
    assert np.isnan(summarise(complete, 15, 20).mean_return), "a mean of fewer would be another number"
    assert summarise(complete, 15, 19).mean_return == 17.0
    assert np.isnan(summarise(complete, 50, 59).mean_return)


def test_an_unknown_experiment_is_refused_with_its_name_and_those_that_are_there(
    monkeypatch, capsys, client: MlflowClient
):
    monkeypatch.setattr("sys.argv", ["table", "nowhere", "--uri", client.tracking_uri])
    assert main() == 2
    assert "There is no experiment nowhere: there are " in capsys.readouterr().err


@pytest.mark.parametrize("window", [["--first", "60", "--last", "50"], ["--first", "-3"]])
def test_a_window_that_holds_no_trajectory_is_refused(monkeypatch, capsys, window):
    monkeypatch.setattr("sys.argv", ["table", "any", *window])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "no last before the first" in capsys.readouterr().err


def test_who_only_reads_makes_no_store(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["table", "any", "--uri", f"sqlite:///{tmp_path / 'mlflow.db'}"])
    assert main() == 2
    assert "mlflow.db does not exist; say where they are" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sweeps_own_run_is_no_line(monkeypatch, capsys, complete, client: MlflowClient):
    sweep = open_sweep("tabled", client.tracking_uri, "tabled")
    log_ended(client, "tabled", "one job", complete)
    close_sweep(sweep, "FINISHED")
    monkeypatch.setattr("sys.argv", ["table", "tabled", "--uri", client.tracking_uri, "--first", "0", "--last", "0"])
    main()
    printed = capsys.readouterr().out
    assert "one job" in printed
    assert "mean of 1" in printed


def test_a_run_whose_collecting_takes_no_time_has_no_ratio(complete):
    curves = {name: each for name, each in complete.curves.items() if name != "run/time_ratio"}
    assert np.isnan(summarise(dataclasses.replace(complete, curves=curves), 0, 9).time_ratio)


def test_runs_that_were_made_like_others_do_not_count_again(monkeypatch, capsys, complete, client: MlflowClient):
    for name, tags in {"seed 0": {}, "replay": {"replays": "id"}, "reproduction": {"reproduces": "id"}}.items():
        log_ended(client, "again", name, complete, tags)
    monkeypatch.setattr("sys.argv", ["table", "again", "--uri", client.tracking_uri, "--first", "0", "--last", "0"])
    main()
    printed = capsys.readouterr().out
    assert "mean of 1" in printed
    assert "Replays and reproductions, left out: 2." in printed


def test_a_run_that_failed_is_no_line(monkeypatch, capsys, complete, client: MlflowClient):
    log_ended(client, "broken", "to its end", complete)
    log_ended(client, "broken", "not so far", complete, status="FAILED")
    monkeypatch.setattr("sys.argv", ["table", "broken", "--uri", client.tracking_uri, "--first", "0", "--last", "0"])
    main()
    printed = capsys.readouterr().out
    assert "to its end" in printed
    assert "not so far" not in printed
    assert "mean of 1" in printed


def test_an_unusable_store_is_refused_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["table", "any", "--uri", "mlruns"])
    assert main() == 2
    assert "keeps no runs in plain directories" in capsys.readouterr().err


def test_an_experiment_without_a_finished_run_says_so(monkeypatch, capsys, complete, client: MlflowClient):
    log_ended(client, "all broken", "not so far", complete, status="FAILED")
    monkeypatch.setattr("sys.argv", ["table", "all broken", "--uri", client.tracking_uri])
    assert main() == 0
    assert "No run of all broken has finished with a trajectory." in capsys.readouterr().out
