from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from mbrl_async.tracking.store import open_store
from tests.recordings import no_figures


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Tests are small: a second thread within an operation only waits for the first, and on a busy machine long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_full_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job collects garbage before it begins, here through everything that the tests have imported: half a second."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


@pytest.fixture
def without_figures() -> Iterator[None]:
    with no_figures():
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database to be copied: making its tables takes a second."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def client(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """Of one store for all tests."""
    return _copied(empty_database, tmp_path_factory.mktemp("store"))


@pytest.fixture
def own_store(empty_database: Path, tmp_path: Path) -> MlflowClient:
    """Of a store that no other test uses."""
    return _copied(empty_database, tmp_path)


def _copied(database: Path, folder: Path) -> MlflowClient:
    return open_store(f"sqlite:///{shutil.copy(database, folder / 'mlflow.db')}")
