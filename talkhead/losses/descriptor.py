"""Distillation of tracked motion descriptors into the motion encoder (our addition, off by default)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkhead.errors import ShapeError


class DescriptorHead(nn.Module):
    """A linear map from ``f_v`` to standardised motion descriptors, with the statistics it needs.

    The paper's motion encoder learns what motion is from reconstruction alone, which takes a large
    corpus. Asking it for the tracker's descriptors as well lets a run of minutes end with a usable
    encoder. It tells nothing about identity: descriptors are free of it by construction.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, descriptors: int) -> None:
        """Map ``dim`` entries of ``f_v`` to ``descriptors`` numbers."""
        super().__init__()
        self.linear = nn.Linear(dim, descriptors)
        self.register_buffer("mean", torch.zeros(descriptors))
        self.register_buffer("std", torch.ones(descriptors))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Mean and deviation of the descriptors on the training split, each ``(descriptors,)``.

        Raises:
            ShapeError: Another number of descriptors.
        """
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ShapeError(
                f"expected statistics of {len(self.mean)} descriptors, got {len(mean)}; set the stage's "
                "descriptors to what the data were prepared with (see talkhead data)."
            )
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-6))

    def forward(self, f_v: Tensor, motion: Tensor) -> Tensor:
        """Mean squared error of the standardised descriptors.

        Args:
            f_v: ``(n, dim)``.
            motion: ``(n, descriptors)``, not normalised.

        Returns:
            Scalar; 1 for a head that knows only the mean.

        Raises:
            ShapeError: Another number of descriptors.
        """
        if motion.shape != (len(f_v), len(self.mean)):
            raise ShapeError(
                f"expected descriptors {(len(f_v), len(self.mean))}, got {tuple(motion.shape)}."
            )
        wanted = (motion - self.mean) / self.std
        loss: Tensor = (self.linear(f_v) - wanted).square().mean()
        return loss


def shift_motion(motion: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Descriptors of a picture that was shifted: only the translation moves.

    Args:
        motion: ``(n, D)``; columns 3 and 4 are the translation in crop units.
        before: Landmarks ``(n, 478, 3)`` of the picture.
        after: Landmarks of the shifted picture.

    Returns:
        ``(n, D)``.
    """
    moved = motion.clone()
    moved[:, TRANSLATION] += (after - before)[..., :2].mean(1).to(motion)
    return moved


TRANSLATION = slice(3, 5)
"""Where :class:`talkhead.geometry.motion.MotionModel` keeps the translation."""
