"""Pictures of what MuJoCo simulates."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

PICTURE_SIZE = (480, 640)
"""Rows and columns."""


class Painter:
    """Draws the states of one model; it looks for a renderer only when it is asked to draw."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._renderer: mujoco.Renderer | None = None  # most models are never seen

    def draw(self, data: mujoco.MjData, camera: int | str) -> NDArray[np.uint8]:
        """What the camera sees, (480, 640, 3); -1 is one that sees all.

        Raises:
            RuntimeError: this machine has no renderer that MuJoCo can use.
        """
        try:
            if self._renderer is None:
                self._renderer = mujoco.Renderer(self._model, *PICTURE_SIZE)
            self._renderer.update_scene(data, camera=camera)
            picture: NDArray[np.uint8] = self._renderer.render()
        except Exception as error:  # MuJoCo and its bindings of OpenGL raise whatever they meet
            raise RuntimeError(
                f"MuJoCo found no renderer ({' '.join(str(error).split())}): set MUJOCO_GL=egl or MUJOCO_GL=osmesa, "
                "and install libegl1 or libosmesa6 (names of Debian's packages)."
            ) from error
        return picture

    def close(self) -> None:
        """Give the renderer back."""
        if self._renderer is not None:
            self._renderer.close()
