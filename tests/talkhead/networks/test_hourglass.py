from __future__ import annotations

import pytest
import torch
from torch import nn

from talkhead.errors import ConfigError
from talkhead.networks.hourglass import BlurredDownsample, DownBlock, Hourglass, UpBlock
from tests.oracles import fomm


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_blurred_downsampling_equals_the_loop(step: int) -> None:
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 12, 24)
    found = BlurredDownsample(1 / step)(pictures)
    torch.testing.assert_close(found, fomm.downsampled(pictures, step))


def test_blur_at_a_quarter_has_thirteen_taps_of_deviation_one_and_a_half() -> None:
    weight = BlurredDownsample(0.25).weight
    assert weight.shape == (3, 1, 13, 13)
    assert weight[0].sum().item() == pytest.approx(1.0, abs=1e-6)
    # exp(-1 / (2 * 1.5^2)) between neighbours of the middle
    assert (weight[0, 0, 6, 7] / weight[0, 0, 6, 6]).item() == pytest.approx(0.800737, abs=1e-5)


def test_blurred_downsampling_keeps_a_constant_away_from_the_edge() -> None:
    small = BlurredDownsample(0.25)(torch.full((1, 3, 64, 64), 0.7))
    assert small.shape == (1, 3, 16, 16)
    torch.testing.assert_close(small[..., 2:-2, 2:-2], torch.full((1, 3, 12, 12), 0.7))
    assert (small[..., 0, :] < 0.6).all()  # zeros lie outside


@pytest.mark.parametrize("scale", [0.0, -0.5, 0.3, 2.0])
def test_scales_that_are_no_whole_step_are_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="1 over a whole number"):
        BlurredDownsample(scale)


def test_hourglass_widths() -> None:
    net = Hourglass(inputs=5, width=4, max_width=12, blocks=3)
    down = [(b.conv.in_channels, b.conv.out_channels) for b in _blocks(net.encoder)]
    up = [(b.conv.in_channels, b.conv.out_channels) for b in _blocks(net.decoder)]
    assert down == [(5, 8), (8, 12), (12, 12)]
    assert up == [(12, 12), (24, 8), (16, 4)]
    assert net.outputs == 9
    assert net(torch.zeros(2, 5, 8, 16)).shape == (2, 9, 8, 16)


def test_hourglass_passes_its_input_on_untouched() -> None:
    maps = torch.rand(1, 5, 8, 8)
    assert torch.equal(Hourglass(5, 4, 12, 3).eval()(maps)[:, 4:], maps)


def _blocks(blocks: nn.ModuleList) -> list[DownBlock | UpBlock]:
    return [block for block in blocks if isinstance(block, DownBlock | UpBlock)]
