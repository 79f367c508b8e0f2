"""What was run, with what, on what: run.json and lineage.json in the run folder."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

import talkhead
from callbacks.json_files import file_digest, write_json

RECORDED_VERSIONS = (
    "torch", "torchvision", "torchaudio", "lightning", "torchmetrics", "jsonargparse", "numpy",
    "mediapipe", "av", "wandb",
)  # fmt: skip


class RunManifest(Callback):
    """Record a run: command, versions, commit, seed, devices, data, sources, times and status.

    ``fit`` writes ``run.json``, the other commands ``run_<command>.json``. ``lineage.json`` (fit
    only) names every checkpoint the run was built from. The status is ``running`` until the run
    ends as ``finished``, ``interrupted`` or ``failed``; a killed run stays ``running`` without an
    end time. The id of a W&B run is kept in checkpoints, so that a resumed fit continues the same
    W&B run.
    """

    def __init__(self, command: str = "", subcommand: str = "fit", config_digest: str = "") -> None:
        """Take what only the command line knows.

        Args:
            command: The command as typed.
            subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
            config_digest: Hash of the configuration.
        """
        self.command = command
        self.subcommand = subcommand
        self.config_digest = config_digest
        self.wandb_id: str | None = None
        self.content: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the record of a fit."""
        self._start(trainer, pl_module)
        write_if_first(trainer, self._folder(trainer) / "lineage.json", lineage(pl_module))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the record of ``validate`` (validation inside a fit is part of the fit)."""
        if self.subcommand == "validate":
            self._start(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the record of a test."""
        self._start(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the record of a prediction."""
        self._start(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the record."""
        self._end(trainer, "finished")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the record of a run that did not reach its end."""
        interrupted = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        self.content["error"] = f"{type(exception).__name__}: {exception}"[:500]
        self._end(trainer, "interrupted" if interrupted else "failed")

    def state_dict(self) -> dict[str, Any]:
        """The W&B run id, for the checkpoint."""
        return {"wandb_id": self.wandb_id}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The id of the W&B run this checkpoint came from."""
        self.wandb_id = state_dict.get("wandb_id")

    @property
    def file_name(self) -> str:
        """Name of the record in the run folder."""
        return "run.json" if self.subcommand == "fit" else f"run_{self.subcommand}.json"

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                self.wandb_id = logger.version
                monitor, mode = (
                    getattr(pl_module, "monitor", None),
                    getattr(pl_module, "mode", "min"),
                )
                if monitor and trainer.is_global_zero:
                    logger.experiment.define_metric(monitor, summary=mode)
        checkpoint = trainer.ckpt_path
        self.content = {
            "format": 1,
            "command": self.command,
            "subcommand": self.subcommand,
            "stage": stage_name(pl_module),
            "config_digest": self.config_digest,
            "seed": int(os.environ.get("PL_GLOBAL_SEED", "0")),
            "devices": devices(trainer),
            "versions": versions(),
            "git_commit": source_commit(),
            "data": data_block(trainer),
            "checkpoint": {"path": str(checkpoint), "digest": file_digest(checkpoint)}
            if checkpoint
            else None,
            "sources": sources(pl_module),
            "parameters": sum(p.numel() for p in pl_module.parameters()),
            "wandb_id": self.wandb_id,
            "started": now(),
            "ended": None,
            "status": "running",
        }
        write_if_first(trainer, self._folder(trainer) / self.file_name, self.content)

    def _end(self, trainer: Trainer, status: str) -> None:
        if self.content.get("status") != "running":
            return
        steps = {"global_step": trainer.global_step, "epochs": trainer.current_epoch}
        self.content |= {"status": status, "ended": now(), **steps}
        write_if_first(trainer, self._folder(trainer) / self.file_name, self.content)

    @staticmethod
    def _folder(trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir)


def write_if_first(trainer: Trainer, path: Path, content: dict[str, Any]) -> None:
    """Write on rank 0 only."""
    if trainer.is_global_zero:
        write_json(path, content)


def data_block(trainer: Trainer) -> dict[str, Any]:
    """What the datamodule says of its data, empty without one that says anything."""
    block = getattr(getattr(trainer, "datamodule", None), "data_block", None)
    return dict(block()) if callable(block) else {}


def stage_name(pl_module: LightningModule) -> str:
    """The stage's name, or the class name of a module that is no stage of the suite."""
    name = getattr(type(pl_module), "stage_name", None)
    return str(name()) if callable(name) else type(pl_module).__name__


def sources(pl_module: LightningModule) -> dict[str, dict[str, Any]]:
    """Where each consumed component came from, with the digest of its checkpoint file."""
    found: dict[str, dict[str, Any]] = {
        k: dict(v) for k, v in getattr(pl_module, "sources", {}).items()
    }
    for name in getattr(pl_module, "consumes", ()):
        origin = getattr(getattr(pl_module, name, None), "origin", None)
        if origin is not None:
            found[name] = {key: origin[key] for key in ("path", "stage", "digest")}
    for entry in found.values():
        entry["file_digest"] = file_digest(entry["path"])
    return found


def lineage(pl_module: LightningModule) -> dict[str, Any]:
    """The graph a W&B artifact graph would show, as a file that needs no server."""
    used = sources(pl_module)
    return {
        "format": 1,
        "stage": stage_name(pl_module),
        "consumes": used,
        "exports": list(getattr(pl_module, "exports", ())),
        "checkpoints": sorted({str(entry["path"]) for entry in used.values()}),
    }


def devices(trainer: Trainer) -> dict[str, Any]:
    """Accelerator, count and host."""
    return {
        "accelerator": type(trainer.accelerator).__name__,
        "strategy": type(trainer.strategy).__name__,
        "world_size": trainer.world_size,
        "precision": str(trainer.precision),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def versions() -> dict[str, str]:
    """Versions of Python, the suite and the libraries that decide its numbers."""
    found = {"python": sys.version.split()[0], "talkhead": talkhead.__version__}
    for name in RECORDED_VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def source_commit() -> str | None:
    """Commit of the suite's source tree, ``+changes`` when it was edited; None outside git."""
    package = Path(talkhead.__file__).parent
    try:
        # An installed copy inside somebody's repository is not that repository's code.
        tracked = _git(package, "ls-files", "__init__.py")
        if not tracked:
            return None
        commit = _git(package, "rev-parse", "HEAD")
        return f"{commit}+changes" if _git(package, "status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def now() -> str:
    """Time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()
