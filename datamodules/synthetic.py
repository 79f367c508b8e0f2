"""The embedded corpus: drawn faces whose true state is known."""

from __future__ import annotations

from typing import ClassVar

from datamodules.base import TalkheadDataModule


class SyntheticDataModule(TalkheadDataModule):
    """A set that ``talkhead prepare --dataset embedded`` wrote; see :class:`TalkheadDataModule`."""

    datasets: ClassVar[tuple[str, ...]] = ("embedded", "synthetic")
