"""Ten learned points of a face and how the picture turns and stretches around each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import N_KEYPOINTS, Keypoints, pack
from talkhead.networks.hourglass import BlurredDownsample, Hourglass
from talkhead.networks.keypoint_maps import expected_places, softmax_in_full
from talkhead.networks.pretrained import RANDOM
from talkhead.networks.published import PublishedComponent

HEAD_KERNEL = 7


class KeypointDetector(PublishedComponent):
    """Keypoints of pictures: places by soft-argmax, Jacobians by the same heat.

    | layer                       | maps of 256 x 256 pictures  |
    |-----------------------------|-----------------------------|
    | blur, every fourth pixel    | 3 x 64 x 64                 |
    | hourglass, five halvings    | (32 + 3) x 64 x 64          |
    | 7 x 7 without padding       | K x 58 x 58 heat            |
    | 7 x 7 without padding       | 4 K x 58 x 58 Jacobians     |

    Heat is a softmax over the map divided by ``temperature``. A point is the mean place under its heat on
    a corner-aligned grid over the 58 x 58 map; a Jacobian is the mean of its four maps under the same
    heat. The Jacobian layer starts at the identity.

    Source: First Order Motion Model, section 3 and supplement A, sizes of vox-adv-256 (reference-facts
        6.1). Deviates: pictures are in [-1, 1] as everywhere in the suite; :meth:`forward` converts to
        the [0, 1] that the published weights expect.
    """

    def __init__(
        self,
        keypoints: int = N_KEYPOINTS,
        width: int = 32,
        max_width: int = 1024,
        blocks: int = 5,
        scale: float = 0.25,
        temperature: float = 0.1,
        jacobians: bool = True,
        provenance: str = RANDOM,
    ) -> None:
        """Build the network.

        Args:
            keypoints: Number ``K`` of points.
            width: Channels of the hourglass at full size.
            max_width: Its largest number of channels.
            blocks: Its halvings.
            scale: Share of the picture's side that it looks at, 1 over a whole number.
            temperature: Divides the heat before the softmax; lower is more peaked.
            jacobians: False gives every point the identity (motion of order zero).
            provenance: Where the first weights came from; set by the loader and kept in the spec.

        Raises:
            ConfigError: A number that is not positive, or a scale that is not 1 over a whole number.
        """
        super().__init__()
        if min(keypoints, width, max_width, blocks) < 1 or temperature <= 0:
            raise ConfigError(
                "keypoint_detector: expected keypoints, width, max_width, blocks and temperature above "
                f"0, got {keypoints}, {width}, {max_width}, {blocks} and {temperature}."
            )
        self.keypoints, self.temperature, self.provenance = keypoints, temperature, provenance
        self.down = BlurredDownsample(scale)
        self.hourglass = Hourglass(3, width, max_width, blocks)
        self.multiple = self.down.step << blocks
        self.heat = nn.Conv2d(self.hourglass.outputs, keypoints, HEAD_KERNEL)
        self.jacobian: nn.Conv2d | None = None
        if jacobians:
            self.jacobian = nn.Conv2d(self.hourglass.outputs, 4 * keypoints, HEAD_KERNEL)
            nn.init.zeros_(self.jacobian.weight)
            with torch.no_grad():
                assert self.jacobian.bias is not None
                self.jacobian.bias.copy_(torch.eye(2).flatten().repeat(keypoints))

    def forward(self, pictures: Tensor) -> Keypoints:
        """Keypoints of pictures.

        Args:
            pictures: RGB in [-1, 1], ``(n, 3, H, W)``.

        Returns:
            Points ``(n, K, 2)`` in [-1, 1] and Jacobians ``(n, K, 2, 2)``.

        Raises:
            ShapeError: Not RGB pictures, or sides that the halvings do not divide or that leave no map.
        """
        check_pictures(pictures, self.multiple, HEAD_KERNEL * self.down.step)
        maps = self.hourglass(self.down((pictures + 1.0) / 2.0))
        logits = self.heat(maps)
        heat = softmax_in_full(logits.flatten(2) / self.temperature, dim=2).view_as(logits)
        points = expected_places(heat)
        if self.jacobian is None:
            identity = torch.eye(2, device=points.device, dtype=points.dtype)
            return Keypoints(points, identity.expand(*points.shape, 2))
        frames = self.jacobian(maps).unflatten(1, (self.keypoints, 4))
        jacobians = (heat[:, :, None] * frames).sum(dim=(-2, -1))
        return Keypoints(points, jacobians.unflatten(-1, (2, 2)))

    def describe(self, pictures: Tensor) -> Tensor:
        """Rows ``(n, 6 K)`` of pictures ``(n, 3, H, W)`` in [-1, 1]: x, y and the Jacobian of each point."""
        found: Keypoints = self(pictures)
        return pack(found.points, found.jacobians)


def check_pictures(pictures: Tensor, multiple: int, smallest: int = 1) -> None:
    """Refuse what the halvings of a network cannot take.

    Raises:
        ShapeError: Not ``(n, 3, H, W)``, or sides below ``smallest`` or no multiples of ``multiple``.
    """
    sides = pictures.shape[2:]
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ShapeError(
            f"expected RGB pictures (n, 3, H, W) in [-1, 1], got {tuple(pictures.shape)}; put channels "
            "second and frames first."
        )
    if min(sides) < smallest or any(side % multiple for side in sides):
        raise ShapeError(
            f"expected sides of at least {smallest} pixels that are multiples of {multiple}, got "
            f"{sides[0]} x {sides[1]}; resize the pictures, or use fewer blocks or another scale."
        )
