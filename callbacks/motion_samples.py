"""Sampled and real motion of a test, kept for plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from talkhead.report.samples import FILE_NAME, MotionSamples

Motion = NDArray[np.float32]


class MotionSamplesFile(Callback):
    """Write ``samples.npz`` after the test of a motion prior: one take a clip, as descriptors.

    Codes are read out by the prior's own read-out; the lip part is that of the speech on both sides.
    Under several ranks the clips of rank 0 are kept, which is plenty for a picture.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file on rank 0, if there is anything to write."""
        stage: Any = pl_module
        scores, readout = getattr(stage, "test_scores", None), getattr(stage, "readout", None)
        if scores is None or readout is None or not trainer.is_global_zero or not scores.samples:
            return
        lip_head = stage.lip_head.cpu()
        generated: list[Motion] = []
        real: list[Motion] = []
        for sample in scores.samples:
            with torch.no_grad():
                lip = lip_head(sample.audio)
                for codes, where in ((sample.generated[0], generated), (sample.real, real)):
                    where.append(readout.cpu()(torch.cat([codes, lip], -1)).numpy())
        frames = np.array([len(r) for r in real])
        valid = np.arange(frames.max()) < frames[:, None]
        MotionSamples(
            generated=_padded(generated, valid.shape[1]),
            real=_padded(real, valid.shape[1]),
            valid=valid,
            clips=[sample.clip for sample in scores.samples],
            layout=readout.motion_model().layout,
        ).write(Path(trainer.default_root_dir) / FILE_NAME)


def _padded(clips: list[Motion], frames: int) -> Motion:
    """Clips ``(T_i, D)`` as one array ``(N, T, D)``, zeros behind the short ones."""
    return np.stack([np.pad(c, ((0, frames - len(c)), (0, 0))) for c in clips])
