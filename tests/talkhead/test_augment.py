from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.augment import (
    MAX_SHIFT,
    MAX_ZOOM,
    another_look,
    augment_pose_input,
    pixel_noise,
    shared_look,
    shared_shift,
    squeeze_aspect,
)
from talkhead.errors import ShapeError


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pictures(n: int = 4, size: int = 24) -> Tensor:
    coarse = torch.rand(n, 3, 6, 6, generator=_rng(9)) * 1.6 - 0.8
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


def _dots(n: int, size: int, at: tuple[float, float]) -> Tensor:
    """Gaussian dots at ``(x, y)`` in picture units."""
    axis = (torch.arange(size) + 0.5) / size
    dot = torch.exp(-0.5 * ((axis - at[1])[:, None].square() + (axis - at[0]).square()) / 0.03**2)
    return (2 * dot - 1).expand(n, 3, size, size).contiguous()


def _centre(pictures: Tensor) -> Tensor:
    """Centre of brightness ``(n, 2)`` as x, y in picture units."""
    size = pictures.shape[-1]
    axis = (torch.arange(size) + 0.5) / size
    mass = (pictures[:, 0] + 1) / 2
    mass = mass * (mass > 0.05)
    total = mass.sum((1, 2))
    return torch.stack(
        [(mass.sum(1) * axis).sum(1) / total, (mass.sum(2) * axis).sum(1) / total], 1
    )


def test_same_generator_same_pictures() -> None:
    pictures = _pictures()
    first = augment_pose_input(pictures, _rng(1))
    assert torch.equal(first, augment_pose_input(pictures, _rng(1)))
    assert not torch.equal(first, augment_pose_input(pictures, _rng(2)))
    torch.manual_seed(4)
    globally = augment_pose_input(pictures)
    torch.manual_seed(4)
    assert torch.equal(globally, augment_pose_input(pictures))


def test_range_shape_type_and_input_untouched() -> None:
    pictures = _pictures(16)
    before = pictures.clone()
    out = augment_pose_input(pictures, _rng())
    assert torch.equal(pictures, before)
    assert out.shape == pictures.shape
    assert out.dtype == pictures.dtype
    assert out.abs().max() <= 1
    assert torch.isfinite(augment_pose_input(pictures.to(torch.bfloat16), _rng())).all()


def test_switched_off_is_the_identity() -> None:
    pictures = _pictures()
    assert torch.equal(augment_pose_input(pictures, _rng(), pixel=False, squeeze=False), pictures)


def test_pictures_draw_their_own_numbers() -> None:
    same = _pictures(1).expand(64, 3, 24, 24)
    out = pixel_noise(same, _rng())
    unchanged = (out - same).abs().flatten(1).amax(1) < 1e-6
    # No operation for one picture in six; the others differ from each other.
    assert 2 <= int(unchanged.sum()) <= 24
    assert len({round(float(v), 6) for v in out[~unchanged].mean((1, 2, 3))}) > 30


def test_squeeze_changes_the_aspect_ratio_of_half_of_the_pictures() -> None:
    dots = _dots(200, 48, (0.7, 0.7))
    offset = _centre(squeeze_aspect(dots, _rng())) - 0.5
    factor = offset / (_centre(dots) - 0.5)
    moved = (factor - 1).abs().amax(1) > 0.01
    assert 0.35 < moved.float().mean() < 0.65
    assert 0.78 < factor.min() < 0.85
    assert 1.15 < factor.max() < 1.22
    # Width and height are scaled apart.
    assert torch.corrcoef(factor[moved].T)[0, 1].abs() < 0.3


def test_squeeze_of_one_is_exact() -> None:
    pictures = _pictures()
    assert torch.allclose(squeeze_aspect(pictures, _rng(), p=0.0), pictures, atol=1e-5)
    assert torch.allclose(
        squeeze_aspect(pictures, _rng(), low=1.0, high=1.0, p=1.0), pictures, atol=1e-5
    )


def test_shift_moves_picture_and_landmarks_together() -> None:
    dots = _dots(60, 48, (0.4, 0.55))
    landmarks = torch.tensor([0.4, 0.55, 0.2]).expand(60, 5, 3)
    pictures, moved = shared_shift(dots, landmarks, _rng())
    assert torch.allclose(_centre(pictures), moved[:, 0, :2], atol=2e-3)
    shift = moved[:, 0, :2] - landmarks[:, 0, :2]
    assert shift.abs().max() <= 0.05 + 1e-6
    assert shift.abs().max() > 0.03
    assert 0.3 < (shift.abs().amax(1) > 0).float().mean() < 0.7
    assert torch.equal(moved[..., 2], landmarks[..., 2])


