"""HDTF: a few hundred talking heads in high definition, minutes from each speaker."""

from __future__ import annotations

from typing import ClassVar

from datamodules.base import TalkheadDataModule


class HDTFDataModule(TalkheadDataModule):
    """A set that ``talkhead prepare --dataset hdtf`` wrote; see :class:`TalkheadDataModule`."""

    datasets: ClassVar[tuple[str, ...]] = ("hdtf",)
