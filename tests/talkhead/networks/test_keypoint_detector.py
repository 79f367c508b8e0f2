from __future__ import annotations

from typing import Any

import pytest
import torch

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import unpack
from talkhead.networks.component import weights_digest
from talkhead.networks.keypoint_detector import KeypointDetector

TINY: dict[str, Any] = {"keypoints": 4, "width": 4, "max_width": 8, "blocks": 2, "scale": 0.5}


def tiny(**options: Any) -> KeypointDetector:
    torch.manual_seed(0)
    return KeypointDetector(**{**TINY, **options})


def test_full_size_has_the_parameters_of_the_published_network() -> None:
    down = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    up = [(1024, 512), (1024, 256), (512, 128), (256, 64), (128, 32)]
    # 3 x 3 weights, their bias, and gain and bias of the norm
    blocks = sum(9 * a * b + 3 * b for a, b in down + up)
    heads = 49 * (32 + 3) * (10 + 40) + 10 + 40
    detector = KeypointDetector()
    assert sum(p.numel() for p in detector.parameters()) == blocks + heads == 14_215_368


def test_keypoints_are_places_in_the_picture_and_identities_at_first() -> None:
    found = tiny()(2 * torch.rand(3, 3, 32, 48) - 1)
    assert found.points.shape == (3, 4, 2)
    assert found.points.abs().max() < 1
    torch.testing.assert_close(found.jacobians, torch.eye(2).expand(3, 4, 2, 2))


def test_without_jacobians_every_frame_is_the_identity() -> None:
    detector = tiny(jacobians=False)
    found = detector(torch.zeros(2, 3, 32, 32))
    assert torch.equal(found.jacobians, torch.eye(2).expand(2, 4, 2, 2))
    assert not any("jacobian" in name for name in detector.state_dict())


def test_rows_are_the_packed_keypoints() -> None:
    detector = tiny().eval()
    pictures = torch.rand(2, 3, 32, 32)
    found, rows = detector(pictures), detector.describe(pictures)
    assert rows.shape == (2, 24)
    assert torch.equal(unpack(rows).points, found.points)
    assert torch.equal(unpack(rows).jacobians, found.jacobians)


def test_a_lower_temperature_pulls_points_to_their_peak() -> None:
    pictures = 2 * torch.rand(1, 3, 64, 64) - 1
    warm, cold = tiny(temperature=100.0).eval(), tiny(temperature=1e-4).eval()
    assert warm(pictures).points.abs().max() < 0.01  # nearly even heat: the middle
    places = (cold(pictures).points + 1) / 2 * 25  # 26 x 26 maps
    torch.testing.assert_close(places, places.round(), atol=0.02, rtol=0)


def test_every_weight_learns() -> None:
    detector = tiny()
    found = detector(torch.rand(2, 3, 32, 32))
    weights = torch.randn_like(found.jacobians)
    (found.points.square().sum() + (weights * found.jacobians).sum()).backward()
    assert all(p.grad is not None for p in detector.parameters())
    deepest = detector.get_parameter("hourglass.encoder.1.conv.weight").grad
    assert deepest is not None
    assert deepest.abs().sum() > 0


def test_a_frame_does_not_depend_on_its_neighbours() -> None:
    detector, pictures = tiny().eval(), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(detector(pictures).points[1:2], detector(pictures[1:2]).points)


def test_half_precision_finds_the_same_points() -> None:
    detector, pictures = tiny().eval(), torch.rand(2, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = detector(pictures)
    assert found.points.dtype == found.jacobians.dtype == torch.float32
    torch.testing.assert_close(found.points, detector(pictures).points, atol=0.05, rtol=0)


def test_spec_rebuilds_it_and_training_is_noted() -> None:
    detector = tiny(provenance="file:abc")
    again = KeypointDetector(**detector.spec)
    again.load_state_dict(detector.state_dict(), strict=True)
    assert weights_digest(again) == weights_digest(detector)
    again.note_training()
    again.note_training()
    assert again.provenance == again.spec["provenance"] == "trained from file:abc"
    random = tiny()
    random.note_training()
    assert random.provenance == "random"


@pytest.mark.parametrize(
    "options", [{"keypoints": 0}, {"blocks": 0}, {"temperature": 0.0}, {"scale": 0.7}]
)
def test_impossible_sizes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        tiny(**options)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 32, 36), (1, 3, 8, 32)])
def test_pictures_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected (RGB pictures|sides of at least 14)"):
        tiny()(torch.zeros(shape))
