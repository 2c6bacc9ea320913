"""What is kept of a run: bytes, journal, snapshots and keeper, each with the faults that disks and people have."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mbrl_async.checkpoint import journal as journal_module
from mbrl_async.checkpoint.codec import TYPES, CheckpointError, decode, encode
from mbrl_async.checkpoint.journal import Journal, entries, whole_length
from mbrl_async.checkpoint.keeper import RunKeeper
from mbrl_async.checkpoint.snapshots import SavedSnapshot, SnapshotFolder
from mbrl_async.runtime.recovery import Books, Entry, Past, Snapshot
from mbrl_async.runtime.trace import Counters, StepRecord
from tests.runtime.fakes import Wires

STATE = {
    "weights": {"layer.0/weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor([1, 2])},
    "generator": {"state": 2**100 + 1, "kind": "PCG64"},
    "average": float("nan"),
    "loss": 0.1 + 0.2,
    "nothing": None,
    "empty": {},
    "list": [1, "two", None],
}


def test_a_state_comes_back_to_the_last_bit():
    back = decode(encode(STATE))
    assert torch.equal(back["weights"]["layer.0/weight"], STATE["weights"]["layer.0/weight"])
    assert back["weights"]["steps"].dtype == torch.int64
    assert back["average"] != back["average"]
    for name in ("generator", "loss", "nothing", "empty", "list"):
        assert back[name] == STATE[name]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_state_is_a_safetensors_file_whatever_its_tensors_are(dtype):
    tensors = {
        "odd": torch.tensor([True, False, True]),  # whose length is no multiple of what follows
        "matrix": torch.arange(6).reshape(2, 3).to(dtype).T,  # not contiguous
        "number": torch.tensor(1, dtype=dtype),
        "empty": torch.zeros(0, 4, dtype=dtype),
    }
    read = safetensors.torch.load(encode({"a": tensors, "b": 1}))
    assert {name: tensor.tolist() for name, tensor in read.items()} == {
        f'["a", "{name}"]': tensor.tolist() for name, tensor in tensors.items()
    }
    back = decode(encode({"a": tensors, "b": 1}))["a"]
    assert all(back[name].dtype == tensor.dtype for name, tensor in tensors.items())


@pytest.mark.parametrize("data", [b"", b"no state", encode(STATE)[:-1], encode(STATE)[:40]])
def test_other_bytes_are_no_state(data):
    with pytest.raises(CheckpointError, match="no saved state"):
        decode(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal")
    for number in range(5):
        journal.append(bytes([number]) * 10)
    journal.close()
    return tmp_path / "journal"


def test_a_journal_that_is_cut_off_anywhere_has_its_whole_entries_and_goes_on(path):
    data, whole = path.read_bytes(), list(entries(path))
    assert [len(entry) for entry in whole] == [10] * 5
    for length in range(len(data)):
        path.write_bytes(data[:length])
        kept = list(entries(path))
        assert kept == whole[: len(kept)]
        journal = Journal(path)
        journal.append(b"new")
        journal.close()
        assert list(entries(path)) == [*kept, b"new"]


def test_a_journal_that_was_altered_anywhere_gives_nothing_that_was_not_written(path):
    data, whole = path.read_bytes(), list(entries(path))
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        path.write_bytes(altered)
        try:
            assert list(entries(path)) == whole[: len(list(entries(path)))], "an altered length looks like a cut"
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017  (whether it raises depends on the byte)


@pytest.mark.parametrize("behind", [1, 39, 40, 41, 1500])
@pytest.mark.parametrize("lost", [0, 1, 5, 30])
def test_zeros_that_a_power_failure_left_at_the_end_are_no_entry(path, behind, lost):
    """The file is as long as it was or longer, but its last bytes never came to the disk."""
    data, whole = path.read_bytes(), list(entries(path))
    path.write_bytes(data[: len(data) - lost] + b"\0" * (lost + behind))
    kept = whole if lost == 0 else whole[:-1]
    assert list(entries(path)) == kept
    journal = Journal(path)
    journal.append(b"new")
    journal.close()
    assert list(entries(path)) == [*kept, b"new"]


def test_zeros_in_the_middle_are_no_power_failure(path):
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="was altered: entry 1"):
        list(entries(path))


def test_a_full_disk_loses_no_entry_and_is_told_once(path, monkeypatch, caplog):
    write, full = os.write, True

    def limited(file: int, data: bytes) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:3])  # and slowly, afterwards

    journal = Journal(path)
    monkeypatch.setattr(journal_module.os, "write", limited)
    journal.append(b"first")
    journal.append(b"second")
    full = False
    journal.sync()
    monkeypatch.undo()
    journal.close()
    assert list(entries(path))[5:] == [b"first", b"second"]
    assert caplog.text.count("No space left on device") == 1


def test_what_is_no_journal_is_refused_and_left_alone(tmp_path):
    (tmp_path / "other").write_bytes(b"something else\n" * 10)
    with pytest.raises(CheckpointError, match="is no journal of a run"):
        Journal(tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == b"something else\n" * 10
    assert whole_length(Path(__file__).parent / "__init__.py") == 0


def saved(position: int) -> SavedSnapshot:
    workers = {"collect": {"count": position}, "learn_model": {"total": torch.full((3,), float(position))}}
    return SavedSnapshot(Snapshot(position, workers, {"collect": 1.5}), {"models": {}})


def test_the_newest_snapshots_are_kept_and_the_newest_that_fits_is_read(tmp_path):
    folder = SnapshotFolder(tmp_path, keep=2)
    assert folder.newest(100) is None
    for position in (5, 9, 12):
        folder.save(saved(position))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0000000009", "0000000012"]
    newest = folder.newest(12)
    older = folder.newest(11)
    assert newest is not None
    assert older is not None
    assert (newest.snapshot.position, older.snapshot.position) == (12, 9)
    assert dict(newest.snapshot.in_flight) == {"collect": 1.5}
    assert newest.snapshot.workers["learn_model"]["total"].tolist() == [12.0] * 3
    assert [each.name for each in tmp_path.iterdir()] == ["0000000009"], "the other is of a lost history"
    assert folder.newest(8) is None


@pytest.mark.parametrize("file", ["manifest.json", "learn_model.safetensors", "channels.safetensors"])
@pytest.mark.parametrize("damage", ["altered", "cut off", "missing"])
def test_a_damaged_snapshot_is_refused_by_name_and_the_previous_one_used(tmp_path, caplog, file, damage):
    folder = SnapshotFolder(tmp_path, keep=2)
    folder.save(saved(5))
    folder.save(saved(9))
    path = tmp_path / "0000000009" / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut off" else b"\0" + data[1:])
    newest = folder.newest(9)
    assert newest is not None
    assert newest.snapshot.position == 5
    assert str(path) in caplog.text


def new_keeper(directory: Path) -> RunKeeper:
    class Channels:
        def __init__(self) -> None:
            self.wires = Wires()

        def state_dict(self) -> dict[str, object]:
            return {"models": self.wires.models.state_dict()}

        def load_state_dict(self, state: dict[str, object]) -> None:
            self.wires.models.load_state_dict(state["models"])  # type: ignore[arg-type]

    clock = iter(range(0, 10_000, 10))
    return RunKeeper(
        directory=directory,
        channels=Channels(),
        every_trajectories=3,
        every_seconds=25,
        keep=2,
        now=lambda: float(next(clock)),
    )


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunKeeper]:
    monkeypatch.setattr("mbrl_async.checkpoint.keeper.SYNC_SECONDS", 1000.0)  # the test does the writer's work
    with closing(new_keeper(tmp_path)) as made:
        yield made


def test_a_snapshot_is_due_after_trajectories_or_seconds_whichever_comes_first(keeper):
    due = [keeper.should_snapshot(Counters(trajectories=count)) for count in (1, 1, 1, 4, 4, 4, 4, 7)]
    # 10 s pass between two questions: after 30 s, after three more trajectories, after 30 s, after three more.
    assert due == [False, False, True, True, False, False, True, True]


def test_the_past_is_let_go_when_the_run_goes_on(keeper):
    entry = Entry(StepRecord("learn_model", 1, 0.0, 1.0, {}), {}, Books(Counters(), {}, {}, {}), None)
    keeper.past = Past([entry])
    keeper.append(entry)
    assert keeper.past == Past()


def test_a_journal_that_could_not_be_written_until_the_end_is_told(path, monkeypatch, caplog):
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(path)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", fail)
        journal.append(b"lost")
        journal.close()
    assert f"{path} lacks the last" in caplog.text
    assert [len(entry) for entry in entries(path)] == [10] * 5


def test_a_full_disk_gives_up_a_snapshot_says_so_once_and_keeps_the_older(keeper, tmp_path, monkeypatch, caplog):
    keeper.save(saved(5).snapshot)
    keeper._save_what_waits()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mbrl_async.checkpoint.snapshots._write", fail)
        for position in (7, 8):
            keeper.save(saved(position).snapshot)
            keeper._save_what_waits()
    assert caplog.text.count("No space left on device") == 1
    assert [each.name for each in (tmp_path / "snapshots").iterdir()] == ["0000000005"]
    keeper.save(saved(9).snapshot)
    keeper._save_what_waits()
    newest = SnapshotFolder(tmp_path / "snapshots", 2).newest(9)
    assert newest is not None
    assert newest.snapshot.position == 9


@dataclass(frozen=True)
class Synced:
    """A file or folder at the moment when it was brought onto the disk."""

    inode: int
    size: int
    names: list[str]
    """What was below the test's folder."""


