"""The true state of a drawn face: what the embedded corpus knows and a real corpus never tells."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

LIP_FIELDS = ("jaw", "width", "pucker", "press")
NONLIP_FIELDS = ("rotation", "translation", "scale", "brows", "lids", "gaze")


@dataclass
class FaceState:
    """Every degree of freedom of a drawn face over ``T`` frames at 25 fps.

    Attributes:
        rotation: ``(T, 3)`` pitch, yaw, roll in radians; ``R = Rz(roll) @ Ry(yaw) @ Rx(pitch)`` in the
            picture frame (x right, y down, z away from the viewer).
        translation: ``(T, 2)`` shift of the head centre (x right, y down) in picture widths.
        scale: ``(T,)`` head size relative to the identity's own size, about 1.
        brows: ``(T, 2)`` raise of the picture-left and picture-right brow, -1 (lowered) to 1 (raised).
        lids: ``(T, 2)`` opening of the picture-left and picture-right eye, 0 (shut) to 1 (at rest), 1.3
            at most.
        gaze: ``(T, 2)`` iris shift, x right and y down, -1 to 1 of the eye's free travel.
        jaw: ``(T,)`` mouth opening, 0 (closed) to 1.
        width: ``(T,)`` mouth width, -1 (narrow) to 1 (spread).
        pucker: ``(T,)`` lip protrusion and rounding, 0 to 1.
        press: ``(T,)`` lips pressed together, 0 to 1 (bilabials, silence at rest about 0.2).
    """

    rotation: FloatArray
    translation: FloatArray
    scale: FloatArray
    brows: FloatArray
    lids: FloatArray
    gaze: FloatArray
    jaw: FloatArray
    width: FloatArray
    pucker: FloatArray
    press: FloatArray

    @property
    def frames(self) -> int:
        """Number of frames ``T``."""
        return int(self.rotation.shape[0])

    @classmethod
    def neutral(cls, frames: int = 1) -> FaceState:
        """A frontal face at rest: eyes open, mouth closed."""
        zeros = np.zeros(frames, np.float32)
        pair = np.zeros((frames, 2), np.float32)
        return cls(
            rotation=np.zeros((frames, 3), np.float32),
            translation=pair.copy(),
            scale=np.ones(frames, np.float32),
            brows=pair.copy(),
            lids=np.ones((frames, 2), np.float32),
            gaze=pair.copy(),
            jaw=zeros.copy(),
            width=zeros.copy(),
            pucker=zeros.copy(),
            press=zeros.copy(),
        )

    def arrays(self) -> dict[str, FloatArray]:
        """Field name -> array, for saving."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def matrix(self, names: tuple[str, ...]) -> FloatArray:
        """The named fields side by side, ``(T, D)``; see :data:`LIP_FIELDS`, :data:`NONLIP_FIELDS`."""
        return np.concatenate([getattr(self, n).reshape(self.frames, -1) for n in names], axis=1)
