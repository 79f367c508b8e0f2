"""Checkpoints on disk: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class WholeFileCheckpoints(TorchCheckpointIO):
    """Write a checkpoint beside its final place, then rename it.

    Lightning's own writer goes through the system's temporary folder. Where that is another file
    system, its last step is a copy, and a full disk or a kill leaves half a file in the place of the
    checkpoint it was to replace. Remote addresses (``s3://…``) are left to Lightning.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,
    ) -> None:
        """As the base class; on failure the old file is still there and nothing else is."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
