"""MLflow's servers, started as a user starts them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbrl_async.tracking.store import TrackingError, open_store

STARTING_SECONDS = 120.0


@contextmanager
def mlflow_server(command: str, *arguments: str, log: Path) -> Iterator[str]:
    """The address of `python -m mlflow COMMAND ARGUMENTS` on the loopback interface, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "mlflow", command, *place, *arguments], stdout=output, stderr=output
        ) as process,
    ):
        try:
            _wait_until_it_answers(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_until_it_answers(process: subprocess.Popen[bytes], uri: str) -> None:
    """Between two attempts wait for the end of the process, after which no other would succeed."""
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        try:
            open_store(uri)
            return
        except TrackingError:
            if time.monotonic() > deadline or _ends_within(process, 0.2):
                raise


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
