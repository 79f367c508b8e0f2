"""Motion encoder: everything that moves in a face, without who it is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torchvision.models.mobilenetv2 import MobileNetV2

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component
from talkhead.networks.pretrained import RANDOM, load_pretrained


class MotionEncoder(Component):
    """MobileNetV2 giving the motion code ``f_v``.

    Source: paper 1, supplement I.2 (E_v, a MobileNetV2 pre-trained the LPD way); 512 outputs
        because both heads on top are 512x512 (reference-facts 1.1). Inputs stay in [-1, 1] without
        ImageNet statistics. Deviates: no dropout, as the code is a representation and not a class;
        ``stem_stride`` keeps resolution on small pictures.
    """

    transient: ClassVar[tuple[str, ...]] = ("weights_path", "weights_sha256")

    def __init__(
        self,
        dim: int = 512,
        width_mult: float = 1.0,
        stem_stride: int = 2,
        weights_path: str | None = None,
        weights_sha256: str | None = None,
        provenance: str = RANDOM,
    ) -> None:
        """Build the encoder.

        Args:
            dim: Size of ``f_v``.
            width_mult: Width of all layers relative to MobileNetV2.
            stem_stride: Stride of the first convolution; 1 for pictures of about 64 pixels, of
                which five halvings would leave 2 x 2 cells (four times the cost of 2).
            weights_path: File with torchvision's ``mobilenet_v2`` weights, or None.
            weights_sha256: Expected digest of that file.
            provenance: Where the backbone's first weights came from; set by the loader and kept in
                the spec.

        Raises:
            ConfigError: A stride other than 1 or 2, or weights that are missing or do not fit.
        """
        super().__init__()
        if stem_stride not in (1, 2):
            raise ConfigError(f"stem_stride: expected 1 or 2, got {stem_stride}.")
        self.dim = dim
        self.trunk = MobileNetV2(num_classes=dim, width_mult=width_mult, dropout=0.0)
        loaded = load_pretrained(
            self.trunk.features,
            weights_path,
            weights_sha256,
            "torchvision's mobilenet_v2 (mobilenet_v2-*.pth)",
            ignore=("classifier.",),
            strip="features.",
        )
        stem = self.trunk.features[0][0]
        stem.stride = (stem_stride, stem_stride)
        self.provenance = provenance if weights_path is None else loaded
        self.amend_spec(provenance=self.provenance)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(n, 3, H, W)`` in [-1, 1] to codes ``(n, dim)``.

        Raises:
            ShapeError: Not RGB pictures.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ShapeError(
                f"expected pictures (n, 3, H, W), got {tuple(pictures.shape)}; flatten frames."
            )
        code: Tensor = self.trunk(pictures)
        return code
