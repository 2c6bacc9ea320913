"""HalfCheetah that says when the first control step begins, so that start-up can be timed from outside."""

from __future__ import annotations

from mbrl_async.envs.mujoco_tasks import HalfCheetah
from mbrl_async.types import FloatArray

ANNOUNCEMENT = "the first control step begins"


class AnnouncingHalfCheetah(HalfCheetah):
    """Announces on the standard output, once."""

    _announced = False

    def advance(self, action: FloatArray) -> FloatArray:
        """See `HalfCheetah`."""
        if not self._announced:
            self._announced = True
            print(ANNOUNCEMENT, flush=True)
        return super().advance(action)
