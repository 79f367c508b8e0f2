"""Feature matching: generated pictures should look like real ones to the discriminator's layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError


def feature_matching_loss(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]
) -> Tensor:
    r"""``1/S sum_s sum_n mean |D_sn(real) - D_sn(fake)|`` over scales ``s`` and layers ``n``.

    Args:
        real: Features of real pictures by scale and layer; taken as constants.
        fake: Features of generated pictures, the same structure.

    Returns:
        Scalar.

    Raises:
        ShapeError: The two differ in scales, layers or shapes.

    Source: paper 1 eq. II with PC-AVS' normalisation (reference-facts 3.4); the first feature is
        the picture, which makes this the paper's L1 loss.
    """
    if not real or [len(x) for x in real] != [len(x) for x in fake]:
        raise ShapeError(
            f"expected the same scales and layers, got {[len(x) for x in real]} layers (real) and "
            f"{[len(x) for x in fake]} (fake); pass the features of one discriminator."
        )
    terms = []
    for layers_real, layers_fake in zip(real, fake, strict=True):
        for r, f in zip(layers_real, layers_fake, strict=True):
            if r.shape != f.shape:
                raise ShapeError(
                    f"expected features of one shape, got {tuple(r.shape)} and {tuple(f.shape)}; "
                    "generated and real pictures must have the same size."
                )
            terms.append(F.l1_loss(f, r.detach()))
    return torch.stack(terms).sum() / len(real)
