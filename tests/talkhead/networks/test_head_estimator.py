from __future__ import annotations

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.networks.head_estimator import Bottleneck, HeadEstimator, Widening


def test_blocks_keep_or_halve() -> None:
    maps = torch.randn(2, 8, 6, 10)
    assert Bottleneck(8)(maps).shape == (2, 8, 6, 10)
    assert Bottleneck(8, stride=2)(maps).shape == (2, 8, 3, 5)
    assert Widening(8, 12, 2, halve=True)(maps).shape == (2, 12, 3, 5)
    assert len(Widening(8, 12, 2, halve=True).blocks) == 3
    assert len(Widening(8, 12, 2, halve=False).blocks) == 2


def test_a_block_without_its_last_weights_is_a_relu() -> None:
    block, maps = Bottleneck(8).eval(), torch.randn(2, 8, 6, 10)
    torch.nn.init.zeros_(block.norm3.weight)
    assert torch.equal(block(maps), maps.relu())


def test_what_it_says_of_pictures_of_any_size() -> None:
    net = HeadEstimator(5, 4, [8, 12], [1, 2]).eval()
    for side in (32, 48):
        logits, translation, expression = net(torch.rand(2, 3, side, side))
        assert [tuple(x.shape) for x in logits] == [(2, 66)] * 3
        assert translation.shape == (2, 3)
        assert expression.shape == (2, 5, 3)
    with pytest.raises(ShapeError, match="expected RGB pictures"):
        net(torch.rand(2, 1, 32, 32))
