"""What every stage shares: loss weighting, reproducible steps, frozen parts and the checkpoint block."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from talkhead.batch import FeatureSource, Needs
from talkhead.checkpoint import (
    BLOCK,
    FORMAT,
    Source,
    component_entry,
    read_block,
    resolve,
)
from talkhead.errors import ConfigError, StageLinkError
from talkhead.networks.batch_norm import share_batch_norm
from talkhead.networks.component import Component
from talkhead.seeds import base_seed, reseed, step_seed
from talkhead.specs import AudioSpec, VideoSpec, check_same_clock, spec_dict

C = TypeVar("C", bound=Component)


class Stage(LightningModule):
    """Base class of all stages.

    A subclass names the components it ``consumes`` (frozen, resolved from earlier checkpoints) and
    ``exports``; each is an attribute of the same name. It implements :meth:`needs` and
    :meth:`losses`. A loss term is named once: the key of ``losses()`` is the key of ``weights`` in
    YAML and of ``train/loss/<key>`` in the log; a weight of 0 still computes and logs the term.

    Every random number of a training step follows from (seed, batches seen, rank): the global
    generator is re-seeded before each batch, so a resumed run repeats the step an uninterrupted run
    would have made.
    """

    consumes: ClassVar[tuple[str, ...]] = ()
    exports: ClassVar[tuple[str, ...]] = ()
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    default_weights: ClassVar[Mapping[str, float]] = {}

    def __init__(self, weights: dict[str, float] | None = None, image_size: int = 224) -> None:
        """Check the loss weights and set the clocks.

        Args:
            weights: Overrides of ``default_weights`` by term name.
            image_size: Side of the square crops this stage works on, in pixels.

        Raises:
            ConfigError: A weight names no loss term of this stage.
        """
        super().__init__()
        unknown = sorted(set(weights or {}) - set(self.default_weights))
        if unknown:
            raise ConfigError(
                f"{type(self).__name__} has no loss term {', '.join(unknown)}; "
                f"expected some of {', '.join(self.default_weights) or 'none'}."
            )
        self.loss_weights = {**self.default_weights, **(weights or {})}
        self.audio_spec = AudioSpec()
        self.video_spec = VideoSpec(size=image_size)
        self.batches_seen = 0
        self.sources: dict[str, dict[str, Any]] = {}
        self.per_clip_results: list[dict[str, Any]] = []
        self.shared_batch_norm = True

    # -- what a subclass says about itself -------------------------------------------------------

    @classmethod
    def stage_name(cls) -> str:
        """File name of the stage, the name used in checkpoints and reports."""
        return cls.__module__.rpartition(".")[2]

    def needs(self) -> Needs:
        """The sample this stage asks the datamodule for."""
        raise ConfigError(f"{type(self).__name__} does not say what data it needs; define needs().")

    def feature_sources(self) -> dict[str, FeatureSource]:
        """Features of frozen encoders to cache before training, by name."""
        return {}

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Every loss term, unweighted, by name."""
        raise ConfigError(f"{type(self).__name__} does not define losses().")

    # -- losses ----------------------------------------------------------------------------------

    def weighted(
        self, terms: Mapping[str, Tensor], prefix: str, batch_size: int | None = None
    ) -> Tensor:
        """Weighted sum of loss terms; logs each term and the sum.

        Args:
            terms: Scalars by term name.
            prefix: ``"train"``, ``"val"`` or ``"test"``.
            batch_size: Number of samples, for epoch averages.

        Returns:
            The scalar ``sum(weight * term)``.

        Raises:
            ConfigError: A term has no weight.
        """
        missing = sorted(set(terms) - set(self.loss_weights))
        if missing:
            raise ConfigError(
                f"no weight for the loss terms {', '.join(missing)}; list them in default_weights."
            )
        total = torch.stack([self.loss_weights[k] * v.float() for k, v in terms.items()]).sum()
        logged = {f"{prefix}/loss/{k}": v.detach() for k, v in terms.items()}
        logged[f"{prefix}/loss"] = total.detach()
        if self._trainer is not None:
            self.log_dict(
                logged, batch_size=batch_size, sync_dist=prefix != "train", add_dataloader_idx=False
            )
        return total

    # -- reproducibility -------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Count the batch and re-seed the global generator from (seed, batches seen, rank)."""
        self.batches_seen += 1
        reseed(step_seed(base_seed(), self.batches_seen, self.global_rank), self.device)

    @property
    def fused_adam(self) -> bool:
        """Whether Adam runs as one operation, which on a CPU saves most of its time.

        On a GPU it would rule out clipping together with 16-bit loss scaling.
        """
        return self.device.type == "cpu"

    # -- several ranks ---------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Batch statistics over all ranks, so that two ranks compute what one computes.

        A stage may leave them per rank by setting ``shared_batch_norm`` to False.
        """
        if self.shared_batch_norm and self._trainer is not None and self.trainer.world_size > 1:
            share_batch_norm(self)

    # -- frozen parts ----------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Training mode for the trainable parts only: a frozen component stays in eval mode."""
        super().train(mode)
        for name in self.consumes:
            part = getattr(self, name, None)
            if isinstance(part, Component) and not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    def on_fit_start(self) -> None:
        """Take the crop policy from the data; refuse consumed parts or data with another clock."""
        data = self._data_block()
        if "video" in data:
            self.video_spec = replace(self.video_spec, crop=data["video"]["crop"])
        mine = {"audio": spec_dict(self.audio_spec), "video": spec_dict(self.video_spec)}
        for name in self.consumes:
            origin = getattr(getattr(self, name, None), "origin", None)
            if origin is not None:
                for clock, spec in mine.items():
                    check_same_clock(f"{origin['path']} ('{name}')", spec, origin[clock])
        for clock, spec in mine.items():
            if clock in data:
                check_same_clock("the prepared data", spec, data[clock])

    # -- checkpoints -----------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the talkhead block; swap consumed paths for specs so predecessors may be deleted."""
        names = dict.fromkeys((*self.exports, *self.consumes))
        parts = {
            n: getattr(self, n) for n in names if isinstance(getattr(self, n, None), Component)
        }
        sources = dict(self.sources)
        for name in self.consumes:
            origin = getattr(parts.get(name), "origin", None)
            if origin is not None:
                sources[name] = {k: origin[k] for k in ("path", "stage", "digest")}
        checkpoint[BLOCK] = {
            "format": FORMAT,
            "stage": self.stage_name(),
            "components": {
                name: component_entry(part, name, checkpoint["state_dict"])
                for name, part in parts.items()
            },
            "audio": spec_dict(self.audio_spec),
            "video": spec_dict(self.video_spec),
            "data": self._data_block(),
            "sources": sources,
            "batches_seen": self.batches_seen,
            "seed": base_seed(),
        }
        saved = checkpoint.get("hyper_parameters", {})
        for name, part in parts.items():
            if isinstance(saved.get(name), str):
                saved[name] = dict(part.spec)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the talkhead block back.

        Raises:
            StageLinkError: The checkpoint belongs to another stage.
        """
        block = read_block(checkpoint, "the checkpoint")
        if block["stage"] != self.stage_name():
            raise StageLinkError(
                f"expected a checkpoint of stage {self.stage_name()}, got one of stage {block['stage']}; "
                "pass --ckpt_path of the right run."
            )
        self.batches_seen = int(block["batches_seen"])
        self.video_spec = replace(self.video_spec, crop=block["video"]["crop"])
        self.sources = dict(block["sources"])

    def _data_block(self) -> dict[str, Any]:
        """Facts about the data in use, empty without a talkhead datamodule."""
        datamodule = (
            getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        )
        block = getattr(datamodule, "data_block", None)
        return dict(block()) if callable(block) else {}


def build(cls: type[C], options: Mapping[str, Any] | None, name: str) -> C:
    """A component from the options given in YAML.

    Raises:
        ConfigError: An option the class does not have, or a value it refuses.
    """
    accepted = [p for p in inspect.signature(cls.__init__).parameters if p != "self"]
    unknown = sorted(set(options or {}) - set(accepted))
    if unknown:
        raise ConfigError(
            f"{name}: {cls.__name__} has no option {', '.join(unknown)}; "
            f"expected some of {', '.join(accepted)}."
        )
    return cls(**(options or {}))


def build_or_start(cls: type[C], source: Source | None, name: str) -> C:
    """A component to train: new from options, or with the weights of an earlier checkpoint.

    Raises:
        ConfigError: As :func:`build`.
        StageLinkError: The checkpoint cannot be read or has no such component.
    """
    if isinstance(source, str):
        return resolve(cls, source, name).train().requires_grad_(True)
    return build(cls, source, name)
