"""The one datamodule of the suite: it yields whatever sample the stage at hand asks for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.datasets import (
    FramePairDataset,
    LandmarkRunDataset,
    SequenceDataset,
    SyncWindowDataset,
    WindowDataset,
    collate,
    keep,
)
from datamodules.features import FeatureStore, ensure_features
from datamodules.sampling import EpochBatches, EpochLoader, training_position
from datamodules.shards import ClipRow, MotionStats, PreparedSet
from datamodules.speech_runs import SpeechRunDataset
from talkhead.batch import (
    FeatureSource,
    FramePairs,
    LandmarkRuns,
    Needs,
    Sequences,
    SpeechRuns,
    SyncWindows,
    Windows,
)
from talkhead.errors import ConfigError, DataError
from talkhead.seeds import base_seed

if TYPE_CHECKING:
    from talkhead.geometry.motion import MotionModel

log = logging.getLogger(__name__)

STAGE_SPLITS = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}


class TalkheadDataModule(LightningDataModule):
    """Reads a prepared set and serves the stage's ``needs()``.

    Training draws new samples in every epoch from (seed, epoch, index); validation and test
    enumerate fixed samples in a fixed order. Batches are shared over ranks here, so the trainer's
    ``use_distributed_sampler`` makes no difference, and a run resumed in the middle of an epoch
    goes on with the very next batch.

    Args:
        root: Folder written by ``talkhead prepare``.
        batch_size: Samples in a training batch of one process.
        eval_batch_size: The same in validation, test and predict; None: ``batch_size``.
        num_workers: Loader processes for each split; 0 loads in the training process.
        seed: Of the order and of all training draws; the run's own seed by default.
        epoch_items: Training samples in an epoch over all processes; None: about as many as cover
            the data once.
        val_items: At most so many validation samples, evenly spaced over the split; None: all.
        test_items: The same for test; measures on whole clips see all of them.
        eval_length: Frames of a run in validation, test and predict for stages that need
            sequences; None: the stage's own length.
        feature_batch_size: Frames in one encoder call while features are cached.
        feature_device: Where features are computed: ``auto`` (a GPU where there is one), or a
            torch device.
    """

    datasets: ClassVar[tuple[str, ...]] = ()
    """Names in ``prepared.json`` this class accepts; empty accepts all."""

    def __init__(
        self,
        root: str,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int | None = None,
        epoch_items: int | None = None,
        val_items: int | None = None,
        test_items: int | None = None,
        eval_length: int | None = None,
        feature_batch_size: int = 64,
        feature_device: str = "auto",
    ) -> None:
        """Keep the settings; nothing is read before ``prepare_data`` or first use."""
        super().__init__()
        # One machine caches features into the (shared) folder of the prepared set.
        self.prepare_data_per_node = False
        self.root = Path(root)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = base_seed() if seed is None else seed
        self.epoch_items = epoch_items
        self.val_items, self.test_items = val_items, test_items
        self.eval_length = eval_length
        self.feature_batch_size = feature_batch_size
        self.feature_device = feature_device
        self._prepared: PreparedSet | None = None
        self._attached: tuple[Needs, dict[str, FeatureSource]] | None = None
        self._store: FeatureStore | None = None
        self._splits: dict[str, Dataset[Any]] = {}
        self._allowed: tuple[str, ...] = ()

    # -- the prepared set ------------------------------------------------------------------------

    @property
    def prepared(self) -> PreparedSet:
        """The set, opened and checked at first use.

        Raises:
            DataError: No readable prepared set in ``root``.
            ConfigError: A set of a dataset this class is not for.
        """
        if self._prepared is None:
            prepared = PreparedSet(self.root)
            if self.datasets and prepared.dataset not in self.datasets:
                raise ConfigError(
                    f"{type(self).__name__} expects a set prepared from "
                    f"{' or '.join(self.datasets)}, got {prepared.dataset!r} in {self.root}; "
                    "use its own datamodule class or TalkheadDataModule."
                )
            self._prepared = prepared
        return self._prepared

    @property
    def motion_model(self) -> MotionModel:
        """The set's motion model."""
        return self.prepared.motion_model()

    @property
    def motion_stats(self) -> MotionStats:
        """Mean and deviation of the motion descriptors over the training split."""
        return self.prepared.motion_stats()

    @property
    def store(self) -> FeatureStore:
        """The cached features of the stage at hand; what is missing is computed now.

        Not before it is asked for: when a run starts from a checkpoint, Lightning calls
        ``prepare_data`` and ``setup`` first and restores the encoders' weights after that.

        Raises:
            ConfigError: There is no stage to serve.
        """
        if self._store is None:
            sources = self._wanted()[1]
            device = self.feature_device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            self._store = ensure_features(self.prepared, sources, device, self.feature_batch_size)
        return self._store

    def data_block(self) -> dict[str, Any]:
        """What a checkpoint notes about its data: names, face tracker, fingerprints and clocks."""
        meta = self.prepared.meta
        keys = ("dataset", "synthetic", "landmarker", "split_fingerprint", "data_fingerprint")
        return {key: meta[key] for key in (*keys, "audio", "video")}

    def clip_truth_path(self, row: ClipRow) -> Path:
        """Truth file of a clip of the embedded corpus, which need not exist for other corpora."""
        return (self.prepared.raw_root / row.source).with_suffix(".truth.npz")

    # -- hooks -----------------------------------------------------------------------------------

    def attach(self, needs: Needs, sources: Mapping[str, FeatureSource] | None = None) -> None:
        """Say what is needed without a trainer; then call ``setup``."""
        self._attached = (needs, dict(sources or {}))
        self._splits.clear()
        self._store = None

    def setup(self, stage: str) -> None:
        """Settle which splits one stage of the trainer may use; their datasets are built when asked for.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            DataError: A split has no clips.
            ConfigError: The trainer's stage does not say what it needs.
        """
        self._wanted()
        self._store = None
        self._splits.clear()
        self._allowed = STAGE_SPLITS[stage]
        for split in self._allowed:
            self._rows(split)

    def train_dataloader(self) -> EpochLoader[Any]:
        """Resampled training batches of this process."""
        return self._loader("train")

    def val_dataloader(self) -> EpochLoader[Any]:
        """Fixed validation batches of this process."""
        return self._loader("val")

    def test_dataloader(self) -> EpochLoader[Any]:
        """Fixed test batches of this process."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Test samples as a plain loader: Lightning keeps track of predicted items itself."""
        dataset = self._split("test")
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size or self.batch_size,
            collate_fn=_collate_of(dataset),
            num_workers=self.num_workers,
        )

    # -- private ---------------------------------------------------------------------------------

    def _wanted(self) -> tuple[Needs, dict[str, FeatureSource]]:
        """Needs and feature sources of the attached stage."""
        if self.trainer is not None and self._attached is None:
            stage: Any = self.trainer.lightning_module
            if not callable(getattr(stage, "needs", None)):
                raise ConfigError(
                    f"{type(stage).__name__} does not say what data it needs; "
                    "derive it from talkhead.stages.base.Stage and define needs()."
                )
            return stage.needs(), dict(stage.feature_sources())
        if self._attached is None:
            raise ConfigError("no stage to serve; call attach(needs, sources) or use a trainer.")
        return self._attached

    def _dataset(self, split: str, needs: Needs) -> Dataset[Any]:
        """The dataset of one split for one need."""
        rows = self._rows(split)
        train = split == "train"
        limits = {"train": self.epoch_items, "val": self.val_items, "test": self.test_items}
        items = limits.get(split)
        if isinstance(needs, FramePairs):
            return FramePairDataset(
                self.prepared, rows, needs, seed=self.seed, resample=train, items=items
            )
        if isinstance(needs, Windows):
            return WindowDataset(
                self.prepared, rows, needs, seed=self.seed, resample=train, items=items
            )
        if isinstance(needs, SyncWindows):
            return SyncWindowDataset(
                self.prepared, rows, needs, seed=self.seed, resample=train, items=items
            )
        if isinstance(needs, LandmarkRuns):
            return LandmarkRunDataset(
                self.prepared, rows, needs, seed=self.seed, resample=train, items=items
            )
        if isinstance(needs, SpeechRuns):
            return SpeechRunDataset(
                self.prepared, rows, needs, self.store, seed=self.seed, resample=train, items=items
            )
        if not train and self.eval_length is not None:
            needs = Sequences(self.eval_length, whole=needs.whole)
        return SequenceDataset(
            self.prepared, rows, needs, self.store, seed=self.seed, resample=train, items=items
        )

    def _rows(self, split: str) -> list[ClipRow]:
        """Clips of a split, at least one."""
        rows = self.prepared.rows(split)
        if not rows:
            raise DataError(
                f"expected clips in split {split} of {self.root}, got none; "
                "prepare more speakers or set other split shares."
            )
        return rows

    def _split(self, split: str) -> Any:
        """The dataset of a split that ``setup`` allowed."""
        if split not in self._allowed:
            raise ConfigError(f"split {split} is not set up; call setup() for its stage first.")
        if split not in self._splits:
            self._splits[split] = self._dataset(split, self._wanted()[0])
        return self._splits[split]

    def _loader(self, split: str) -> EpochLoader[Any]:
        """The one place where loaders are made."""
        dataset = self._split(split)
        train = split == "train"
        trainer: Any = self.trainer
        # Repeating the same few batches is the point of overfitting, so they stay the same.
        overfit = trainer is not None and trainer.overfit_batches > 0
        batches = EpochBatches(
            len(dataset),
            self.batch_size if train else self.eval_batch_size or self.batch_size,
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world=1 if trainer is None else trainer.world_size,
            shuffle=train and not overfit,
            drop_last=train,
        )
        position = None
        if train and trainer is not None:
            position = _Position(trainer, overfit)
        return EpochLoader(
            dataset,
            batches,
            _collate_of(dataset),
            num_workers=self.num_workers,
            position=position,
            pin_memory=torch.cuda.is_available(),
        )


class _Position:
    """Where training stands; the epoch stays 0 while the trainer overfits a few batches."""

    def __init__(self, trainer: Any, overfit: bool) -> None:
        self.trainer, self.overfit = trainer, overfit

    def __call__(self) -> tuple[int, int]:
        epoch, start = training_position(self.trainer)
        return (0 if self.overfit else epoch), start


def _collate_of(dataset: Dataset[Any]) -> Any:
    """Sequences come as whole batches, other samples are stacked."""
    return keep if isinstance(dataset, SequenceDataset) else collate
