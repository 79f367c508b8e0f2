from __future__ import annotations

import math

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.metrics.jitter import STEADY, Jitter, jitter
from tests.oracles.landmarks import jitter_loop
from tests.talkhead.metrics.landmark_faces import face, noisy, still


def test_agrees_with_plain_loops() -> None:
    clips = noisy(2, 9, seed=1)
    for points in (STEADY, tuple(range(17, 48))):
        expected = [256 * jitter_loop(c[..., :2].numpy(), points) for c in clips]
        assert jitter(clips, points=points).tolist() == pytest.approx(expected, rel=1e-9)


def test_one_wrong_frame_by_hand() -> None:
    """A step of h in one of T frames: four third differences of h, 3 h, 3 h and h."""
    track, frames = still(20), 20
    track[10, 30, 0] += 0.01
    expected = 2.56 * math.sqrt(1 / (2 * (frames - 3)))
    assert jitter(track, points=[30]).item() == pytest.approx(expected, rel=1e-6)
    assert jitter(track).item() == pytest.approx(expected / math.sqrt(13), rel=1e-6)


def test_smooth_motion_has_none() -> None:
    t = torch.arange(30.0, dtype=torch.float64)[:, None, None] / 30
    parabola = face() + t * torch.tensor([0.2, -0.1, 0.0]) + t**2 * torch.tensor([0.1, 0.3, 0.0])
    assert jitter(parabola).item() == pytest.approx(0.0, abs=1e-9)
    assert jitter(still()).item() == 0.0
    # A head that nods once a second trembles by less than a hundredth of a pixel.
    nod = face() + 0.01 * torch.sin(2 * math.pi * torch.arange(50.0) / 25)[:, None, None]
    assert jitter(nod).item() < 0.01


@pytest.mark.parametrize("size_px", [0.1, 0.5, 2.0])
def test_noise_reads_as_its_own_deviation(size_px: float) -> None:
    smooth = torch.linspace(0, 0.1, 4000, dtype=torch.float64)[:, None, None]
    track = noisy(1, 4000, seed=5, size=size_px / 256)[0] + smooth
    assert jitter(track).item() == pytest.approx(size_px, rel=0.02)
    # The eyes of the face are 64 px apart, and noise hardly changes that on average.
    assert jitter(track, unit="inter_ocular").item() == pytest.approx(size_px / 64, rel=0.02)


def test_lids_and_lips_do_not_count() -> None:
    track = still(20)
    moving = [i for i in range(68) if i not in STEADY]
    track[::2, moving] += 0.05
    track[::2, :, 2] += 0.05  # nor does depth
    assert jitter(track).item() == 0.0


def test_differences_across_a_hole_do_not_count() -> None:
    track = still(20)
    track[10] = torch.nan
    valid = torch.arange(20) != 10
    assert jitter(track, valid).item() == 0.0
    track[11:] += 0.1  # a jump that the hole hides
    assert jitter(track, valid).item() == 0.0
    with pytest.raises(ShapeError, match="finite"):
        jitter(track)


def test_inter_ocular_does_not_depend_on_the_crop() -> None:
    clips = noisy(2, 9, seed=1)
    plain = jitter(clips, unit="inter_ocular")
    torch.testing.assert_close(jitter(3 * clips, unit="inter_ocular"), plain)
    torch.testing.assert_close(jitter(3 * clips), 3 * jitter(clips))


def test_the_class_equals_the_function_for_any_batch_split_and_repeat() -> None:
    clips, names = noisy(4, 9, seed=2), ["a", "b", "c", "d"]
    metric = Jitter(points=range(17, 48), unit="inter_ocular")
    metric.update(clips[2:], clip=names[2:])
    metric.update(clips[:3], clip=names[:3])
    expected = jitter(clips, points=range(17, 48), unit="inter_ocular").mean()
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-12)


def test_refuses_what_does_not_fit() -> None:
    for points in ([], [-1], [68]):
        with pytest.raises(ShapeError, match="from 0 to 67"):
            jitter(still(), points=points)
    with pytest.raises(ShapeError, match="4 valid frames in a row"):
        jitter(still(3))
    with pytest.raises(ShapeError, match="4 valid frames in a row"):
        jitter(still(7), torch.arange(7) % 4 != 3)
    with pytest.raises(ShapeError, match="ibug_points"):
        jitter(torch.zeros(6, 478, 3))
