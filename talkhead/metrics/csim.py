"""CSIM: does the generated face stay the same person, by embeddings of a face recogniser?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.sequences import PerClipMetric, as_batch


def csim(generated: Tensor, source: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean cosine of the identity embeddings of generated frames and of the person meant.

    ``CSIM = mean_t <e_t, s_t> / (|e_t| |s_t|)``, from -1 to 1; higher is better, 1 is the same
    embedding. Which recogniser made the embeddings decides the scale: name it, its weights and its
    crop with every number.

    Args:
        generated: One embedding a frame, ``(T, D)`` or ``(B, T, D)``, of any length.
        source: The portrait's, ``(D,)`` or ``(B, D)``, or the real video's frame by frame, in the
            shape of ``generated``.
        valid: Mask ``(T,)`` or ``(B, T)``, False where no face was found.

    Returns:
        One similarity a clip, float64 ``(B,)``.

    Raises:
        ShapeError: Shapes do not pair up, a clip has no valid frame, or an embedding that counts is
            0 or not finite.

    Source: cosine of ArcFace embeddings (Deng et al., 2019) of 112-pixel aligned crops, RGB as
        ``(x - 127.5) / 127.5``; reference-facts 8.5. The network is not part of this function.
    """
    if generated.ndim not in (2, 3):
        raise ShapeError(
            f"expected embeddings (T, D) or (B, T, D), got {tuple(generated.shape)}; give one a frame."
        )
    frames, mask = as_batch(generated, valid, "generated")
    portrait = source.shape == (*generated.shape[:-2], generated.shape[-1])
    reference = source.unsqueeze(-2).expand(generated.shape) if portrait else source
    if reference.shape != generated.shape:
        raise ShapeError(
            f"expected source embeddings {tuple(generated.shape)}, or one a clip without the frame "
            f"axis, got {tuple(source.shape)}; use one recogniser for both."
        )
    references, _ = as_batch(reference, None, "source")
    values = []
    for b in range(frames.shape[0]):
        kept = slice(None) if mask is None else mask[b].bool()
        ours, theirs = frames[b][kept].double(), references[b][kept].double()
        lengths = torch.stack([ours.norm(dim=-1), theirs.norm(dim=-1)])
        if lengths.numel() == 0:
            raise ShapeError(
                f"expected at least one valid frame a clip, got none in clip {b}; leave such clips out."
            )
        if not bool((lengths.isfinite() & (lengths > 0)).all()):
            raise ShapeError(
                f"expected finite embeddings of some length, got 0, NaN or infinity in clip {b}; mask "
                "frames without a face."
            )
        values.append(((ours * theirs).sum(dim=-1) / lengths.prod(dim=0)).mean())
    return torch.stack(values)


class CSIM(PerClipMetric):
    """Mean over clips of :func:`csim`."""

    higher_is_better = True

    def update(
        self,
        generated: Tensor,
        source: Tensor,
        valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips; arguments as in :func:`csim`, plus the clip names."""
        self.add_clips(csim(generated, source, valid), clip)
