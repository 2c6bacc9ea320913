"""Metrics to MLflow from one background thread, so that no worker ever waits for a database."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from mlflow.entities import Metric

from mbrl_async.priority import lower_priority
from mbrl_async.tracking.errors import reason

BATCH = 1000
"""Metrics in one request: MLflow's limit."""

INTERVAL_SECONDS = 2.0
"""Time between two writes. A write costs some 20 ms however small it is, so more of them would cost more."""

RETRY_SECONDS = 0.5
"""Time between two attempts when the run is over."""

log = logging.getLogger(__name__)


class MetricWriter:
    """Sends what it is given in batches, keeps what could not be sent, and tries again.

    Args:
        send: writes one batch of at most `BATCH` metrics, or raises; is given a batch again if it raised.
        interval: seconds between two writes.
    """

    def __init__(self, send: Callable[[Sequence[Metric]], object], interval: float = INTERVAL_SECONDS) -> None:
        self._send = send
        self._interval = interval
        self._queue: deque[Sequence[Metric]] = deque()
        self._unsent: deque[Metric] = deque()
        self._failure: str | None = None
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    def put(self, metrics: Sequence[Metric]) -> None:
        """Leave metrics to be written; returns at once and never raises."""
        self._queue.append(metrics)

    @property
    def failure(self) -> str | None:
        """Why the last attempt failed; None if it did not."""
        return self._failure

    def close(self, patience: float) -> int:
        """Write what is left, trying for at most `patience` seconds; returns how many metrics are lost."""
        self._closing.set()
        self._thread.join(patience)
        self._given_up.set()
        return len(self._unsent) + sum(len(metrics) for metrics in list(self._queue))

    def _run(self) -> None:
        lower_priority()
        while not self._closing.wait(self._interval):
            self._flush()
        while not self._flush() and not self._given_up.wait(RETRY_SECONDS):
            pass

    def _flush(self) -> bool:
        """Send everything that waits; returns whether that worked."""
        while self._queue or self._unsent:
            while self._queue and len(self._unsent) < BATCH:
                self._unsent.extend(self._queue.popleft())
            batch = list(islice(self._unsent, BATCH))
            try:
                self._send(batch)
            except Exception as error:  # whatever a database driver raises must not end this thread
                self._note(error)
                return False
            self._failure = None
            for _ in batch:
                self._unsent.popleft()
        return True

    def _note(self, error: Exception) -> None:
        if self._failure is None:
            log.warning("MLflow takes no metrics at the moment, they are kept and tried again (%s).", reason(error))
        self._failure = reason(error)
