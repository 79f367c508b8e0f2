from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from talkhead.errors import ShapeError
from talkhead.geometry.mouth_box import crop_mouth, mouth_boxes, run_boxes


def face(
    chin: float = 0.9, nose: float = 0.5, corners: tuple[float, float] = (0.4, 0.6)
) -> torch.Tensor:
    points = torch.full((68, 2), 0.5)
    points[:17, 1] = torch.cat([torch.linspace(0.3, chin, 9), torch.linspace(chin, 0.3, 9)[1:]])
    points[29, 1] = nose
    points[48], points[54] = torch.tensor([corners[0], 0.7]), torch.tensor([corners[1], 0.7])
    return points


def test_the_box_of_the_docstring() -> None:
    box = mouth_boxes(face())
    torch.testing.assert_close(box, torch.tensor([0.225, 0.5, 0.775, 0.995]))


def test_a_mouth_wider_than_the_face_is_long_sets_the_size() -> None:
    # r = 1.1 / 2 * 0.3 = 0.165
    box = mouth_boxes(face(chin=0.6, corners=(0.3, 0.6)))
    torch.testing.assert_close(box, torch.tensor([0.24375, 0.5, 0.65625, 0.87125]))


def test_bounds_stay_in_the_picture_unless_asked() -> None:
    low = face(chin=1.2, nose=0.6)
    assert mouth_boxes(low)[3] == 1.0
    torch.testing.assert_close(mouth_boxes(low, limit=None)[3], torch.tensor(0.6 + 2.25 * 0.33))
    pixels = mouth_boxes(256 * face(), limit=256.0)
    torch.testing.assert_close(pixels, 256 * mouth_boxes(face()))


def test_a_run_shares_its_mean_box() -> None:
    points = torch.stack([face(0.8), face(0.9)])[None]
    own = run_boxes(points, "frame")
    assert own.shape == (1, 2, 4)
    assert not torch.equal(own[0, 0], own[0, 1])
    shared = run_boxes(points)
    torch.testing.assert_close(shared, own.mean(1, keepdim=True).expand(1, 2, 4))
    with pytest.raises(ShapeError, match="expected points"):
        run_boxes(face())


def test_cropping_is_cutting_and_resizing_with_aligned_corners() -> None:
    pictures = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[4 / 20, 2 / 16, 14 / 20, 12 / 16]]).repeat(2, 1)
    cut = pictures[:, :, 2:12, 4:14]
    torch.testing.assert_close(crop_mouth(pictures, boxes, 10), cut)
    resized = F.interpolate(cut, size=(7, 7), mode="bilinear", align_corners=True)
    torch.testing.assert_close(crop_mouth(pictures, boxes, 7), resized)


def test_a_box_without_area_shows_the_pixel_it_lies_on() -> None:
    pictures = torch.arange(16.0).reshape(1, 1, 4, 4)
    out = crop_mouth(pictures, torch.tensor([[0.625, 0.375, 0.625, 0.375]]), 3)
    assert out.unique().tolist() == [6.0]


def test_gradients_reach_pictures_and_boxes() -> None:
    random = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 1, 6, 6, generator=random, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor(
        [[0.11, 0.23, 0.81, 0.92], [0.3, 0.17, 0.77, 0.71]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda p, b: crop_mouth(p, b, 3), (pictures, boxes))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="flatten runs"):
        crop_mouth(torch.zeros(2, 3, 8, 8), torch.zeros(3, 4))
    with pytest.raises(ShapeError, match="expected points"):
        mouth_boxes(torch.zeros(478, 3))
