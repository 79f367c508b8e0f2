from __future__ import annotations

from typing import Any

import pytest
import torch

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.head_angles import binned_degrees, rotation_matrix, transform_keypoints
from talkhead.networks.component import weights_digest
from talkhead.networks.motion_extractor import HeadMotion, MotionExtractor

TINY: dict[str, Any] = {
    "keypoints": 5, "width": 4, "max_width": 8, "blocks": 2, "scale": 0.5, "depth": 3, "head_width": 4,
    "head_widths": [8, 12], "head_blocks": [1, 2],
}  # fmt: skip


def tiny(**options: Any) -> MotionExtractor:
    torch.manual_seed(0)
    return MotionExtractor(**{**TINY, **options})


def pictures(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes_and_ranges() -> None:
    made = tiny().eval()
    canonical, head = made.canonical(pictures()), made.head(pictures())
    assert canonical.shape == (2, 5, 3)
    assert canonical.abs().max() <= 1
    assert [tuple(part.shape) for part in head] == [(2, 3, 66), (2, 3), (2, 3), (2, 5, 3)]
    torch.testing.assert_close(head.degrees, binned_degrees(head.logits))
    assert made(pictures()).shape == (2, 5, 3)


def test_keypoints_are_the_canonical_ones_in_pose_place_and_expression() -> None:
    made = tiny().eval()
    canonical, head = made.canonical(pictures(1)), made.head(pictures())
    wanted = transform_keypoints(
        canonical, rotation_matrix(*head.degrees.unbind(1)), head.translation, head.expression
    )
    torch.testing.assert_close(made.keypoints(canonical, head), wanted)
    edited = head.expression + 0.25
    torch.testing.assert_close(made.keypoints(canonical, head, expression=edited), wanted + 0.25)
    torch.testing.assert_close(made.keypoints(canonical, head), wanted)  # nothing was changed


def test_a_mouth_edit_carries_gradient_to_the_expression_alone() -> None:
    made = tiny().eval().requires_grad_(False)
    canonical, head = made.canonical(pictures()), made.head(pictures())
    delta = torch.zeros(2, 5, 3, requires_grad=True)
    made.keypoints(canonical, head, expression=head.expression + delta).sum().backward()
    assert delta.grad is not None
    torch.testing.assert_close(delta.grad, torch.ones(2, 5, 3))


def test_rows_of_a_motion() -> None:
    head = tiny().eval().head(pictures(3))
    one = head.at(slice(1, 2))
    assert isinstance(one, HeadMotion)
    assert all(torch.equal(a, b[1:2]) for a, b in zip(one, head, strict=True))


def test_angles_stay_whole_in_half_precision() -> None:
    made = tiny().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made.keypoints(made.canonical(pictures()), made.head(pictures()))
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


def test_a_spec_builds_the_same_network() -> None:
    made = tiny(convention="hopenet")
    again = MotionExtractor(**made.spec)
    again.load_state_dict(made.state_dict())
    assert weights_digest(again) == weights_digest(made)
    assert again.convention == "hopenet"


def test_bad_numbers_and_pictures_are_refused() -> None:
    for options, match in (
        ({"depth": 1}, "a depth of 2 or more"),
        ({"temperature": 0.0}, "above 0"),
        ({"scale": 0.3}, "1 over a whole number"),
        ({"head_widths": [6, 8]}, "multiples of 4"),
        ({"head_widths": [8]}, "as many head_widths"),
        ({"head_blocks": [0, 1]}, "of 1 or more"),
        ({"convention": "euler"}, "expected one of geometric, hopenet"),
    ):
        with pytest.raises(ConfigError, match=match):
            tiny(**options)
    made = tiny()
    with pytest.raises(ShapeError, match="multiples of 8"):
        made.canonical(torch.zeros(1, 3, 36, 32))
    with pytest.raises(ShapeError, match="expected RGB pictures"):
        made.head(torch.zeros(3, 32, 32))
    head = made.eval().head(pictures())
    with pytest.raises(ShapeError, match="expected canonical keypoints"):
        made.keypoints(torch.zeros(3, 5, 3), head)
    with pytest.raises(ShapeError, match=r"expected degrees \(n, 3\)"):
        made.keypoints(torch.zeros(1, 5, 3), head._replace(degrees=torch.zeros(2)))
