"""Snapshots as folders: written aside, brought onto the disk, renamed; so each is there as a whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mbrl_async.checkpoint.codec import CheckpointError, decode, encoded
from mbrl_async.checkpoint.journal import sync_directory
from mbrl_async.runtime.recovery import Snapshot
from mbrl_async.types import State

MANIFEST = "manifest.json"
CHANNELS = "channels"
SUFFIX = ".safetensors"
ASIDE = "unfinished"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedSnapshot:
    """The workers, and what the channels held at the same moment."""

    snapshot: Snapshot
    channels: State


class SnapshotFolder:
    """The newest snapshots of one run.

    Args:
        directory: where they are.
        keep: how many of them.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, saved: SavedSnapshot) -> None:
        """Write a snapshot and remove those that are too old.

        Raises:
            OSError: the disk does not take it; the older ones are as they were.
        """
        aside = self._directory / ASIDE
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            _write_all(aside, saved)
            target = self._directory / f"{saved.snapshot.position:010d}"
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
            sync_directory(self._directory)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)  # half a snapshot must not keep a full disk full
            raise
        for old in self._folders()[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self, entries: int) -> SavedSnapshot | None:
        """The newest usable snapshot of a journal with so many entries; says which ones it refuses.

        Those of later entries are removed: the journal does not have them, and will have others in their place.
        """
        for folder in self._folders():
            if int(folder.name) > entries:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                saved = read_snapshot(folder)
            except (CheckpointError, OSError) as error:
                log.warning("%s; an older snapshot or the journal takes its place.", error)
                continue
            return saved
        return None

    def _folders(self) -> list[Path]:
        """The newest first."""
        return sorted((each for each in self._directory.glob("*") if each.name.isdigit()), reverse=True)


def _write_all(folder: Path, saved: SavedSnapshot) -> None:
    states: Mapping[str, State] = {**saved.snapshot.workers, CHANNELS: saved.channels}
    hashes = {f"{name}{SUFFIX}": _write(folder / f"{name}{SUFFIX}", encoded(state)) for name, state in states.items()}
    manifest = {"position": saved.snapshot.position, "in_flight": dict(saved.snapshot.in_flight), "sha256": hashes}
    _write(folder / MANIFEST, [json.dumps(manifest, indent=2).encode()])
    sync_directory(folder)


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write a file onto the disk, piece by piece, so that other threads run meanwhile; returns its hash."""
    fingerprint = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            fingerprint.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return fingerprint.hexdigest()


def read_snapshot(folder: Path) -> SavedSnapshot:
    """The snapshot in a folder.

    Raises:
        CheckpointError: it is not what was written.
        OSError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        position, in_flight, hashes = (manifest[name] for name in ("position", "in_flight", "sha256"))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged") from error
    states = {name.removesuffix(SUFFIX): _read(folder / name, expected) for name, expected in hashes.items()}
    channels = states.pop(CHANNELS)
    return SavedSnapshot(Snapshot(position, states, in_flight), channels)


def _read(path: Path, expected: str) -> State:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        raise CheckpointError(f"{path} is not the file that was written: it was altered or cut off")
    try:
        return decode(data)
    except CheckpointError as error:
        raise CheckpointError(f"{path} holds {error}") from error
