"""LPIPS of generated against real frames, per clip."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from talkhead.metrics.pictures import check_clips
from talkhead.metrics.sequences import PerClipMetric

CHUNK_FRAMES = 16
"""Frames compared at once; the activations of a whole clip would not fit in memory."""


def lpips(generated: Tensor, real: Tensor, network: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean over frames of the perceptual distance of two clips.

    Args:
        generated: ``(T, 3, H, W)`` in [0, 1].
        real: The same frames of the real video.
        network: Distances ``(n,)`` of pictures in [-1, 1], :class:`talkhead.networks.lpips.LPIPSNetwork`.
            Only its published weights make the number LPIPS; with others it has to carry their name.

    Returns:
        Scalar float64, at least 0; lower is better, 0 is the same pictures. Grows with the size of the
        pictures' differences, not with the pictures: compare numbers of one resolution only.

    Raises:
        ShapeError: Not two clips of the same shape, or pictures smaller than the network takes.

    Source: Zhang et al. (2018).
    """
    check_clips(generated, real)
    pairs = zip(generated.split(CHUNK_FRAMES), real.split(CHUNK_FRAMES), strict=True)
    with torch.no_grad():
        found = [network(2.0 * g - 1.0, 2.0 * r - 1.0).double() for g, r in pairs]
    return torch.cat(found).mean()


class LPIPS(PerClipMetric):
    """Mean over clips of :func:`lpips`."""

    higher_is_better = False

    def __init__(self, network: nn.Module) -> None:
        """Judge by ``network``, frozen and in eval mode."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> LPIPS:
        """The network stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def update(self, generated: Tensor, real: Tensor, clip: str | None = None) -> None:
        """Add one clip; arguments as in :func:`lpips`, and its name."""
        value = lpips(generated, real, self.network)
        self.add_clips(value[None], None if clip is None else [clip])
