import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY

from mbrl_async.tracking.store import TrackingError, charts_page, experiment_id, open_store, user_interface

OTHER_JOB = """
import sys
from mbrl_async.tracking.store import experiment_id, open_store
print("ready", flush=True)
sys.stdin.readline()
print(experiment_id(open_store(sys.argv[1]), "shared"))
"""


def test_two_jobs_set_up_the_same_store_and_experiment_at_once(tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", OTHER_JOB, uri], **pipes) as other:
        other.stdout.readline()  # "ready"
        other.stdin.write("go\n")
        other.stdin.flush()
        identifier = experiment_id(open_store(uri), "shared")
        output, errors = other.communicate(timeout=60)
    assert output.strip() == identifier
    assert errors == "", "MLflow keeps quiet"


def test_artifacts_lie_beside_the_database(client: MlflowClient, experiment: str):
    database = Path(client.tracking_uri.removeprefix("sqlite:///"))
    assert client.get_experiment(experiment).artifact_location == (database.parent / "mlartifacts").as_uri()


def test_a_relative_database_becomes_absolute(client: MlflowClient, monkeypatch: pytest.MonkeyPatch):
    database = Path(client.tracking_uri.removeprefix("sqlite:///"))
    monkeypatch.chdir(database.parent)
    assert open_store(f"sqlite:///{database.name}").tracking_uri == client.tracking_uri


def test_an_experiment_is_created_once(client: MlflowClient):
    assert experiment_id(client, "once") == experiment_id(client, "once")


def test_another_job_may_create_the_experiment_in_between(client: MlflowClient):
    class LateClient:
        """Sees an experiment only after having failed to create it."""

        tracking_uri = client.tracking_uri
        failed = False

        def get_experiment_by_name(self, name):
            return client.get_experiment_by_name(name) if self.failed else None

        def create_experiment(self, name, artifact_location):
            self.failed = True
            return client.create_experiment(name, artifact_location)

        def get_experiment(self, identifier):
            return client.get_experiment(identifier)

    existing = experiment_id(client, "contested")
    assert experiment_id(LateClient(), "contested") == existing


def test_a_deleted_experiment_is_refused_with_the_remedy(client: MlflowClient):
    identifier = experiment_id(client, "gone")
    client.delete_experiment(identifier)
    with pytest.raises(TrackingError, match=rf"tracking.experiment=gone.*restore --experiment-id {identifier}"):
        experiment_id(client, "gone")


def test_an_impossible_name_is_refused(client: MlflowClient):
    with pytest.raises(TrackingError, match=r"tracking.experiment=.*choose another name"):
        experiment_id(client, "x" * 501)


@pytest.mark.parametrize(
    "uri",
    ["./mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///:memory:", "sqlite:mlflow.db", "nonsense://host", ""],
)
def test_an_unusable_address_is_refused_with_the_remedy(uri: str):
    with pytest.raises(TrackingError) as refusal:
        open_store(uri)
    assert f"tracking.uri={uri}" in str(refusal.value)
    assert "sqlite:///mlflow.db" in str(refusal.value)


def test_a_directory_that_cannot_be_written_is_refused_at_once(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match="choose a writable place"):
        open_store(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no database at all\n" * 100)
    with pytest.raises(TrackingError, match="not a database"):
        open_store(f"sqlite:///{tmp_path / 'notes.txt'}")


def test_a_server_that_does_not_answer_is_refused_at_once():
    with socket.socket() as taken:  # bound but not listening: nobody answers, and nobody else can take the port
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TrackingError, match=rf"tracking.uri={uri}: no server answers.*mlflow server"):
            open_store(uri)


def test_the_command_for_the_pages_survives_a_shell():
    uri = "sqlite:////home/a user/mlflow.db"
    assert shlex.split(user_interface(uri)) == [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    assert user_interface("http://host:5000") == "http://host:5000"


def test_the_page_of_charts_is_on_the_server_that_has_the_runs():
    assert charts_page("http://host:80/", "7").startswith("http://host:80/#/experiments/7/runs?")
    assert charts_page("sqlite:////a user/mlflow.db", "7").startswith("http://127.0.0.1:5000/#/experiments/7/runs?")


def test_mlflow_sends_no_telemetry():
    assert MLFLOW_DISABLE_TELEMETRY.get(), "MLflow asks before every event"
