"""A callback for the tests of interrupted training."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class LossLog(Callback):
    """Append ``<batches so far> <loss, exactly>`` to a file; at batch ``kill_at`` die by SIGKILL."""

    def __init__(self, path: str, kill_at: int | None = None) -> None:
        self.path, self.kill_at = Path(path), kill_at

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        logged = {
            k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/")
        }
        line = " ".join(f"{name}={value.hex()}" for name, value in sorted(logged.items()))
        with self.path.open("a") as file:
            file.write(f"{trainer.fit_loop.total_batch_idx} {line}\n")
        if trainer.fit_loop.total_batch_idx + 1 == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
