"""Where MLflow keeps its runs: opened once, with every common mistake told in one sentence."""

from __future__ import annotations

import logging
import shlex
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mbrl_async.tracking.errors import reason

Found = TypeVar("Found")

LOCK_SECONDS = 120.0
"""Longest wait for another job that is setting up the same database; it takes some seconds."""

BUSY_SECONDS = 20.0
"""Longest wait for other jobs that are writing; MLflow waits as long."""

CONNECT_SECONDS = 5.0
"""Longest wait for a tracking server's first answer."""

LOCAL_PAGES = "http://127.0.0.1:5000"
"""Where `mlflow ui` shows its pages by default."""


class TrackingError(RuntimeError):
    """MLflow cannot be used as configured; the message says why and what to do."""


def open_store(uri: str, *, create: bool = True) -> MlflowClient:
    """A client of the store at `uri`; an SQLite database that does not exist is made if it is to `create` one.

    Safe to call from several jobs at once. The client's `tracking_uri` is absolute.

    Raises:
        TrackingError: the store cannot be used; the sentence names `uri` and the remedy.
    """
    _silence_mlflow()
    scheme = urlsplit(uri).scheme
    if scheme == "sqlite":
        return _open_sqlite(uri, create)
    if scheme in ("http", "https"):
        _require_server(uri)
    if scheme in ("", "file"):
        raise TrackingError(
            f"tracking.uri={uri}: MLflow 3 keeps no runs in plain directories; use a database, sqlite:///mlflow.db."
        )
    return _connect(uri)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The identifier of the experiment `name`, which is created if there is none.

    Raises:
        TrackingError: there was an experiment of that name and it is deleted.
    """
    experiment = client.get_experiment_by_name(name) or _create_experiment(client, name)
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment={name}: this experiment was deleted; choose another name, or bring it back with "
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`."
        )
    return str(experiment.experiment_id)


def all_experiments(client: MlflowClient) -> list[Experiment]:
    """Those that are not deleted, be they ever so many."""
    return list(_every_page(lambda token: client.search_experiments(page_token=token)))


def all_runs(client: MlflowClient, experiments: list[str], condition: str = "") -> list[Run]:
    """Those of the experiments, by their identifiers, that fulfil MLflow's `condition`; the oldest first."""
    order = ["start_time ASC"]
    return list(_every_page(lambda token: client.search_runs(experiments, condition, order_by=order, page_token=token)))


def _every_page(search: Callable[[str | None], PagedList[Found]]) -> Iterator[Found]:
    """All that MLflow finds, which it tells in pages of a thousand."""
    token: str | None = None
    while token != "":
        page = search(token)
        yield from page
        token = page.token or ""


def user_interface(uri: str) -> str:
    """The shell command that opens MLflow's pages on the store at `uri`; of a server, its address."""
    if urlsplit(uri).scheme in ("http", "https"):
        return uri
    # By its interpreter, because the environment may not be activated.
    return shlex.join([sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri])


def charts_page(uri: str, experiment: str) -> str:
    """The address of the charts of an experiment's runs, by its identifier; of a database, as `mlflow ui` shows it.

    MLflow opens with its pages for language models, which do not lead to runs, unless the address says otherwise; and
    sorted by time, its default, it folds the runs of a sweep into their parent, which has no curves.
    """
    pages = uri.rstrip("/") if urlsplit(uri).scheme in ("http", "https") else LOCAL_PAGES
    sorting = "orderByKey=tags.%60mlflow.runName%60&orderByAsc=true"
    return f"{pages}/#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART&{sorting}"


def _silence_mlflow() -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # A failed write arrives as an exception too, and is told once and in few words: see writer.py.
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)


def _open_sqlite(uri: str, create: bool) -> MlflowClient:
    database = _sqlite_path(uri)
    if not create and not database.exists():
        raise TrackingError(f"tracking.uri={uri}: no runs, for {database} does not exist; say where they are.")
    lock = FileLock(f"{database}.lock", timeout=LOCK_SECONDS)
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with lock:  # MLflow's own lock covers only a part of the schema's migration
            _require_database(database)
            return _connect(f"sqlite:///{database}")
    except Timeout as error:
        raise TrackingError(
            f"tracking.uri={uri}: another job has held {lock.lock_file} for {LOCK_SECONDS:.0f} s; "
            "end that job, or choose another database."
        ) from error
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"tracking.uri={uri}: {database} cannot be opened for writing ({error}); "
            "choose a writable place, for example sqlite:///mlflow.db."
        ) from error


def _sqlite_path(uri: str) -> Path:
    try:
        database = make_url(uri).database
    except ArgumentError as error:
        raise TrackingError(f"tracking.uri={uri} is no database address; write sqlite:///mlflow.db.") from error
    if not database or database == ":memory:":
        raise TrackingError(f"tracking.uri={uri} names no file; write sqlite:///mlflow.db.")
    return Path(database).expanduser().resolve()


def _require_database(database: Path) -> None:
    """Open for writing what MLflow would try to open ten times, for a hundred seconds in all."""
    connection = sqlite3.connect(database, timeout=BUSY_SECONDS)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
    finally:
        connection.close()


def _require_server(uri: str) -> None:
    """Knock once: MLflow would try for minutes."""
    address = urlsplit(uri)
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise TrackingError(
            f"tracking.uri={uri}: no server answers there ({error}); "
            "start one with `mlflow server`, or use a database, sqlite:///mlflow.db."
        ) from error


def _connect(uri: str) -> MlflowClient:
    """Make a client and ask it something, since MLflow connects only when it is asked."""
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # whatever a database driver raises
        raise TrackingError(
            f"tracking.uri={uri}: MLflow cannot use this store ({reason(error)}); "
            "mend it, or use a new database, sqlite:///mlflow.db."
        ) from error
    return client


def _create_experiment(client: MlflowClient, name: str) -> Experiment:
    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=_artifacts(client.tracking_uri)))
    except MlflowException as error:
        existing = client.get_experiment_by_name(name)  # another job may have been quicker
        if existing is None:
            raise TrackingError(
                f"tracking.experiment={name}: it cannot be created ({reason(error)}); choose another name."
            ) from error
        return existing


def _artifacts(uri: str) -> str | None:
    """Beside the database; MLflow's default is the directory that a program happens to be started in."""
    if urlsplit(uri).scheme != "sqlite":
        return None
    return (_sqlite_path(uri).parent / "mlartifacts").as_uri()
