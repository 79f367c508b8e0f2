from __future__ import annotations

import torch

from talkhead.networks.canonical_keypoints import CanonicalKeypoints


def detector(**options: float) -> CanonicalKeypoints:
    torch.manual_seed(0)
    return CanonicalKeypoints(
        keypoints=4, width=4, max_width=8, blocks=2, scale=0.5, depth=3,
        temperature=options.get("temperature", 0.1),
    ).eval()  # fmt: skip


def test_even_heat_is_the_middle_and_heat_on_one_side_is_there() -> None:
    made, pictures = detector(), torch.rand(1, 3, 16, 24)
    torch.nn.init.zeros_(made.heat.weight)
    torch.nn.init.zeros_(made.heat.get_parameter("bias"))
    torch.testing.assert_close(made(pictures), torch.zeros(1, 4, 3), atol=1e-6, rtol=0)


def test_a_low_temperature_peaks() -> None:
    torch.manual_seed(1)
    pictures = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        spread = [float(detector(temperature=t)(pictures).abs().mean()) for t in (1000.0, 0.001)]
    assert spread[0] < 0.05 < spread[1]


def test_gradient_reaches_every_layer() -> None:
    made = detector().train()
    made(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
