"""SyncNet's scores of a clip: offset, distance (LSE-D) and confidence (LSE-C).

Two embedding sequences of one clip go in: number ``t`` of ``visual`` is of the frames ``t .. t + 4``,
number ``t`` of ``audio`` of the 0.2 s of sound that start with frame ``t``. Everything is computed as in
SyncNet's own evaluation, so that numbers by the published weights are comparable with published ones;
:mod:`talkhead.metrics.offset` is the measure without its zero padding, for our own encoders.

Numbers of different networks, crops or frame rates are not comparable: report the ground truth of the same
clips beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.confidence import normalised_confidence
from talkhead.metrics.offset import MAX_SHIFT_FRAMES, OffsetAccuracy
from talkhead.metrics.sequences import PerClipRows

DISTANCE_EPS = 1e-6
"""Added to every difference before its norm, as torch's ``pairwise_distance`` does in SyncNet's code."""


class SyncScores(NamedTuple):
    """Scores of ``B`` clips.

    Attributes:
        offset: ``(B,)`` int64, in video frames; SyncNet's sign, see :func:`sync_scores`.
        lse_d: ``(B,)`` float64, at least 0; lower is better.
        lse_c: ``(B,)`` float64, at least 0; higher is better.
    """

    offset: Tensor
    lse_d: Tensor
    lse_c: Tensor


def sync_distances(visual: Tensor, audio: Tensor, *, max_shift: int = MAX_SHIFT_FRAMES) -> Tensor:
    """Mean distance of pictures and sound for every candidate shift.

    Column ``k`` compares the pictures of window ``t`` with the sound of window ``t + k - max_shift`` and
    takes the mean over all ``t``. Where the shift leaves the clip, an embedding of zeros stands for the
    sound. That ties the outer columns of short clips to the norm of the visual embeddings; it is kept
    because the published scores were made so.

    Args:
        visual: ``(T, D)`` or ``(B, T, D)``, one embedding a video frame.
        audio: Same shape, same clock.
        max_shift: Largest shift tried on either side, in video frames.

    Returns:
        Float64 ``(B, 2 * max_shift + 1)``, Euclidean distances in the units of the embeddings. Equal
        embeddings are ``1e-6 sqrt(D)`` apart (:data:`DISTANCE_EPS`).

    Raises:
        ShapeError: Shapes differ, or there is no window.

    Source: Chung & Zisserman (2016) and the code published with it (reference-facts 8.1).
    """
    if visual.shape != audio.shape or visual.ndim not in (2, 3) or 0 in visual.shape:
        raise ShapeError(
            f"expected visual and audio embeddings (B, T, D) of the same windows, got "
            f"{tuple(visual.shape)} and {tuple(audio.shape)}; score clips of at least six frames, each "
            "with its own sound."
        )
    seen = visual.reshape(-1, *visual.shape[-2:]).to(torch.float64)
    heard = audio.reshape(-1, *audio.shape[-2:]).to(torch.float64)
    padded = F.pad(heard, (0, 0, max_shift, max_shift))
    windows = seen.shape[1]
    columns = [
        (seen - padded[:, k : k + windows] + DISTANCE_EPS).norm(dim=-1).mean(dim=-1)
        for k in range(2 * max_shift + 1)
    ]
    return torch.stack(columns, dim=-1)


def sync_scores(visual: Tensor, audio: Tensor, *, max_shift: int = MAX_SHIFT_FRAMES) -> SyncScores:
    """Offset, LSE-D and LSE-C of clips.

    Of the distances ``d`` at all shifts (:func:`sync_distances`), LSE-D is the smallest, LSE-C the median
    minus the smallest, and the offset ``max_shift`` minus the place of the smallest. So an offset of -1
    says that the sound belonging to a picture is found one frame further on, at ``t + 1``: the sound
    comes 0.04 s late at 25 fps. Its sign is opposite to :func:`talkhead.metrics.offset.estimate_offset`.

    Example: distances 5, 2, 6 at the shifts -1, 0, 1 give offset 0, LSE-D 2 and LSE-C 3.

    Args:
        visual: ``(T, D)`` or ``(B, T, D)``.
        audio: Same shape.
        max_shift: 15 in every published number.

    Returns:
        Scores of the ``B`` clips. The first of equally small distances wins.

    Raises:
        ShapeError: Shapes differ, or there is no window.

    Source: Chung & Zisserman (2016); LSE-D and LSE-C are Wav2Lip's names for its minimal distance and
        confidence (reference-facts 8.1).
    """
    distances = sync_distances(visual, audio, max_shift=max_shift)
    smallest, where = distances.min(dim=-1)
    return SyncScores(max_shift - where, smallest, distances.median(dim=-1).values - smallest)


class SyncScore(PerClipRows):
    """Mean over clips of :func:`sync_scores`.

    Clips may arrive in any order, batch size or rank. Give ``update`` the clip names and a clip that a
    distributed sampler repeats counts once; without names every row counts.
    """

    def __init__(
        self,
        training_confidence: float | None = None,
        tolerance: int = 1,
        max_shift: int = MAX_SHIFT_FRAMES,
    ) -> None:
        """Keep the settings.

        Args:
            training_confidence: Mean LSE-C of the method's training set by the same network and crop;
                adds ``n_c`` to the result.
            tolerance: Offsets up to so many frames count as in sync.
            max_shift: See :func:`sync_scores`.
        """
        super().__init__(width=3)
        self.training_confidence = training_confidence
        self.tolerance = tolerance
        self.max_shift = max_shift

    def update(self, visual: Tensor, audio: Tensor, clip: Sequence[str] | None = None) -> None:
        """Add clips ``(B, T, D)`` of one length.

        Args:
            visual: Visual embeddings.
            audio: Audio embeddings, same shape.
            clip: ``B`` names, or None.

        Raises:
            ShapeError: Shapes differ, or there are other than ``B`` names.
        """
        scores = sync_scores(visual, audio, max_shift=self.max_shift)
        columns = [scores.offset.double(), scores.lse_d, scores.lse_c]
        self.add_rows(torch.stack(columns, dim=1), clip)

    def compute(self) -> dict[str, Tensor]:
        """Float64 scalars, NaN when no clip was seen.

        ``lse_d`` (lower is better), ``lse_c`` (higher), ``absolute_offset`` (mean of |offset| in frames,
        lower; the absolute value comes before the mean), ``within`` (share of clips with |offset| up to
        the tolerance) and, given the training confidence, ``n_c`` (0 is best).
        """
        rows = self.distinct()
        offset, lse_d, lse_c = rows[:, 0].abs(), rows[:, 1], rows[:, 2]
        out = {
            "lse_d": lse_d.mean(),
            "lse_c": lse_c.mean(),
            "absolute_offset": offset.mean(),
            "within": (offset <= self.tolerance).double().mean(),
        }
        if self.training_confidence is not None:
            relative = normalised_confidence(float(out["lse_c"]), self.training_confidence)
            out["n_c"] = lse_c.new_tensor(relative)
        return out


class SyncOffsetAccuracy(OffsetAccuracy):
    """:class:`OffsetAccuracy` by SyncNet's measure; as there, the true offset of late sound is positive."""

    def estimate(self, audio: Tensor, visual: Tensor, valid: Tensor | None = None) -> Tensor:
        """Delays ``(B,)`` of the sound in frames.

        Raises:
            ShapeError: A mask, which SyncNet's measure does not know.
        """
        if valid is not None:
            raise ShapeError(
                f"expected whole clips, got a mask {tuple(valid.shape)}; cut the clips instead."
            )
        return -sync_scores(visual, audio, max_shift=self.max_shift).offset
