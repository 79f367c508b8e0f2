from __future__ import annotations

import pytest
import torch

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.mouth_weighted import blended, check_share, lower_middle, mouth_of


def test_lower_half_and_middle_columns() -> None:
    maps = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(lower_middle(maps), maps[:, :, 4:8, 2:6])
    assert lower_middle(torch.zeros(2, 3, 26, 26)).shape == (2, 3, 13, 12)
    assert lower_middle(torch.zeros(1, 1, 3, 2)).shape == (1, 1, 2, 2)


def test_logits_and_features_of_every_scale() -> None:
    judged = [
        (torch.randn(2, 1, s, s), [torch.randn(2, 3, 2 * s, 2 * s), torch.randn(2, 4, s, s)])
        for s in (8, 4)
    ]
    found = mouth_of(judged)
    assert [tuple(logits.shape) for logits, _ in found] == [(2, 1, 4, 4), (2, 1, 2, 2)]
    assert torch.equal(found[0][1][0], lower_middle(judged[0][1][0]))
    assert len(found[1][1]) == 2


def test_a_third_whole_and_two_thirds_mouth() -> None:
    whole, mouth = torch.tensor(3.0), torch.tensor(6.0)
    assert float(blended(whole, mouth)) == pytest.approx(5.0)
    assert float(blended(whole, mouth, 0.0)) == 3.0
    assert float(blended(whole, mouth, 1.0)) == 6.0


def test_bad_shares_and_maps_are_refused() -> None:
    for share in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="expected a number from 0 to 1"):
            check_share(share)
    with pytest.raises(ShapeError, match="at least 2 x 2"):
        lower_middle(torch.zeros(1, 1, 1, 8))
