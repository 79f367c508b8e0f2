"""What the stages that train a syncer for every scale of a pyramid share: how they are watched and judged."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from talkhead.errors import ConfigError
from talkhead.metrics.rigid_offset import Pair
from talkhead.networks.rigid_syncer import LevelEmbeddings
from talkhead.stages.base import Stage
from talkhead.stages.reference_offsets import ReferenceOffsets, pair_accuracies


class SyncPyramidStage(Stage):
    """Base of the syncer stages: one contrastive term a level, whole runs in validation and test.

    A subclass makes ``self.offsets`` and implements :meth:`embedded` and :meth:`contrast`. Validation
    and test measure pair accuracy and the offset on every level, with the runs' own sound (``gt/…``)
    and, for the level of chance, with that of other clips (``shuffled/…``).
    """

    monitor = "val/pair_accuracy"
    mode = "max"
    default_weights = {
        "level_200ms": 1.0,
        "level_400ms": 1.0,
        "level_800ms": 1.0,
        "level_1600ms": 1.0,
    }
    score_prefix: ClassVar[str] = ""
    """What the offsets are called: ``<prefix>_offset_200ms[<stage>]``."""
    offsets: ReferenceOffsets

    def embedded(self, batch: Any) -> list[LevelEmbeddings]:
        """Embeddings of motion and sound of every level, each ``(B, N, D)``; augmented in training."""
        raise ConfigError(f"{type(self).__name__} does not define embedded().")

    def contrast(self, levels: list[LevelEmbeddings]) -> dict[str, Tensor]:
        """The contrastive term of every level, unweighted, by name."""
        raise ConfigError(f"{type(self).__name__} does not define contrast().")

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The contrastive term of every level."""
        return self.contrast(self.embedded(batch))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The weighted loss of one batch."""
        return self.weighted(self.losses(batch), "train", len(batch.clip))

    def on_validation_epoch_start(self) -> None:
        """Begin a new list of runs."""
        self.offsets.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Loss, accuracy and offsets of whole runs."""
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Scores with the runs' own sound and with that of others."""
        self._score("val")

    def on_test_epoch_start(self) -> None:
        """Begin a new list of runs."""
        self.offsets.reset()
        self.per_clip_results = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As validation, on the test split; every run leaves its offsets."""
        levels = self._evaluate(batch, "test")
        self.per_clip_results += self.offsets.rows(levels, batch.clip, batch.start)

    def on_test_epoch_end(self) -> None:
        """Scores with the runs' own sound and with that of others."""
        self._score("test")

    def predict_step(self, batch: Any, batch_idx: int) -> list[Pair]:
        """Embeddings of motion and sound of every level, each ``(B, N, D)``."""
        return [(points, audio) for points, audio in self.embedded(batch)]

    def _evaluate(self, batch: Any, prefix: str) -> list[LevelEmbeddings]:
        """Log loss and accuracy of a batch and note its runs; their embeddings."""
        levels = self.embedded(batch)
        self.weighted(self.contrast(levels), prefix, len(batch.clip))
        accuracy = pair_accuracies(levels, self.offsets.scales)
        self.log_dict(
            {f"{prefix}/{name}": value for name, value in accuracy.items()},
            batch_size=len(batch.clip),
            sync_dist=True,
        )
        self.offsets.update(levels, batch.clip, batch.start)
        return levels

    def _score(self, prefix: str) -> None:
        """Log the scores of the real runs, and of their motion with the sound of another clip."""
        for name, value in self.offsets.compute().items():
            reference, _, measure = name.partition("/")
            self.log(
                f"{prefix}/{reference}/{self.score_prefix}_{measure}[{self.stage_name()}]", value
            )
