"""How a lip-sync expert is trained, and how it trains others: binary decisions on a cosine."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError

EPS = 1e-3
"""Cosines are kept so far from 0 and 1: a wrong verdict costs at most 6.9, its gradient is at most 1000."""
Kind = Literal["bce", "one_minus_cosine"]


def cosine_bce(audio: Tensor, video: Tensor, match: Tensor) -> Tensor:
    r"""Binary cross-entropy with the cosine as probability that sound and lips belong together.

    ``L = -mean(m ln c + (1 - m) ln(1 - c))`` with ``c = cos(a, v)`` clamped to ``(0.001, 0.999)``.
    Non-negative embeddings (after a ReLU) have cosines in [0, 1] by themselves. A network that tells
    nothing is at ``c = 1/2`` with ``ln 2 = 0.693`` for as many true as false pairs. A cosine below 0
    counts as 0.001 and passes its gradient as if it were inside, so that it is not stuck there.

    Args:
        audio: ``(n, D)``.
        video: ``(n, D)``.
        match: ``(n,)``, 1 or True for pairs of one moment, 0 for others.

    Returns:
        Scalar, at least in float32.

    Raises:
        ShapeError: Shapes differ, or there is no pair.

    Source: Wav2Lip's expert (reference-facts 7.6), the reading of ControlTalk equation 5, which prints a
        similarity to be minimised. Deviates: the clamp, where Wav2Lip relies on the ReLU.
    """
    cosine, wanted = _cosines(audio, video, match)
    clamped = cosine.clamp(EPS, 1.0 - EPS)
    # Straight through the clamp: the value is that of the clamped cosine, the gradient is kept.
    probability = cosine + (clamped - cosine).detach()
    # Written out, because torch's own refuses to run under autocast.
    return -(wanted * probability.log() + (1.0 - wanted) * (1.0 - probability).log()).mean()


def one_minus_cosine(audio: Tensor, video: Tensor, match: Tensor) -> Tensor:
    r"""``mean(m (1 - c) + (1 - m) max(0, c))`` with the cosine ``c``: the plain similarity loss.

    A constant answer is at 1/2 for as many true as false pairs, whatever its cosine in [0, 1].

    Args:
        audio: ``(n, D)``.
        video: ``(n, D)``.
        match: As :func:`cosine_bce`.

    Returns:
        Scalar in [0, 2], at least in float32.

    Raises:
        ShapeError: Shapes differ, or there is no pair.

    Source: ControlTalk's "cosine-similarity loss" with its sign put right (reference-facts 10); the term
        of false pairs is that of torch's ``CosineEmbeddingLoss`` without margin.
    """
    cosine, wanted = _cosines(audio, video, match)
    return (wanted * (1.0 - cosine) + (1.0 - wanted) * cosine.clamp_min(0.0)).mean()


def lip_sync_loss(audio: Tensor, video: Tensor, match: Tensor, kind: Kind = "bce") -> Tensor:
    """One of the two losses by its name."""
    return (cosine_bce if kind == "bce" else one_minus_cosine)(audio, video, match)


def _cosines(audio: Tensor, video: Tensor, match: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and the wanted verdicts, both ``(n,)`` in at least float32."""
    if audio.ndim != 2 or audio.shape != video.shape or match.shape != audio.shape[:1]:
        raise ShapeError(
            f"expected embeddings (n, D) of sound and lips and n verdicts, got {tuple(audio.shape)}, "
            f"{tuple(video.shape)} and {tuple(match.shape)}; flatten clips and windows first."
        )
    if len(audio) == 0:
        raise ShapeError("expected at least one pair of sound and lips, got none.")
    kind = torch.promote_types(audio.dtype, torch.float32)
    cosine = F.cosine_similarity(audio.to(kind), video.to(kind), dim=-1)
    return cosine, match.to(cosine)
