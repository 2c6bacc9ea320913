import pytest
from mlflow import MlflowClient

from mbrl_async.tracking.store import experiment_id


@pytest.fixture(scope="session")
def experiment(client: MlflowClient) -> str:
    return experiment_id(client, "tests")