class Disk:
    """Takes note of what is brought onto it: otherwise only a power cut would show what was not."""

    def __init__(self) -> None:
        self.synced: list[Synced] = []
        self._changed = threading.Condition()

    def note(self, synced: Synced) -> None:
        with self._changed:
            self.synced.append(synced)
            self._changed.notify_all()

    def wait_until(self, reached: Callable[[], bool], otherwise: str) -> None:
        with self._changed:
            assert self._changed.wait_for(reached, timeout=30), otherwise


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk, fsync = Disk(), os.fsync

    def noted(file: int) -> None:
        fsync(file)
        status = os.fstat(file)
        disk.note(Synced(status.st_ino, status.st_size, [each.name for each in tmp_path.rglob("*")]))

    monkeypatch.setattr(os, "fsync", noted)
    return disk


def test_every_file_and_name_of_a_snapshot_is_on_the_disk_before_it_counts(tmp_path, disk):
    SnapshotFolder(tmp_path, keep=2).save(saved(5))
    folder = tmp_path / "0000000005"
    *files, aside, renamed = disk.synced
    assert {each.inode: each.size for each in files} == {
        each.stat().st_ino: each.stat().st_size for each in folder.iterdir()
    }, "each as a whole"
    assert aside.inode == folder.stat().st_ino
    assert not any(folder.name in each.names for each in (*files, aside))
    assert renamed.inode == tmp_path.stat().st_ino
    assert folder.name in renamed.names


