"""LPIPS: how different two pictures look, by AlexNet's features and learned weights for each channel."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component
from talkhead.networks.pretrained import RANDOM, load_pretrained

ALEXNET_SHA256 = "7be5be79"
"""First digits of the digest of torchvision's ``alexnet-owt-7be5be79.pth``, which names itself by them."""
PUBLISHED = "published"
TAPS = (1, 4, 7, 9, 11)
"""Layers of ``alexnet.features`` behind the five ReLUs."""
CHANNELS = (64, 192, 384, 256, 256)
MIN_SIDE = 35
"""Smallest picture that leaves something for the last layer."""
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-8


def bundled_linear_weights() -> str | None:
    """Path of the linear weights (version 0.1, AlexNet) inside torchmetrics' wheel; None without them."""
    found = util.find_spec("torchmetrics")
    for place in (found.submodule_search_locations or []) if found is not None else []:
        file = Path(place, "functional", "image", "lpips_models", "alex.pth")
        if file.is_file():
            return str(file)
    return None


class LPIPSNetwork(Component):
    """Distance of two pictures, 0 for equal ones.

    ``d = sum_l mean_{y,x} w_l . (a_l / |a_l| - b_l / |b_l|)^2`` over the five ReLUs of AlexNet, where ``a``
    and ``b`` are the activations at a place and ``w_l >= 0`` the learned weights of the channels.

    Source: Zhang et al. (2018), version 0.1 ("lin", AlexNet).
    """

    transient: ClassVar[tuple[str, ...]] = ("weights_path", "weights_sha256", "linear_path")
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        weights_path: str | None = None,
        weights_sha256: str | None = PUBLISHED,
        linear_path: str | None = None,
        provenance: str = RANDOM,
        linear_provenance: str = RANDOM,
    ) -> None:
        """Build the network.

        Args:
            weights_path: File with torchvision's ``alexnet`` weights; None leaves them random, which
                :attr:`provenance` says.
            weights_sha256: Digest that file must have, by default :data:`ALEXNET_SHA256`; None takes any.
            linear_path: File with the linear weights (``alex.pth`` of LPIPS 0.1); None leaves them random.
            provenance: Set by the loader and kept in the spec.
            linear_provenance: Likewise, of the linear weights.

        Raises:
            ConfigError: Weights that are missing, have another digest or do not fit.
        """
        super().__init__()
        self.features = _features()
        layers = [nn.Conv2d(width, 1, 1, bias=False) for width in CHANNELS]
        self.linear = nn.ModuleList(layers)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)
        digest = weights_sha256
        if weights_sha256 == PUBLISHED:
            digest = None if weights_path is None else ALEXNET_SHA256
        what = "torchvision's alexnet (alexnet-owt-7be5be79.pth)"
        loaded = load_pretrained(
            self.features, weights_path, digest, what, ignore=("classifier.",), strip="features."
        )
        # The file calls the layers lin0.model.1 … lin4.model.1: behind a dropout, which does nothing here.
        named = nn.ModuleDict(
            {
                f"lin{i}": nn.ModuleDict({"model": nn.ModuleDict({"1": layer})})
                for i, layer in enumerate(self.linear)
            }
        )
        linear = load_pretrained(named, linear_path, None, "LPIPS's linear weights (alex.pth)")
        if linear != RANDOM and any(bool((layer.weight < 0).any()) for layer in layers):
            raise ConfigError(
                f"{linear_path}: expected linear weights of at least 0, got negative ones; pass alex.pth of "
                "LPIPS version 0.1."
            )
        self.provenance = provenance if weights_path is None else loaded
        self.linear_provenance = linear_provenance if linear_path is None else linear
        self.amend_spec(provenance=self.provenance, linear_provenance=self.linear_provenance)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of pictures.

        Args:
            a: ``(n, 3, H, W)`` in [-1, 1], sides of at least 35.
            b: Same shape.

        Returns:
            ``(n,)``, at least 0; lower is more alike.

        Raises:
            ShapeError: Not two equal stacks of RGB pictures, or pictures that are too small.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[-2:]) < MIN_SIDE:
            raise ShapeError(
                f"expected two stacks of pictures (n, 3, H, W) of at least {MIN_SIDE} pixels a side, got "
                f"{tuple(a.shape)} and {tuple(b.shape)}; compare the same frames at one size."
            )
        x = (torch.cat([a, b]) - self.shift) / self.scale
        total = a.new_zeros(len(a))
        level = 0
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in TAPS:
                unit = x / (x.square().sum(1, keepdim=True) + _EPS).sqrt()
                ours, theirs = unit.chunk(2)
                total = total + self.linear[level]((ours - theirs).square()).mean((1, 2, 3))
                level += 1
        return total


def _features() -> nn.Sequential:
    """AlexNet's convolutions up to the last ReLU, numbered as torchvision numbers them."""
    kernels = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
    layers: list[nn.Module] = []
    previous = 3
    for i, (width, (kernel, stride, padding)) in enumerate(zip(CHANNELS, kernels, strict=True)):
        if i in (1, 2):
            layers.append(nn.MaxPool2d(3, 2))
        layers += [nn.Conv2d(previous, width, kernel, stride, padding), nn.ReLU()]
        previous = width
    return nn.Sequential(*layers)
