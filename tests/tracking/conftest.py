import pytest
from mlflow import MlflowClient

from mbrl_async.tracking.store import experiment_id, open_store


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """Of one SQLite store for all tests, because making its tables takes a second."""
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")


@pytest.fixture(scope="session")
def experiment(client: MlflowClient) -> str:
    return experiment_id(client, "tests")
