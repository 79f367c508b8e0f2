"""The numbers that motion of measured clips is compared in: the mesh's descriptors, a face model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from talkhead.evaluation.measure import Side
from talkhead.geometry.deep3d import MOTION_LAYOUT, N_MEASURED, NAME
from talkhead.geometry.motion import MotionModel
from talkhead.metrics.sequences import Standard

N_EXPRESSION = 16


class Described(NamedTuple):
    """Motion of a clip: descriptors ``(T, D)`` and which frames count, ``(T,)``."""

    motion: Tensor
    valid: Tensor


class MotionSpace(Protocol):
    """Numbers that motion is compared in.

    Attributes:
        name: Name that the scores carry.
        dim: How many numbers ``D``.
        parts: Columns of ``rotation`` and ``expression``.
        standard: Mean and deviation of each, ``(D,)``.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    @property
    def dim(self) -> int:
        """See the class."""
        ...

    @property
    def parts(self) -> Mapping[str, slice]:
        """See the class."""
        ...

    @property
    def standard(self) -> Standard:
        """See the class."""
        ...

    def describe(self, side: Side) -> Described | None:
        """Motion of a clip; None for one that is not described in these numbers."""
        ...


Spaces = Sequence[MotionSpace]


class FaceModelSpace:
    """Rotation and expression of Deep3DFaceRecon coefficient tracks as they come, not standardised.

    Source: paper 1, supplement I.2 (67 numbers; no standardisation is stated, reference-facts 8.3).
    """

    name = NAME
    dim = N_MEASURED
    parts = MOTION_LAYOUT
    standard = (torch.zeros(N_MEASURED), torch.ones(N_MEASURED))

    def describe(self, side: Side) -> Described | None:
        """Coefficients of a clip that has a track; all of its frames count."""
        if side.coefficients is None:
            return None
        return Described(side.coefficients, torch.ones(side.frames, dtype=torch.bool))


@dataclass(frozen=True)
class MeshSpace:
    """The suite's own motion descriptors, which every tracked face has.

    Attributes:
        model: Expression basis.
        standard: Mean and deviation of the descriptors.
        source: Where both come from, for the result.
    """

    model: MotionModel
    standard: Standard
    source: str
    name: str = "descriptor"

    @property
    def dim(self) -> int:
        """Number of descriptors."""
        return self.model.dim

    @property
    def parts(self) -> Mapping[str, slice]:
        """Columns of the descriptors by name."""
        return self.model.layout

    @classmethod
    def of_clips(cls, names: Sequence[str], load: Callable[[str], Side]) -> MeshSpace:
        """Fitted on real clips: scores then compare on these clips only.

        Args:
            names: Names of the clips.
            load: A real clip by its name; each is read twice.

        Raises:
            DataError: Faces that never move.
        """
        model = MotionModel.fit((load(name).landmarks.numpy() for name in names), N_EXPRESSION)
        fitted = cls(model, (torch.zeros(model.dim), torch.ones(model.dim)), "")
        rows = torch.cat([fitted.encode(side)[side.tracked] for side in map(load, names)]).double()
        standard = (rows.mean(0), rows.std(0))
        return cls(model, standard, f"fitted on these {len(names)} real clips")

    def encode(self, side: Side) -> Tensor:
        """Descriptors of a clip, ``(T, D)``."""
        return torch.from_numpy(self.model.encode(side.landmarks.numpy()))

    def describe(self, side: Side) -> Described:
        """Descriptors of a clip; frames without a face do not count."""
        return Described(self.encode(side), side.tracked)