def test_no_shift_is_exact() -> None:
    pictures = _pictures(3, 8)
    out, landmarks = shared_shift(pictures, torch.zeros(3, 1, 3), _rng(), p=0.0)
    assert torch.allclose(out, pictures, atol=1e-5)
    assert not landmarks.any()


def test_errors() -> None:
    with pytest.raises(ShapeError, match="convert with talkhead"):
        augment_pose_input(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="expected float pictures"):
        squeeze_aspect(torch.zeros(3, 8, 8))
    with pytest.raises(ShapeError, match=r"expected landmarks \(2, points, 3\)"):
        shared_shift(torch.zeros(2, 3, 8, 8), torch.zeros(3, 478, 3))


def test_a_look_is_the_same_for_all_frames_of_a_clip_and_differs_between_clips() -> None:
    still = _pictures(1)[:, None].expand(5, 3, -1, -1, -1)
    looked = another_look(still, _rng())
    assert looked.shape == still.shape
    torch.testing.assert_close(looked, looked[:, :1].expand_as(looked))
    first = looked[:, 0]
    apart = (first[:, None] - first[None]).abs().mean((2, 3, 4))
    assert apart[~torch.eye(5, dtype=torch.bool)].min() > 0.01


def test_a_look_mirrors_half_of_the_clips_and_moves_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkhead.augment.pixel_noise", lambda pictures, generator, ops: pictures)
    clips = _dots(400, 48, at=(0.7, 0.5))[:, None]
    x, y = _centre(another_look(clips, _rng())[:, 0]).unbind(1)
    mirrored = x < 0.5
    assert 0.4 < mirrored.double().mean() < 0.6
    # 0.2 from the middle, 15 % nearer or farther, shifted by up to 5 % of the side, also zoomed
    from_middle = torch.where(mirrored, 0.5 - x, x - 0.5)
    reach = (1 + MAX_ZOOM) * MAX_SHIFT
    assert from_middle.min() > 0.2 * (1 - MAX_ZOOM) - reach - 0.01
    assert from_middle.max() < 0.2 * (1 + MAX_ZOOM) + reach + 0.01
    assert from_middle.std() > 0.02
    assert (y - 0.5).abs().max() < reach + 0.01


def test_a_look_wants_clips() -> None:
    with pytest.raises(ShapeError, match="expected clips"):
        another_look(_pictures())


def test_a_shared_look_mirrors_landmarks_with_half_of_the_clips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    still = _pictures(1)[:, None].expand(5, 2, -1, -1, -1)
    looked, _ = shared_look(still, torch.zeros(5, 2, 3), _rng())
    torch.testing.assert_close(looked, looked[:, :1].expand_as(looked))
    assert (looked[0] - looked[1]).abs().mean() > 0.01
    monkeypatch.setattr("talkhead.augment.pixel_noise", lambda pictures, generator, ops: pictures)
    clips = _dots(400, 24, at=(0.7, 0.4))[:, None]
    landmarks = torch.tensor([0.7, 0.4, 0.1]).expand(400, 1, 3)
    looked, found = shared_look(clips, landmarks, _rng())
    torch.testing.assert_close(_centre(looked[:, 0]), found[:, 0, :2], atol=0.01, rtol=0)
    mirrored = found[:, 0, 0] < 0.5
    assert 0.4 < mirrored.double().mean() < 0.6
    torch.testing.assert_close(found[mirrored][0, 0], torch.tensor([0.3, 0.4, 0.1]))
    assert torch.equal(found[..., 1:], landmarks[..., 1:])
    pair = torch.rand(400, 2, 3, 3, generator=_rng())
    order = torch.tensor([1, 0, 2])
    _, found = shared_look(clips, pair, _rng(), order=order)
    across = torch.stack([1 - pair[..., 0], pair[..., 1], pair[..., 2]], -1)[..., order, :]
    wanted = torch.where(mirrored[:, None, None, None], across, pair)
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ShapeError, match="expected clips"):
        shared_look(_pictures(), landmarks)
    with pytest.raises(ShapeError, match=r"expected landmarks \(400"):
        shared_look(clips, landmarks[:3])
