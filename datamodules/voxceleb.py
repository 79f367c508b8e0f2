"""VoxCeleb2: many speakers in the wild, 224 px crops, one to a few clips a video."""

from __future__ import annotations

from typing import ClassVar

from datamodules.base import TalkheadDataModule


class VoxCelebDataModule(TalkheadDataModule):
    """A set that ``talkhead prepare --dataset voxceleb2`` wrote; see :class:`TalkheadDataModule`."""

    datasets: ClassVar[tuple[str, ...]] = ("voxceleb2",)
