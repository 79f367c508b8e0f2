from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.pixel_ops import PIXEL_OPS, _median


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pictures(n: int) -> Tensor:
    coarse = torch.rand(n, 3, 6, 6, generator=_rng(9)) * 0.8 + 0.1
    return F.interpolate(coarse, size=24, mode="bilinear", align_corners=False)


def _roughness(x: Tensor) -> Tensor:
    return (x[..., 1:] - x[..., :-1]).abs().mean()


@pytest.mark.parametrize("name", sorted(PIXEL_OPS))
def test_each_operation_changes_pictures_within_its_bounds(name: str) -> None:
    x = _pictures(32)
    out = PIXEL_OPS[name](x, _rng(3))
    assert out.shape == x.shape
    # Not all: a blur of a tenth of a pixel does nothing, and every second one is elastic.
    changed = (out - x).abs().flatten(1).amax(1).gt(1e-5).float().mean()
    assert changed > (0.25 if name == "elastic" else 0.6)
    ratio = out.mean((2, 3)) / x.mean((2, 3))
    bounds = {
        "multiply": (0.5, 1.5),
        "channel_gain": (0.3, 1.6),
        "blur": (0.99, 1.01),
        "sharpen": (1.0, 1.5),
        "edges": (0.85, 1.01),
        "jpeg": (0.98, 1.02),
        "elastic": (0.98, 1.02),
    }
    low, high = bounds.get(name, (0.6, 1.4))
    assert low - 1e-3 <= ratio.min() <= ratio.max() <= high + 1e-3
    if name == "brightness":
        assert (out - x).abs().max() <= 10 / 255 + 1e-6
    if name == "channel_gain":
        assert ((out - x).abs().amax((2, 3)) > 1e-6).sum(1).max() == 1


def test_filters_smooth_and_sharpen() -> None:
    x = _pictures(16)
    assert _roughness(PIXEL_OPS["blur"](x, _rng())) < _roughness(x)
    assert _roughness(PIXEL_OPS["sharpen"](x, _rng())) > _roughness(x)
    assert _roughness(PIXEL_OPS["emboss"](x, _rng())) > _roughness(x)


@pytest.mark.parametrize("name", ["blur", "emboss", "elastic"])
def test_flat_pictures_stay_flat(name: str) -> None:
    flat = torch.full((8, 3, 8, 8), 0.3)
    torch.testing.assert_close(PIXEL_OPS[name](flat, _rng()), flat)


def test_grey_has_neither_contrast_nor_saturation() -> None:
    grey = torch.full((4, 3, 8, 8), 0.5)
    torch.testing.assert_close(PIXEL_OPS["contrast"](grey, _rng()), grey)
    torch.testing.assert_close(PIXEL_OPS["saturation"](grey, _rng()), grey)


def test_blur_is_a_gaussian_a_mean_or_a_median() -> None:
    """A single bright pixel: a median of nine removes it, their mean is a ninth."""
    dot = torch.zeros(60, 3, 7, 7)
    dot[..., 3, 3] = 1.0
    peak = PIXEL_OPS["blur"](dot, _rng())[:, 0, 3, 3]
    mean, median = (peak - 1 / 9).abs() < 1e-6, peak == 0
    gaussian = ~mean & ~median
    assert min(int(kind.sum()) for kind in (mean, median, gaussian)) > 10
    assert float(peak[gaussian].min()) > 1 / 9  # 0.16 at a deviation of one pixel


def test_median_is_torchs() -> None:
    x = torch.rand(5, 3, 9, 11, generator=_rng())
    near = F.pad(x, (1, 1, 1, 1), mode="replicate")
    unfolded = near.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    assert torch.equal(_median(near), unfolded.median(-1).values)


def test_emboss_and_edges_of_a_step_by_hand() -> None:
    """Rows of 0.4 right of column 4, 0.2 left of it: only the two columns at the step change."""
    step = torch.full((16, 3, 6, 8), 0.2)
    step[..., 4:] = 0.4
    embossed = PIXEL_OPS["emboss"](step, _rng())
    torch.testing.assert_close(embossed[..., :3], step[..., :3])
    torch.testing.assert_close(embossed[..., 5:], step[..., 5:])
    risen = embossed[..., 3:5] - step[..., 3:5]
    # share * (slope + strength * (slope + right - left)) with a slope of 0.2
    assert 0 <= float(risen.min()) <= float(risen.max()) <= 0.2 + 2 * 0.4
    torch.testing.assert_close(risen[..., 0], risen[..., 1])
    edged = PIXEL_OPS["edges"](step, _rng())
    toward = (step - edged) / step  # the blended share: away from the step the edges are 0
    assert 0 <= float(toward[..., :3].min()) <= float(toward[..., :3].max()) <= 0.15
    at_step = toward[..., 3]  # 0.2 above the left column, which is its own brightness
    torch.testing.assert_close(at_step, torch.zeros_like(at_step))


def test_elastic_moves_half_of_the_pictures_and_no_pixel_too_far() -> None:
    ramp = torch.linspace(0, 1, 256).expand(40, 3, 256, 256)
    moved = (PIXEL_OPS["elastic"](ramp, _rng()) - ramp).abs()[..., 4:-4].amax((1, 2, 3)) * 255
    assert 10 <= int((moved > 0.1).sum()) <= 30
    assert 2.5 < float(moved.max()) < 3.6  # pixels
