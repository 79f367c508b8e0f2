"""More weight on the mouth: a part of every loss is taken on the lower middle of the maps alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from talkhead.errors import ConfigError, ShapeError

MOUTH_SHARE = 2.0 / 3.0
"""NetEase's share of the mouth; the other third is the whole map."""


def lower_middle(maps: Tensor) -> Tensor:
    """Lower half and middle half of the width of maps, where the mouth of a cropped face is.

    Of 8 x 8 maps, rows 4 to 7 and columns 2 to 5.

    Args:
        maps: ``(n, C, H, W)``, at least 2 x 2.

    Returns:
        A view ``(n, C, ceil(H / 2), about W / 2)``.

    Raises:
        ShapeError: Smaller maps.

    Source: NetEase's renderer training (reference-facts 7.2).
    """
    if maps.ndim != 4 or min(maps.shape[2:]) < 2:
        raise ShapeError(
            f"expected maps (n, C, H, W) of at least 2 x 2, got {tuple(maps.shape)}; use fewer blocks of "
            "the discriminator, or a mouth_share of 0."
        )
    height, width = maps.shape[2:]
    middle, half = width // 2, max(1, width // 4)
    return maps[:, :, height // 2 :, middle - half : middle + half]


def mouth_of(
    judgements: Sequence[tuple[Tensor, list[Tensor]]],
) -> list[tuple[Tensor, list[Tensor]]]:
    """Logits and features of every scale of a discriminator, :func:`lower_middle` of each.

    Raises:
        ShapeError: Maps smaller than 2 x 2.
    """
    return [
        (lower_middle(logits), [lower_middle(x) for x in features])
        for logits, features in judgements
    ]


def blended(whole: Tensor, mouth: Tensor, share: float = MOUTH_SHARE) -> Tensor:
    """``(1 - share) whole + share mouth``.

    Args:
        whole: A loss of whole maps.
        mouth: The same loss of their :func:`lower_middle`.
        share: In [0, 1]; 0 is the plain loss.

    Raises:
        ConfigError: Another share.
    """
    check_share(share)
    return (1.0 - share) * whole + share * mouth


def check_share(share: float) -> None:
    """Refuse a share outside [0, 1].

    Raises:
        ConfigError: Such a share.
    """
    if not 0.0 <= share <= 1.0:
        raise ConfigError(
            f"mouth_share: expected a number from 0 to 1, got {share}; 0 turns it off."
        )
