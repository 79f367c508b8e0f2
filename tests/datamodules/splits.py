"""What a data module serves for a need, split by split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamodules.base import TalkheadDataModule
from talkhead.batch import Needs


def one_of_each_split(root: Path, needs: Needs) -> Iterator[Any]:
    """The first batch of two for training, validation, test and prediction."""
    data = TalkheadDataModule(str(root), batch_size=2, epoch_items=4)
    data.attach(needs)
    for stage, loader in (
        ("fit", data.train_dataloader),
        ("fit", data.val_dataloader),
        ("test", data.test_dataloader),
        ("predict", data.predict_dataloader),
    ):
        data.setup(stage)
        yield next(iter(loader()))
