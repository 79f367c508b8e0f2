"""What the motion priors take from the data: statistics, shorter batches, the read-out's place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from talkhead.batch import SequenceBatch
from talkhead.checkpoint import BLOCK
from talkhead.errors import DataError
from talkhead.networks.motion_readout import MotionReadout

FEATURES = {"nonlip": "code", "audio": "audio"}
"""Cached feature -> its name in the prior's statistics."""
STATISTICS_CLIPS = 5000
"""Training clips, evenly spread, beyond which more would not change the statistics."""


def feature_statistics(
    clips: Iterable[Mapping[str, Tensor]], names: Mapping[str, str] = FEATURES
) -> dict[str, Tensor]:
    """Mean and standard deviation of some features over all frames.

    Args:
        clips: Features of one clip after the other, ``(T, D)`` each, of one ``T`` in a clip.
        names: Feature -> its name in the result.

    Returns:
        ``<name>_mean`` and ``<name>_std``, float32 ``(D,)``.

    Raises:
        DataError: Fewer than two frames.
    """
    count = 0
    sums: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for clip in clips:
        count += len(clip[next(iter(names))])
        for feature in names:
            rows = clip[feature].double()
            # sums are taken around the first frame: far from zero they would lose digits
            origin, first, second = sums.get(feature, (rows[0], rows[0] * 0, rows[0] * 0))
            shifted = rows - origin
            sums[feature] = (origin, first + shifted.sum(0), second + shifted.square().sum(0))
    if count < 2:
        raise DataError(
            f"expected at least 2 training frames for the feature statistics, got {count}; "
            "check the training split."
        )
    result = {}
    for feature, name in names.items():
        origin, first, second = sums[feature]
        offset = first / count
        result[f"{name}_mean"] = (origin + offset).float()
        result[f"{name}_std"] = (second / count - offset.square()).clamp_min(0).sqrt().float()
    return result


def cropped(batch: SequenceBatch, rows: int, length: int) -> SequenceBatch:
    """The first ``rows`` runs of a batch, and the first ``length`` frames of each."""
    return SequenceBatch(
        features={name: value[:rows, :length] for name, value in batch.features.items()},
        motion=batch.motion[:rows, :length],
        valid=batch.valid[:rows, :length],
        start=batch.start[:rows],
        clip=batch.clip[:rows],
    )


def add_readout(checkpoint: dict[str, Any], readout: MotionReadout) -> None:
    """Put the read-out's weights where those of every component are."""
    weights = {f"readout.{name}": value for name, value in readout.state_dict().items()}
    checkpoint["state_dict"] = {**checkpoint["state_dict"], **weights}


def take_readout(checkpoint: dict[str, Any]) -> MotionReadout | None:
    """Rebuild the read-out and take its weights out of the checkpoint, None where there is none."""
    entry = checkpoint[BLOCK]["components"].get("readout")
    if entry is None:
        return None
    state, prefix = checkpoint["state_dict"], "readout."
    names = [name for name in state if name.startswith(prefix)]
    readout = MotionReadout(**entry["spec"])
    readout.load_state_dict({name[len(prefix) :]: state.pop(name) for name in names})
    return readout.eval().requires_grad_(False)
