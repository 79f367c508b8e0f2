"""A small network that reads eye opening and gaze from the eyes of a face picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.face_topology import EYE_INNER, EYE_OUTER
from talkhead.networks.component import Component
from talkhead.specs import N_LANDMARKS

EYES, GAZE = slice(0, 2), slice(2, 4)
"""Columns of a reading: opening of the picture-left and picture-right eye, then gaze right and down."""
_PER_EYE = 3


class GazeNet(Component):
    """Both eyes through one network, the picture-right one mirrored, so that they look alike.

    Each eye is cut out along the line of its corners, which takes head roll, place and size away and
    leaves the lids and the iris. An eye gives its opening and its own gaze; the gaze of the face is
    the mean of both, as in the motion descriptors (:mod:`talkhead.geometry.motion`), whose units the
    readings have: opening over eye width, iris offset over half the eye width.

    Called with pictures and landmarks it gives features, so it takes the place of
    :class:`~talkhead.networks.perceptual.GazeFeatures` in the gaze loss.

    Source: ours; stands in for the gaze estimator of paper 1 eq. 4 where its weights are absent.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        height: int = 36,
        width: int = 60,
        widths: list[int] | None = None,
        dim: int = 128,
        room: float = 1.6,
    ) -> None:
        """Build the network.

        Args:
            height: Height of an eye's cut in pixels.
            width: Width of an eye's cut in pixels.
            widths: Channels of the 3x3 layers; all but the first halve the resolution.
            dim: Features of one eye.
            room: Width of the cut over the width of the eye.

        Raises:
            ConfigError: No layers, a cut too small for them, or no room for the whole eye.
        """
        super().__init__()
        widths = widths or [32, 64, 128, 128]
        if room < 1.0:
            raise ConfigError(f"room: expected at least 1 eye width, got {room}.")
        if min(height, width) < 2 ** len(widths):
            raise ConfigError(
                f"height, width: expected at least {2 ** len(widths)} pixels for {len(widths)} layers, "
                f"got {height} and {width}."
            )
        self.height, self.width, self.room = height, width, room
        self.dim = 2 * dim
        layers: list[nn.Module] = []
        rows, columns, previous = height, width, 3
        for i, channels in enumerate(widths):
            stride = 1 if i == 0 else 2
            layers += [nn.Conv2d(previous, channels, 3, stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            rows, columns, previous = -(-rows // stride), -(-columns // stride), channels
        self.trunk = nn.Sequential(*layers)
        self.neck = nn.Linear(previous * rows * columns, dim)
        self.head = nn.Linear(dim, _PER_EYE)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("std", torch.ones(4))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Mean and deviation of the readings on the training split, each ``(4,)``.

        Raises:
            ShapeError: Other than four numbers.
        """
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ShapeError(
                f"expected mean and deviation of 4 readings, got {tuple(mean.shape)} and "
                f"{tuple(std.shape)}; pass the eyes and gaze columns of the motion statistics."
            )
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-6))

    def forward(self, pictures: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Features of both eyes; differentiable in the pictures.

        Args:
            pictures: ``(n, 3, H, W)`` in [-1, 1], square crops.
            landmarks: ``(n, 478, 3)`` in [0, 1] crop units, which say where the eyes are.

        Returns:
            ``(n, dim)``, at least 0.

        Raises:
            ShapeError: No landmarks, or other shapes.
        """
        return self._features(pictures, landmarks).flatten(1)

    def standardised(self, pictures: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Readings in deviations from the mean of the training split, ``(n, 4)``."""
        left, mirrored = self.head(self._features(pictures, landmarks)).unbind(1)
        # The mirrored eye looks to its own right when the picture's eye looks left.
        right = mirrored * mirrored.new_tensor([1.0, -1.0, 1.0])
        gaze = (left[:, 1:] + right[:, 1:]) / 2
        return torch.cat([left[:, :1], right[:, :1], gaze], dim=1)

    def read(self, pictures: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Eye opening and gaze in the units of the motion descriptors.

        Args:
            pictures: ``(n, 3, H, W)`` in [-1, 1], square crops.
            landmarks: ``(n, 478, 3)`` in [0, 1] crop units.

        Returns:
            ``(n, 4)``, see :data:`EYES` and :data:`GAZE`.

        Raises:
            ShapeError: No landmarks, or other shapes.
        """
        reading: Tensor = self.standardised(pictures, landmarks) * self.std + self.mean
        return reading

    def _features(self, pictures: Tensor, landmarks: Tensor | None) -> Tensor:
        """``(n, 2, dim / 2)``: the picture-left eye, then the mirrored picture-right one."""
        eyes = eye_cuts(pictures, landmarks, self.height, self.width, self.room)
        maps = self.trunk(eyes.flatten(0, 1)).flatten(1)
        both: Tensor = F.relu(self.neck(maps)).unflatten(0, (-1, 2))
        return both


def eye_cuts(
    pictures: Tensor, landmarks: Tensor | None, height: int, width: int, room: float
) -> Tensor:
    """Both eyes, turned level and cut out; bilinear, outside the border pixel is repeated.

    Args:
        pictures: ``(n, 3, H, W)``, square crops.
        landmarks: ``(n, 478, 2 or 3)`` in [0, 1] crop units; no gradient goes there.
        height: Of a cut in pixels.
        width: Of a cut in pixels.
        room: Width of the cut over the distance of the eye's corners.

    Returns:
        ``(n, 2, 3, height, width)``: the picture-left eye with its outer corner on the left, and the
        picture-right eye mirrored, so that its outer corner is on the left as well.

    Raises:
        ShapeError: No landmarks, or they do not fit the pictures.
    """
    if (
        landmarks is None
        or landmarks.ndim != 3
        or landmarks.shape[:2] != (len(pictures), N_LANDMARKS)
    ):
        found = None if landmarks is None else tuple(landmarks.shape)
        raise ShapeError(
            f"expected landmarks ({len(pictures)}, {N_LANDMARKS}, 3) of the pictures, got {found}; the "
            "eyes are found by their corners."
        )
    points = landmarks[..., :2].detach().to(pictures)
    corners = torch.as_tensor(_CORNERS, device=points.device)
    outer, inner = points[:, corners[0]], points[:, corners[1]]  # (n, 2 eyes, 2)
    # From the outer to the inner corner: to the right in the left eye, to the left in the mirrored one.
    along = room * (inner - outer)
    down = torch.stack([-along[..., 1], along[..., 0]], dim=-1) * (height / width)
    down[:, 1] = -down[:, 1]
    # Half the cut is a whole unit of grid_sample, whose picture is two units wide.
    centre = outer + inner - 1.0
    theta = torch.stack([along, down, centre], dim=-1).flatten(0, 1)
    grid = F.affine_grid(theta, [len(theta), 3, height, width], align_corners=False)
    twice = pictures.repeat_interleave(2, dim=0)
    cuts = F.grid_sample(
        twice, grid.to(pictures), mode="bilinear", padding_mode="border", align_corners=False
    )
    both: Tensor = cuts.unflatten(0, (-1, 2))
    return both


_CORNERS = [EYE_OUTER.tolist(), EYE_INNER.tolist()]
"""Outer and inner corners, each of the picture-left and the picture-right eye."""
