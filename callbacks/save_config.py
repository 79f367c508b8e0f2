"""The configuration of a run, saved where the run lives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from talkhead.text_files import write_text_atomic


class SaveConfig(SaveConfigCallback):
    """Write the full configuration into the run folder, once, on rank 0.

    ``fit`` writes ``config.yaml``, the other commands ``config_<command>.yaml``, all into
    ``trainer.default_root_dir``: two runs never share a file as they do with Lightning's own
    callback (Lightning-AI/pytorch-lightning issue 7679). A different ``config.yaml`` already there
    is kept as ``config.<n>.yaml``. W&B runs get the nested configuration under ``cli`` and a copy
    of the file.
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Any, subcommand: str = "fit"
    ) -> None:
        """Keep what LightningCLI parsed.

        Args:
            parser: Parser of the subcommand.
            config: Its parsed configuration.
            subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        """
        super().__init__(parser, config, save_to_log_dir=False)
        self.subcommand = subcommand

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file; called on rank 0 only, so no collective (``trainer.log_dir``) in here."""
        name = "config.yaml" if self.subcommand == "fit" else f"config_{self.subcommand}.yaml"
        text = self.parser.dump(self.config, skip_unset=False, format="yaml")
        write_config(Path(trainer.default_root_dir) / name, text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                run = logger.experiment
                run.config.update({"cli": yaml.safe_load(text)}, allow_val_change=True)
                if os.path.isdir(run.dir):  # noqa: PTH112 - W&B's disabled mode has no folder
                    write_config(Path(run.dir) / name, text)


def write_config(path: Path, text: str) -> None:
    """Write a configuration, keeping a different earlier one under a numbered name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        number = 1
        while (older := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
            number += 1
        os.replace(path, older)  # noqa: PTH105 - the atomic form, as for every file of the suite
    write_text_atomic(path, text)
