"""Postures of the arm, found by inverse kinematics, and a controller that knows them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from mbrl_async.robot.arm import Arm
from mbrl_async.robot.interface import RealArray

STIFFNESS = np.array([3.0, 3.0, 1.5, 1.5, 0.6, 0.35, 0.4])  # N m / rad
DAMPING = np.array([1.2, 1.2, 0.36, 0.3, 0.06, 0.02, 0.0])  # N m s / rad


def posture_at(arm: Arm, points: RealArray, guess: RealArray) -> RealArray:
    """Joint angles (J,), within the limits, that bring the tracked points as near to these, (P, 3), as can be."""

    def errors(posture: RealArray) -> RealArray:
        arm.place(posture)
        return 100 * (arm.state().points - points).ravel()

    lower = np.maximum(arm.limits.lower, -2 * np.pi)
    upper = np.minimum(arm.limits.upper, 2 * np.pi)
    found: RealArray = least_squares(errors, guess, bounds=(lower, upper)).x
    return found


def servo_torques(target: RealArray, positions: RealArray, velocities: RealArray) -> RealArray:
    """Torques (J,) that bring the joints to the target, at five of them a second."""
    return STIFFNESS * (target - positions) - DAMPING * velocities
