"""The keys of a robot's server and of its clients: `python -m mbrl_async.robot.keys FOLDER`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import zmq.auth

from mbrl_async.robot.interface import RobotError

SERVER = "server"
CLIENT = "client"
ADMITTED = "admitted"
"""The folder, below the server's keys, of the public keys of those who may drive the robot."""


def make_keys(folder: Path) -> None:
    """Make a pair of keys (Curve25519) for the server and one for a client, who is admitted.

    Raises:
        RobotError: there are keys already, which are not overwritten.
    """
    if (folder / f"{SERVER}.key_secret").exists():
        raise RobotError(f"{folder} has keys already: name another folder, or delete them.")
    (folder / ADMITTED).mkdir(parents=True, exist_ok=True)
    others = os.umask(0o077)  # from their first moment on, nobody else may read the secret ones
    try:
        for name in (SERVER, CLIENT):
            zmq.auth.create_certificates(folder, name)
    finally:
        os.umask(others)
    (folder / f"{CLIENT}.key").rename(folder / ADMITTED / f"{CLIENT}.key")


def public_key(path: Path) -> bytes:
    """The public key in a file.

    Raises:
        RobotError: there is none.
    """
    return _certificate(path)[0]


def key_pair(path: Path) -> tuple[bytes, bytes]:
    """Public and secret key in a file.

    Raises:
        RobotError: there are none, or others than the file's owner may read it.
    """
    public, secret = _certificate(path)
    if secret is None:
        raise RobotError(f"{path} holds no secret key: give the file that ends in .key_secret.")
    if path.stat().st_mode & 0o077:
        raise RobotError(f"{path} may be read by others: chmod 600 {path}.")
    return public, secret


def require_admitted(folder: Path) -> None:
    """Refuse a folder of admitted clients' keys with which nobody would be admitted: one bad file locks all out.

    Raises:
        RobotError: it holds no key, or a file that is none.
    """
    paths = sorted(folder.glob("*.key"))
    if not paths:
        raise RobotError(f"{folder} holds no client's public key: copy that of each client there, such as client.key.")
    for path in paths:
        public_key(path)


def _certificate(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise RobotError(
            f"{path} holds no key: make keys with python -m mbrl_async.robot.keys FOLDER on both computers, and give "
            f"the client the server's {SERVER}.key and the server the client's {CLIENT}.key, in {ADMITTED}/."
        ) from error


def main(arguments: Sequence[str]) -> int:
    """Make keys in the folder that the command line names; the exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("Write python -m mbrl_async.robot.keys FOLDER.", file=sys.stderr)  # noqa: T201
        return 2
    try:
        make_keys(Path(arguments[0]))
    except RobotError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
