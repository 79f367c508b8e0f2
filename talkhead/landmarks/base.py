"""What a face tracker must offer, so that the library does not depend on one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Landmarks = NDArray[np.float32]


class Landmarker(Protocol):
    """Finds the 478 points of the refined face mesh.

    Points are in pixel units of the picture given: x right and y down from its top left corner, z
    away from the viewer in the same unit, ``(478, 3)`` float32.
    """

    @property
    def name(self) -> str:
        """Name and version, recorded in prepared sets."""
        ...

    def track(self, frames: Iterable[Picture]) -> Iterator[Landmarks | None]:
        """Follow one face through consecutive RGB frames ``(H, W, 3)``; None where it is lost.

        Every call is a new clip: nothing is remembered from the one before.
        """
        ...

    def detect(self, frame: Picture) -> list[Landmarks]:
        """All faces of one picture, largest first, without memory of other pictures."""
        ...
