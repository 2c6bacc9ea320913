import threading
from collections.abc import Sequence

from mlflow.entities import Metric

from mbrl_async.tracking.writer import BATCH, MetricWriter

ENOUGH = 10.0
"""Seconds after which a test gives up; what it waits for takes milliseconds."""


def metrics(first: int, count: int) -> list[Metric]:
    """Values are consecutive numbers, so that a lost, repeated or reordered one shows."""
    return [Metric("m", float(value), 0, value) for value in range(first, first + count)]


class Store:
    """Remembers what it was sent; can be broken or slow."""

    def __init__(self, failures: int = 0) -> None:
        self.batches: list[list[float]] = []
        self.failures = failures
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.received = threading.Event()

    def send(self, batch: Sequence[Metric]) -> None:
        self.entered.set()
        self.open.wait(ENOUGH)
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the store is away")
        self.batches.append([metric.value for metric in batch])
        self.received.set()

    @property
    def values(self) -> list[float]:
        return [value for batch in self.batches for value in batch]


def test_everything_arrives_in_order_in_batches_that_mlflow_takes():
    store = Store()
    writer = MetricWriter(store.send, interval=ENOUGH)
    for first in range(0, 2500, 25):
        writer.put(metrics(first, 25))
    assert writer.close(ENOUGH) == 0
    assert [len(batch) for batch in store.batches] == [BATCH, BATCH, 500]
    assert store.values == list(range(2500))


def test_it_writes_while_the_run_goes_on():
    store = Store()
    writer = MetricWriter(store.send, interval=0.001)
    writer.put(metrics(0, 3))
    assert store.received.wait(ENOUGH)
    writer.put(metrics(3, 3))
    assert writer.close(ENOUGH) == 0
    assert store.values == list(range(6))


def test_put_does_not_wait_for_a_store_that_hangs():
    store = Store()
    store.open.clear()
    writer = MetricWriter(store.send, interval=0.001)
    writer.put(metrics(0, 1))
    assert store.entered.wait(ENOUGH)
    writer.put(metrics(1, 1))  # would hang here
    store.open.set()
    assert writer.close(ENOUGH) == 0
    assert store.values == [0, 1]


def test_a_store_that_fails_for_a_while_loses_nothing(caplog):
    store = Store(failures=3)
    writer = MetricWriter(store.send, interval=0.001)
    writer.put(metrics(0, 3))
    assert store.received.wait(ENOUGH)
    assert writer.close(ENOUGH) == 0
    assert store.values == [0, 1, 2]
    assert writer.failure is None
    assert caplog.text.count("the store is away") == 1, "told once, not at each attempt"


def test_a_store_that_stays_broken_is_given_up_and_the_loss_counted():
    store = Store(failures=10**9)
    writer = MetricWriter(store.send, interval=0.001)
    writer.put(metrics(0, 1500))
    writer.put(metrics(1500, 7))
    assert writer.close(patience=0.5) == 1507  # long enough to have been refused once, on a busy machine, too
    assert writer.failure == "the store is away"


def test_a_store_that_hangs_at_the_end_is_given_up_and_the_loss_counted():
    store = Store()
    store.open.clear()
    writer = MetricWriter(store.send, interval=0.001)
    writer.put(metrics(0, 5))
    assert writer.close(patience=0.05) == 5
    store.open.set()
