from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.face_topology import EYE_INNER, EYE_OUTER
from talkhead.networks.component import weights_digest
from talkhead.networks.gaze import EYES, GAZE, GazeNet, eye_cuts

LEFT, RIGHT = (0.3, 0.4), (0.7, 0.4)
HALF = 0.1
"""Half the width of an eye in crop units."""


def faces(count: int = 1, roll: float = 0.0) -> Tensor:
    """Landmarks whose eye corners lie around two centres, on lines that fall by ``roll`` to the right."""
    points = torch.rand(count, 478, 3, generator=torch.Generator().manual_seed(0))
    step = HALF * torch.tensor([math.cos(roll), math.sin(roll)])
    for eye, centre in enumerate((LEFT, RIGHT)):
        middle = torch.tensor(centre)
        outwards = -step if eye == 0 else step
        points[:, EYE_OUTER[eye], :2] = middle + outwards
        points[:, EYE_INNER[eye], :2] = middle - outwards
    return points


def ramp(size: int = 40) -> Tensor:
    """A picture whose channels are its x and y in crop units, and 0."""
    at = (torch.arange(size) + 0.5) / size
    return torch.stack(
        [at.expand(size, size), at[:, None].expand(size, size), torch.zeros(size, size)]
    )[None]


def small(**options: object) -> GazeNet:
    torch.manual_seed(0)
    values = {"height": 8, "width": 12, "widths": [4, 8], "dim": 6, **options}
    return GazeNet(**values).eval()  # type: ignore[arg-type]  # options of several types


@pytest.mark.parametrize("roll", [0.0, 0.3, -1.0])
def test_cuts_show_the_places_they_should(roll: float) -> None:
    """Every pixel of a cut is where a plain loop says, in a picture that shows its coordinates."""
    height, width, room = 5, 8, 1.5
    cuts = eye_cuts(ramp(), faces(roll=roll), height, width, room)[0]
    c, s = math.cos(roll), math.sin(roll)
    for eye, (x0, y0) in enumerate((LEFT, RIGHT)):
        for i in range(height):
            for j in range(width):
                right = room * HALF * ((j + 0.5) / width * 2 - 1)
                down = room * HALF * (height / width) * ((i + 0.5) / height * 2 - 1)
                if eye == 1:
                    right = -right  # mirrored
                wanted = (x0 + right * c - down * s, y0 + right * s + down * c)
                found = cuts[eye, :2, i, j].tolist()
                assert found == pytest.approx(wanted, abs=1e-5)


def test_both_eyes_of_a_mirrored_face_change_places() -> None:
    network = small()
    picture = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    read = network.standardised(picture, faces())[0]
    mirrored = network.standardised(picture.flip(-1), faces())[0]  # the eyes lie symmetrically
    left, right, x, y = read.tolist()
    assert mirrored.tolist() == pytest.approx([right, left, -x, y], abs=1e-5)
    assert abs(left - right) > 1e-3
    assert abs(x) > 1e-3


def test_only_the_eyes_count_and_roll_does_not() -> None:
    network = small()
    picture = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    elsewhere = picture.clone()
    elsewhere[..., 24:, :] = 0.0
    features = network(picture, faces())
    assert features.shape == (1, network.dim)
    assert torch.equal(features, network(elsewhere, faces()))
    other = faces()
    still = torch.ones(478, dtype=torch.bool)
    still[[*EYE_OUTER.tolist(), *EYE_INNER.tolist()]] = False
    other[:, still] = 0.0  # irises and lids are not told
    other[..., 2] = 9.0
    assert torch.equal(features, network(picture, other))


def test_readings_are_in_the_units_of_the_statistics() -> None:
    network, picture = small(), torch.zeros(2, 3, 40, 40)
    mean, std = torch.tensor([0.3, 0.2, 0.0, 0.1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    plain = network.standardised(picture, faces(2))
    network.set_statistics(mean, std)
    torch.testing.assert_close(network.read(picture, faces(2)), plain * std + mean)
    assert slice(0, 2) == EYES
    assert slice(2, 4) == GAZE
    with pytest.raises(ShapeError, match="4 readings"):
        network.set_statistics(mean[:3], std)


def test_pictures_get_a_gradient_and_landmarks_none() -> None:
    network, points = small(), faces().requires_grad_()
    picture = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(2)).requires_grad_()
    network(picture, points).sum().backward()
    assert points.grad is None
    assert picture.grad is not None
    rows = picture.grad.abs().sum((0, 1, 3))
    assert rows[12:20].sum() > 0
    assert rows[24:].sum() == 0


def test_half_precision_stays_finite() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = small()(torch.zeros(1, 3, 40, 40), faces())
    assert bool(out.isfinite().all())


def test_the_spec_rebuilds_it() -> None:
    network = small()
    again = GazeNet(**network.spec)
    again.load_state_dict(network.state_dict(), strict=True)
    assert weights_digest(again) == weights_digest(network)
    assert sum(p.numel() for p in GazeNet().parameters()) < 1e6


def test_wrong_options_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="room"):
        small(room=0.9)
    with pytest.raises(ConfigError, match="at least 16 pixels for 4 layers, got 8 and 12"):
        small(widths=[4, 4, 4, 4])
    picture = torch.zeros(2, 3, 40, 40)
    with pytest.raises(ShapeError, match=r"landmarks \(2, 478, 3\) of the pictures, got None"):
        small()(picture)
    with pytest.raises(ShapeError, match=r"got \(1, 478, 3\)"):
        small()(picture, faces(1))