def test_a_disk_that_does_not_take_the_journal_is_told_once_until_it_does(tmp_path, monkeypatch, caplog):
    fsync, fails = journal_module.os.fsync, [True, True, True, False, True]

    def failing(file: int) -> None:
        if fails.pop(0):
            raise OSError("no space left")
        fsync(file)

    journal = Journal(tmp_path / "journal")
    monkeypatch.setattr(journal_module.os, "fsync", failing)
    told = []
    while fails:
        journal.append(b"entry")
        journal.sync()
        told.append(caplog.text.count("is not brought onto the disk at the moment (no space left)"))
    assert told == [1, 1, 1, 1, 2]
    monkeypatch.undo()
    journal.close()


def test_a_journal_is_on_the_disk_after_sync_and_at_the_end_and_nobody_waits_for_it_before(tmp_path, disk):
    journal = Journal(tmp_path / "journal")
    for bring in (journal.sync, journal.close):
        disk.synced.clear()
        journal.append(b"entry")
        assert disk.synced == []
        bring()
        status = (tmp_path / "journal").stat()
        assert [(each.inode, each.size) for each in disk.synced] == [(status.st_ino, status.st_size)]


def test_journal_and_snapshots_are_brought_onto_the_disk_while_the_run_goes_on(tmp_path, disk, monkeypatch):
    monkeypatch.setattr("mbrl_async.checkpoint.keeper.SYNC_SECONDS", 0.001)
    snapshots = SnapshotFolder(tmp_path / "snapshots", keep=2)

    def journal_is_synced() -> bool:
        status = (tmp_path / "journal").stat()
        return (status.st_ino, status.st_size) in {(each.inode, each.size) for each in disk.synced}

    def newest_position() -> int:
        newest = snapshots.newest(2)
        return 0 if newest is None else newest.snapshot.position

    with closing(new_keeper(tmp_path)) as keeper:
        for position in (1, 2):  # the writer goes on after the first one
            record = StepRecord("learn_model", position, 0.0, 1.0, {})
            keeper.append(Entry(record, {}, Books(Counters(), {}, {}, {}), None))
            disk.wait_until(journal_is_synced, "the journal is never brought onto the disk")
            keeper.save(saved(position).snapshot)
            disk.wait_until(lambda expected=position: newest_position() == expected, "the snapshot is never written")
