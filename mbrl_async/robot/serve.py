"""Put a robot on the network: `python -m mbrl_async.robot.serve env=arm_reach`, with settings as in conf/serve.yaml."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from pydantic import BaseModel, PositiveInt

from mbrl_async.commands import CONFIG_DIRECTORY, command_settings, help_wanted
from mbrl_async.config import ConfigError, build
from mbrl_async.robot.interface import RobotError
from mbrl_async.robot.server import RobotServer
from mbrl_async.search_path import search_path
from mbrl_async.settings import STRICT

logger = logging.getLogger(__name__)


class Settings(BaseModel):
    """What `conf/serve.yaml` holds."""

    model_config = STRICT
    env: str
    robot: str
    config_dir: str | None
    address: str
    keys: str
    watchdog_periods: PositiveInt


def make_server(settings: Settings) -> RobotServer:
    """The server of the task's robot, listening.

    Raises:
        ConfigError: there is no such task or robot, or it cannot be made.
        RobotError: there are no keys, nobody is admitted, or the address cannot be listened at.
    """
    node = _robot(settings)
    robot = build(node)
    if not robot.real_time:
        raise ConfigError(f"robot={settings.robot} moves with control steps alone: serve robot=simulated, or your own.")
    return RobotServer(
        robot=robot,
        scene=node.get("scene", settings.env),
        address=settings.address,
        keys=Path(settings.keys),
        watchdog_periods=settings.watchdog_periods,
    )


def _robot(settings: Settings) -> DictConfig:
    overrides = [f"env={settings.env}", f"env/robot={settings.robot}"]
    if settings.config_dir is not None:
        overrides += search_path([f"file://{Path(settings.config_dir).resolve()}"])
    try:
        with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
            robot: DictConfig = compose("config", overrides=overrides).env.robot
    except HydraException as error:
        raise ConfigError(
            f"env={settings.env} has no robot={settings.robot} ({' '.join(str(error).split())})."
        ) from error
    return robot


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal; the exit status: 0, or 2 if that cannot be done."""
    if help_wanted("serve", arguments):
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        server = make_server(command_settings("serve", arguments, Settings))
    except (ConfigError, RobotError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    logger.info("A robot is served at %s until Ctrl-C.", server.address)
    server.run(ended.is_set)
    logger.info("The robot is stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
