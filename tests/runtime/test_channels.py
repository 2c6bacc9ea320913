from __future__ import annotations

import threading

import torch

from mbrl_async.runtime.channels import Latest, Stream


def test_latest_is_empty_before_the_first_put():
    assert Latest().get() is None


def test_latest_counts_versions_and_keeps_the_newest():
    channel = Latest()
    for value in (1.0, 2.0, 3.0):
        channel.put({"weight": torch.tensor([value])})
    newest = channel.get()
    assert newest is not None
    assert newest.version == 3
    assert newest.parameters["weight"].item() == 3.0


def test_latest_holds_a_snapshot_that_its_owner_cannot_change():
    weight = torch.zeros(2, requires_grad=True)
    channel = Latest()
    channel.put({"weight": weight})
    with torch.no_grad():
        weight.add_(1.0)
    newest = channel.get()
    assert newest is not None
    assert torch.equal(newest.parameters["weight"], torch.zeros(2))
    assert not newest.parameters["weight"].requires_grad


def test_stream_delivers_each_item_once_and_remembers_all():
    stream: Stream[int] = Stream()
    assert stream.drain() == []
    stream.put(1)
    stream.put(2)
    assert stream.drain() == [1, 2]
    assert stream.drain() == []
    stream.put(3)
    assert stream.drain() == [3]
    assert stream.history == [1, 2, 3]


def test_stream_loses_and_reorders_nothing_between_threads():
    stream: Stream[tuple[int, int]] = Stream()
    writers = [threading.Thread(target=lambda w=w: [stream.put((w, n)) for n in range(2000)]) for w in range(3)]
    for writer in writers:
        writer.start()
    received: list[tuple[int, int]] = []
    while len(received) < 6000:
        received += stream.drain()
    for writer in writers:
        writer.join()
    assert stream.drain() == []
    assert received == stream.history
    for writer_number in range(3):
        assert [n for w, n in received if w == writer_number] == list(range(2000))
