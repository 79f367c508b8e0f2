"""Every validation's scores in one file, for the figures that show training."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from talkhead.report.curves import FILE_NAME, CurvePoint, read_curves, write_curves

PREFIX = "val/"


class ValidationCurves(Callback):
    """Append the ``val/…`` scores of each validation of a fit to ``curves.csv`` in the run folder.

    A resumed fit keeps the lines up to the batch it goes on from and drops later ones, which it will
    write again; a fit from the start drops all. The format is that of :mod:`talkhead.report.curves`.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what a stopped fit had written beyond the checkpoint this one begins with."""
        path, step = _path(trainer), _batches_seen(trainer, pl_module)
        if not _writes(trainer) or not path.is_file():
            return
        known = read_curves(path)
        kept = [point for point in known if point.step <= step]
        if len(kept) < len(known):
            write_curves(path, kept)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write on rank 0; every rank takes part in reading the scores."""
        scores = {
            name: float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(PREFIX)
        }
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not (fitting and scores and _writes(trainer)):
            return
        path, step = _path(trainer), _batches_seen(trainer, pl_module)
        known = read_curves(path) if path.is_file() else []
        # A fit resumed within an epoch may validate again at the very batch it began with.
        earlier = [point for point in known if point.step < step]
        write_curves(path, earlier + [CurvePoint(step, *score) for score in scores.items()])


def _writes(trainer: Trainer) -> bool:
    """One rank does, unless the run is a trial of one batch."""
    return trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)


def _path(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / FILE_NAME


def _batches_seen(trainer: Trainer, pl_module: LightningModule) -> int:
    """Training batches over all fits; with one optimiser the same as its steps."""
    return int(getattr(pl_module, "batches_seen", trainer.global_step))
