"""The numbers of one test run in one file, for tables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.json_files import file_digest, plain, write_json
from callbacks.run_manifest import data_block, stage_name
from talkhead.ranks import gather_rows
from talkhead.report.results import clips_csv
from talkhead.report.units import unit_of
from talkhead.text_files import write_text_atomic

FORMAT = 1
DATA_KEYS = ("dataset", "synthetic", "split", "clips", "frames", "data_fingerprint")


class MetricsJson(Callback):
    """Write ``metrics.json`` into the run folder after ``test``, and ``per_clip.csv`` if there are clips.

    ``metrics`` are the logged ``test/…`` values without the prefix; ``per_clip`` is what the stage
    left in ``per_clip_results`` (a list of ``{"clip": id, name: value, …}``), gathered from all
    ranks, each clip once. ``settings`` are the units, and rates and crop of the data.
    """

    def __init__(
        self,
        variant: str | None = None,
        command: str = "",
        config_digest: str = "",
        extractor: str | None = None,
    ) -> None:
        """Take what only the command line knows.

        Args:
            variant: Name of the row in a table, by default the stage's.
            command: The command as typed.
            config_digest: Hash of the configuration.
            extractor: Name of the feature extractor behind the metrics; by default the face tracker
                that prepared the data.
        """
        self.variant = variant
        self.command = command
        self.config_digest = config_digest
        self.extractor = extractor

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file on rank 0; every rank takes part in gathering."""
        clips = gather_rows(list(getattr(pl_module, "per_clip_results", [])))
        if not trainer.is_global_zero:
            return
        stage = stage_name(pl_module)
        checkpoint = trainer.ckpt_path
        metrics = {
            name.removeprefix("test/"): value
            for name, value in sorted(trainer.callback_metrics.items())
        }
        content = {
            "format": FORMAT,
            "stage": stage,
            "variant": self.variant or stage,
            "seed": int(os.environ.get("PL_GLOBAL_SEED", "0")),
            "data": data_facts(trainer, "test"),
            "extractor": self.extractor or data_block(trainer).get("landmarker"),
            "command": self.command,
            "checkpoint": {
                "path": str(checkpoint) if checkpoint else None,
                "digest": file_digest(checkpoint) if checkpoint else None,
            },
            "config_digest": self.config_digest,
            "metrics": metrics,
            "per_clip": clips,
            "settings": measured_how(trainer, metrics),
        }
        folder = Path(trainer.default_root_dir)
        if clips:
            write_text_atomic(folder / "per_clip.csv", clips_csv([plain(row) for row in clips]))
        write_json(folder / "metrics.json", content)


def measured_how(trainer: Trainer, metrics: Iterable[str]) -> dict[str, Any]:
    """Rates and crop of the data, where it says them, and the units of the metrics that have one."""
    known = data_block(trainer)
    audio, video = known.get("audio", {}), known.get("video", {})
    facts: dict[str, Any] = {}
    if "fps" in video:
        facts["fps"] = video["fps"]
    if "sample_rate_hz" in audio:
        facts["sample_rate_hz"] = audio["sample_rate_hz"]
    if {"size", "crop"} <= set(video):
        facts["crop"] = f"{video['size']} px, {video['crop']}"
    return facts | {"units": {name: unit for name in metrics if (unit := unit_of(name))}}


def data_facts(trainer: Trainer, split: str) -> dict[str, Any]:
    """The data block's entries a table needs."""
    known = data_block(trainer)
    prepared = getattr(getattr(trainer, "datamodule", None), "prepared", None)
    if prepared is not None:
        rows = prepared.rows(split)
        known |= {"clips": len(rows), "frames": sum(row.frames for row in rows)}
    return {key: known[key] for key in DATA_KEYS if key in known} | {"split": split}
