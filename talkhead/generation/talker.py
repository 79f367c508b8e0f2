"""What all systems of ``talkhead generate`` share: a trained model that makes a face talk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from talkhead.checkpoint import read_block, read_checkpoint
from talkhead.errors import StageLinkError
from talkhead.generation.portrait import Picture, Portrait
from talkhead.generation.request import Request
from talkhead.geometry.crop import policy_share
from talkhead.stages.base import Stage

S = TypeVar("S", bound=Stage)


@dataclass
class Talker(ABC):
    """A trained model together with everything its checkpoint carries.

    Attributes:
        stages: Names of the stages whose checkpoints it reads.
        component: Name of the component that makes the motion.
        advice: What to do about a checkpoint of another stage.
        block: The checkpoint's talkhead block; empty for a model that does not come from a file.
    """

    stages: ClassVar[tuple[str, ...]]
    component: ClassVar[str]
    advice: ClassVar[str] = ""
    block: dict[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a checkpoint of one of :attr:`stages`.

        Raises:
            StageLinkError: It belongs to another stage.
        """
        return cls.of(read_block(read_checkpoint(path), path), path)

    @classmethod
    @abstractmethod
    def of(cls, block: dict[str, Any], path: Path | str) -> Self:
        """As :meth:`load`, of a checkpoint whose talkhead block has been read already."""

    @classmethod
    def check_stage(cls, block: dict[str, Any], path: Path | str) -> None:
        """Refuse a checkpoint that belongs to none of :attr:`stages`.

        Raises:
            StageLinkError: It does.
        """
        if block["stage"] not in cls.stages:
            raise StageLinkError(
                f"{path} is a checkpoint of stage {block['stage']}; expected "
                f"{' or '.join(cls.stages)}.{cls.advice and f' {cls.advice}'}"
            )

    @property
    def digest(self) -> str:
        """Digest of the weights that make the motion."""
        digest: str = self.block["components"][self.component]["digest"]
        return digest

    @property
    def face_share(self) -> float:
        """Share of the crop that the face took in training."""
        return policy_share(self.block["video"]["crop"])


class PortraitTalker(Talker):
    """A talker that animates one portrait as a :class:`Request` says."""

    @abstractmethod
    def animate(
        self, portrait: Portrait, wave: NDArray[np.float32], request: Request
    ) -> Iterator[list[Picture]]:
        """For every frame of speech one picture a column.

        Raises:
            ConfigError: Options of other systems.
            StageLinkError: A renderer the checkpoint does not carry.
        """

    @abstractmethod
    def tags(self, request: Request) -> dict[str, Any]:
        """How the motion was made, for the video's container."""


def load_stage(stage_class: type[S], path: Path | str) -> S:
    """The stage of a checkpoint, on the CPU, in eval mode and frozen."""
    stage = stage_class.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    return stage.eval().requires_grad_(False)
