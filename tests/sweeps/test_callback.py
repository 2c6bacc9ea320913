"""What Hydra's events do to a sweep, without Hydra."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from omegaconf import DictConfig, OmegaConf

from mbrl_async.compare import read_settings
from mbrl_async.sweeps.callback import RecordSweep
from mbrl_async.sweeps.outcome import Outcome


@pytest.fixture
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def config(client: MlflowClient, tmp_path: Path) -> DictConfig:
    return OmegaConf.create(
        {
            "sweep": {"name": tmp_path.name},
            "tracking": {"uri": client.tracking_uri, "experiment": "callbacks"},
            "hydra": {"sweep": {"dir": str(tmp_path)}},
        }
    )


@pytest.mark.usefixtures("_own_signals")
def test_a_store_that_is_away_at_the_end_hides_neither_what_failed_nor_the_status(
    config, tmp_path, monkeypatch, capsys
):
    def fail(*_: object) -> None:
        raise ConnectionError("no route")

    callback = RecordSweep()
    callback.on_multirun_start(config)
    Outcome(0, ["seed=0"], "failed", "collect failed: no robot").write(tmp_path)
    monkeypatch.setattr("mbrl_async.sweeps.record.close_sweep", fail)
    with pytest.raises(SystemExit) as end:
        callback.on_multirun_end(config)
    assert end.value.code == 1
    assert "collect failed: no robot" in capsys.readouterr().out
    callback.on_multirun_start(config)  # the lock is free
    monkeypatch.undo()
    callback.on_multirun_end(config)


@pytest.mark.usefixtures("_own_signals")
def test_a_name_may_be_a_number(config, client):
    config.sweep.name = 2024
    callback = RecordSweep()
    callback.on_multirun_start(config)
    callback.on_multirun_end(config)
    experiment = client.get_experiment_by_name("callbacks")
    assert client.search_runs([experiment.experiment_id], "tags.sweep = '2024'")
    assert read_settings(["sweep=2024"]).sweep == "2024"
