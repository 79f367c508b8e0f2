"""The Inception v3 behind FID: the network of 2015, whose features all published numbers are made of."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor
from torchvision.models.inception import Inception3, InceptionA, InceptionC, InceptionE

from talkhead.errors import ShapeError
from talkhead.networks.component import Component
from talkhead.networks.pretrained import RANDOM, load_pretrained

INCEPTION_SHA256 = "6726825d"
"""First digits of the digest of ``pt_inception-2015-12-05-6726825d.pth``, which names itself by them."""
PUBLISHED = "published"
DIM = 2048
SIDE = 299
_CLASSES = 1008


class InceptionFeatures(Component):
    """Pooled 2048 features of pictures, those of the TensorFlow network of 2015-12-05.

    torchvision's network with three differences: average pools do not count the padding, the last block
    pools by maximum, and there are 1008 classes (unused). Pictures are scaled to 299 pixels by bilinear
    interpolation without smoothing, as pytorch-fid does; torch-fidelity follows TensorFlow's own corner rule
    and clean-fid smooths, so numbers of different tools differ by some tenths.

    Only the published weights make the distance of these features *the* FID: :attr:`judge` says whose they
    are.

    Source: Szegedy et al. (2016); Heusel et al. (2017); the file is the port of pytorch-fid.
    """

    transient: ClassVar[tuple[str, ...]] = ("weights_path", "weights_sha256")
    dim: ClassVar[int] = DIM

    def __init__(
        self,
        weights_path: str | None = None,
        weights_sha256: str | None = PUBLISHED,
        provenance: str = RANDOM,
    ) -> None:
        """Build the network.

        Args:
            weights_path: The file ``pt_inception-2015-12-05-6726825d.pth``; None leaves random features,
                which :attr:`provenance` says.
            weights_sha256: Digest the file must have, by default :data:`INCEPTION_SHA256`; None takes any.
            provenance: Set by the loader and kept in the spec.

        Raises:
            ConfigError: The weights are missing, have another digest or do not fit.
        """
        super().__init__()
        self.network = _fid_network()
        digest = weights_sha256
        if weights_sha256 == PUBLISHED:
            digest = None if weights_path is None else INCEPTION_SHA256
        loaded = load_pretrained(
            self.network,
            weights_path,
            digest,
            "FID's Inception v3 (pt_inception-2015-12-05-6726825d.pth)",
        )
        self.provenance = provenance if weights_path is None else loaded
        self.amend_spec(provenance=self.provenance)

    @property
    def judge(self) -> str:
        """Whose features these are: ``inception_v3`` as published, ``inception`` for any other weights."""
        published = self.provenance.startswith(f"file:{INCEPTION_SHA256}")
        return "inception_v3" if published else "inception"

    def forward(self, pictures: Tensor) -> Tensor:
        """Features of pictures.

        Args:
            pictures: ``(n, 3, H, W)`` in [0, 1], of any size.

        Returns:
            ``(n, 2048)``.

        Raises:
            ShapeError: Not RGB pictures.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ShapeError(
                f"expected pictures (n, 3, H, W) in [0, 1], got {tuple(pictures.shape)}."
            )
        scaled = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False)
        x = 2.0 * scaled - 1.0
        for name, part in self.network.named_children():
            if name == "avgpool":
                break
            x = part(x)
        pooled: Tensor = x.mean((2, 3))
        return pooled


class _BlockA(InceptionA):
    """Average pool without the padding."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_pool(x))]


class _BlockC(InceptionC):
    """Average pool without the padding."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_pool(x))]


class _BlockE(InceptionE):
    """Average pool without the padding."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_pool(x))]


class _LastBlock(InceptionE):
    """Maximum pool."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(F.max_pool2d(x, 3, 1, 1))]


def _mean_pool(x: Tensor) -> Tensor:
    """Mean of the 3 x 3 neighbours that exist, as TensorFlow computes it."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _fid_network() -> Inception3:
    """Torchvision's network with FID's blocks; its children are in the order in which they run."""
    network = Inception3(num_classes=_CLASSES, aux_logits=False, init_weights=False)
    network.Mixed_5b = _BlockA(192, pool_features=32)
    network.Mixed_5c = _BlockA(256, pool_features=64)
    network.Mixed_5d = _BlockA(288, pool_features=64)
    network.Mixed_6b = _BlockC(768, channels_7x7=128)
    network.Mixed_6c = _BlockC(768, channels_7x7=160)
    network.Mixed_6d = _BlockC(768, channels_7x7=160)
    network.Mixed_6e = _BlockC(768, channels_7x7=192)
    network.Mixed_7b = _BlockE(1280)
    network.Mixed_7c = _LastBlock(2048)
    return network
