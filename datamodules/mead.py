"""MEAD: actors in the laboratory, eight emotions at three levels."""

from __future__ import annotations

from typing import ClassVar

from datamodules.base import TalkheadDataModule


class MEADDataModule(TalkheadDataModule):
    """A set that ``talkhead prepare --dataset mead`` wrote; see :class:`TalkheadDataModule`."""

    datasets: ClassVar[tuple[str, ...]] = ("mead",)
