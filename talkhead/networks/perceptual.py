"""Frozen public networks that say how far two pictures are apart: VGG-19 and a gaze estimator."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.vgg import cfgs, make_layers

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component
from talkhead.networks.pretrained import RANDOM, load_pretrained
from talkhead.networks.resnet_trunk import ResNetTrunk

VGG_TAPS = (1, 6, 11, 20, 29)
"""Layers of torchvision's ``vgg19.features`` behind relu1_1, relu2_1, relu3_1, relu4_1, relu5_1."""

GazeBackbone = Literal["resnet18", "resnet34", "resnet50"]
"""ResNets that L2CS comes with."""

_BACKBONES: dict[str, tuple[list[int], bool]] = {
    "resnet18": ([2, 2, 2, 2], False),
    "resnet34": ([3, 4, 6, 3], False),
    "resnet50": ([3, 4, 6, 3], True),
}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_FACE_MARGIN = 1.2


class VGG19Features(Component):
    """Five activations of VGG-19.

    Source: PC-AVS (reference-facts 3.4): pictures stay in [-1, 1] without ImageNet statistics. FOMM uses
        these statistics, with which the network was trained (``imagenet_statistics``).
    """

    transient: ClassVar[tuple[str, ...]] = ("weights_path", "weights_sha256")

    def __init__(
        self,
        weights_path: str | None = None,
        weights_sha256: str | None = None,
        provenance: str = RANDOM,
        imagenet_statistics: bool = False,
    ) -> None:
        """Build the network.

        Args:
            weights_path: File with torchvision's ``vgg19`` weights; None leaves random features,
                which :attr:`provenance` says.
            weights_sha256: Expected digest of that file.
            provenance: Set by the loader and kept in the spec.
            imagenet_statistics: Bring pictures to ImageNet's mean and deviation first.

        Raises:
            ConfigError: The weights are missing or do not fit.
        """
        super().__init__()
        self.imagenet_statistics = imagenet_statistics
        self.features = make_layers(cfgs["E"], batch_norm=False)[: VGG_TAPS[-1] + 1]
        unused = tuple(f"features.{i}." for i in range(VGG_TAPS[-1] + 1, 37))
        loaded = load_pretrained(
            self.features,
            weights_path,
            weights_sha256,
            "torchvision's vgg19 (vgg19-*.pth)",
            ignore=("classifier.", *unused),
            strip="features.",
        )
        self.provenance = provenance if weights_path is None else loaded
        self.amend_spec(provenance=self.provenance)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Pictures ``(n, 3, H, W)`` in [-1, 1] to five activations, fine to coarse.

        The side must be at least 16 pixels.
        """
        taps: list[Tensor] = []
        x = _standardised(pictures) if self.imagenet_statistics else pictures
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in VGG_TAPS:
                taps.append(x)
        return taps


class GazeFeatures(Component):
    """Pooled features of a gaze estimator on the face.

    Source: paper 1 eq. 4 and supplement I.2 (the last feature of L2CS). Deviates: the paper's 512
        dimensions exist only with ResNet-18 or -34, while the released L2CS networks are ResNet-50
        with 2048 (reference-facts 3.4); the size is that of the chosen backbone.
    """

    transient: ClassVar[tuple[str, ...]] = ("weights_path", "weights_sha256")

    def __init__(
        self,
        backbone: GazeBackbone = "resnet50",
        size: int = 448,
        box: list[float] | None = None,
        width: int = 64,
        weights_path: str | None = None,
        weights_sha256: str | None = None,
        provenance: str = RANDOM,
    ) -> None:
        """Build the network.

        Args:
            backbone: ResNet under the gaze heads.
            size: Side of the resized face in pixels (448 in L2CS).
            box: Fixed face region ``x0, y0, x1, y1`` in [0, 1] of the picture, used without
                landmarks; by default the whole picture.
            width: Planes of the first stage (64 in every published file).
            weights_path: File with L2CS weights, or None.
            weights_sha256: Expected digest of that file.
            provenance: Set by the loader and kept in the spec.

        Raises:
            ConfigError: Unknown backbone, an empty box, or weights that are missing or do not fit.
        """
        super().__init__()
        if backbone not in _BACKBONES:
            raise ConfigError(f"backbone: expected {', '.join(_BACKBONES)}, got {backbone!r}.")
        box = box or [0.0, 0.0, 1.0, 1.0]
        if len(box) != 4 or box[2] <= box[0] or box[3] <= box[1]:
            raise ConfigError(f"box: expected x0 < x1 and y0 < y1, got {box}.")
        layers, bottleneck = _BACKBONES[backbone]
        self.size, self.box = size, box
        self.trunk = ResNetTrunk(layers, bottleneck=bottleneck, width=width)
        self.dim = self.trunk.channels
        loaded = load_pretrained(
            self.trunk,
            weights_path,
            weights_sha256,
            f"L2CS-Net with {backbone} (L2CSNet_gaze360.pkl)",
            ignore=("fc_", "fc."),
        )
        self.provenance = provenance if weights_path is None else loaded
        self.amend_spec(provenance=self.provenance)

    def forward(self, pictures: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Features of the faces; differentiable in the pictures.

        Args:
            pictures: ``(n, 3, H, W)`` in [-1, 1].
            landmarks: ``(n, 478, 3)`` in [0, 1] crop units; the face is the square around them, 1.2
                times their extent. None uses the fixed region.

        Returns:
            ``(n, dim)``.
        """
        if landmarks is None:
            boxes = pictures.new_tensor(self.box).expand(len(pictures), 4)
        else:
            boxes = face_boxes(landmarks.to(pictures))
        faces = crop(pictures, boxes, self.size)
        features: Tensor = self.trunk(_standardised(faces)).mean((2, 3))
        return features


def _standardised(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] with the mean and deviation that ImageNet's networks were trained with."""
    mean = pictures.new_tensor(_IMAGENET_MEAN)[:, None, None]
    std = pictures.new_tensor(_IMAGENET_STD)[:, None, None]
    return ((pictures + 1.0) / 2.0 - mean) / std


def face_boxes(landmarks: Tensor, margin: float = _FACE_MARGIN) -> Tensor:
    """Square boxes ``(n, 4)`` as ``x0, y0, x1, y1`` around landmarks ``(n, P, 2 or 3)``.

    Raises:
        ShapeError: Not three axes with at least x and y in the last.
    """
    if landmarks.ndim != 3 or landmarks.shape[-1] < 2:
        raise ShapeError(f"expected landmarks (n, points, 3), got {tuple(landmarks.shape)}.")
    points = landmarks[..., :2].detach()
    low, high = points.amin(1), points.amax(1)
    centre = (low + high) / 2
    half = margin * (high - low).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def crop(pictures: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut and resize boxes, bilinear and differentiable; outside, the border pixel is repeated.

    Args:
        pictures: ``(n, 3, H, W)``.
        boxes: ``(n, 4)`` as ``x0, y0, x1, y1`` in [0, 1] of the picture; ``0, 0, 1, 1`` is all of
            it.
        size: Side of the result in pixels.

    Returns:
        ``(n, 3, size, size)``.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    theta = boxes.new_zeros(len(boxes), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = (high - low).unbind(1)
    theta[:, :, 2] = low + high - 1.0  # box centre in the [-1, 1] units of grid_sample
    grid = F.affine_grid(theta, [len(boxes), 3, size, size], align_corners=False)
    return F.grid_sample(pictures, grid.to(pictures), padding_mode="border", align_corners=False)
