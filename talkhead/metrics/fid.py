"""FID: Fréchet distance between features of generated and real pictures, pooled over frames."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from talkhead.errors import ShapeError
from talkhead.metrics.frechet import FrechetDistance


class FID(FrechetDistance):
    """FID of pictures in the feature space of a given network.

    Only the distance of Inception-v3 features with the published weights is *the* FID
    (:class:`talkhead.networks.inception.InceptionFeatures`); with any other network the number has to carry
    that network's name. Its bias grows as frames get fewer, and as they come from fewer videos; compare
    numbers of equal counts only.

    Source: Heusel et al. (2017).
    """

    def __init__(self, network: nn.Module, dim: int) -> None:
        """Pool features of ``network``, which maps pictures ``(n, 3, H, W)`` in [0, 1] to ``(n, dim)``."""
        super().__init__(dim)
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FID:
        """The network stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def update(self, features: Tensor, *, real: bool, valid: Tensor | None = None) -> None:
        """Add pictures ``(n, 3, H, W)`` in [0, 1] of one side.

        Raises:
            ShapeError: Not RGB float pictures, or features of another width.
        """
        pictures = features
        if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
            raise ShapeError(
                f"expected float pictures (n, 3, H, W) in [0, 1], got {pictures.dtype} "
                f"{tuple(pictures.shape)}."
            )
        with torch.no_grad():
            found = cast(Tensor, self.network(pictures))
        width = self.total.shape[1]
        if found.shape != (len(pictures), width):
            raise ShapeError(
                f"expected features ({len(pictures)}, {width}) of the network, got {tuple(found.shape)}; "
                "give FID the width its network has."
            )
        super().update(found, real=real, valid=valid)
