from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from mlflow import MlflowClient

from mbrl_async.tracking.store import open_store


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Tests are small: a second thread within an operation only waits for the first, and on a busy machine long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """Of one SQLite store for all tests, because making its tables takes a second."""
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")
