"""MuJoCo's warnings in Python's log."""

from __future__ import annotations

import logging

import mujoco

logger = logging.getLogger(__name__)

STATE_WARNINGS = [
    int(warning)
    for warning in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
    )
]
"""The counters, in `MjData.warning.number`, of states that MuJoCo cannot simulate."""


def take_over_mujoco_warnings() -> None:
    """Send MuJoCo's warnings to Python's log; by itself it also writes MUJOCO_LOG.TXT into the working directory."""
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_log_warning)


def _log_warning(message: str) -> None:
    # Gymnasium's half_cheetah.xml still uses this attribute; the user can do nothing about it.
    if "compiler attribute 'settotalmass' is deprecated" not in message:
        logger.warning("MuJoCo: %s", message)
