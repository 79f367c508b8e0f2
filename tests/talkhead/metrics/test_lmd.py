from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.rotation import euler_to_matrix
from talkhead.metrics.lmd import (
    LandmarkDistance,
    Region,
    View,
    f_lmd,
    frontal_lmd,
    landmark_distance,
    m_lmd,
)
from tests.oracles.landmarks import lmd_loop
from tests.talkhead.metrics.landmark_faces import noisy, still

FIRST: dict[Region, int] = {"mouth": 48, "face": 0}


@pytest.mark.parametrize("region", ["mouth", "face"])
@pytest.mark.parametrize("view", ["picture", "frontal"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("by_eyes", [True, False])
def test_agrees_with_plain_loops(region: Region, view: View, centred: bool, by_eyes: bool) -> None:
    ours, real = noisy(2, 4, seed=1), noisy(2, 4, seed=2)
    got = landmark_distance(
        ours,
        real,
        region=region,
        view=view,
        centred=centred,
        unit="inter_ocular" if by_eyes else "px256",
    )
    expected = [
        lmd_loop(
            g, r, FIRST[region], 68, frontal=view == "frontal", centred=centred, by_eyes=by_eyes
        )
        for g, r in zip(ours.numpy(), real.numpy(), strict=True)
    ]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)


def test_perfect_is_zero() -> None:
    real = noisy(3, 5, seed=0)
    for distance in (m_lmd, f_lmd, frontal_lmd):
        assert distance(real, real).tolist() == [0.0] * 3
        assert distance(real, real, unit="inter_ocular").tolist() == [0.0] * 3


def test_one_point_by_hand() -> None:
    """One of N points off by d: mean-free it is off by d (N - 1) / N, the others by d / N."""
    real = still()
    moved = real.clone()
    moved[:, 57, 1] += 0.1
    off = 0.1 * 256
    assert m_lmd(moved, real).item() == pytest.approx(2 * off * 19 / 20**2)
    assert f_lmd(moved, real).item() == pytest.approx(2 * off * 67 / 68**2)
    assert landmark_distance(moved, real, centred=False).item() == pytest.approx(off / 20)
    # The eyes are a quarter of the crop apart.
    by_eyes = m_lmd(moved, real, unit="inter_ocular").item()
    assert by_eyes == pytest.approx(2 * 0.1 / 0.25 * 19 / 20**2)


def test_depth_counts_from_the_front_by_hand() -> None:
    real = still()
    moved = real.clone()
    moved[:, 57, 2] += 0.1
    assert frontal_lmd(moved, real).item() == pytest.approx(2 * 25.6 * 19 / 20**2)
    assert m_lmd(moved, real).item() == f_lmd(moved, real).item() == 0.0


@pytest.mark.parametrize("distance", [m_lmd, f_lmd, frontal_lmd])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_moving_every_point_further_costs_as_much_more(
    distance: Callable[..., Tensor], factor: float
) -> None:
    """The mouth's corners, which tell where the front is, move up and down alone."""
    real, away = still(), noisy(1, 6, seed=4)[0] - still()
    away[:, [48, 54]] *= torch.tensor([0.0, 1.0, 0.0])
    once = distance(real + away, real)
    torch.testing.assert_close(distance(real + factor * away, real), factor * once)


def test_a_share_of_the_frames_counts_its_share() -> None:
    real = still(8)
    moved = real.clone()
    moved[:, 57, 1] += 0.1
    some = torch.where(torch.arange(8)[:, None, None] < 2, moved, real)
    assert m_lmd(some, real).item() == pytest.approx(m_lmd(moved, real).item() / 4)
    mask = torch.arange(8) < 2
    assert m_lmd(some, real, mask).item() == pytest.approx(m_lmd(moved, real).item())


def test_where_the_region_is_counts_only_without_centring() -> None:
    real = noisy(1, 5, seed=3)
    away = real + torch.tensor([0.03, 0.04, 0.5])
    for distance in (m_lmd, f_lmd, frontal_lmd):
        assert distance(away, real).item() == pytest.approx(0.0, abs=1e-9)
    shifted = landmark_distance(away, real, centred=False)
    assert shifted.item() == pytest.approx(0.05 * 256)
    # A shifted mouth is a wrong face, but not a wrong mouth.
    lower = real.clone()
    lower[..., 48:, 1] += 0.02
    assert m_lmd(lower, real).item() == pytest.approx(0.0, abs=1e-9)
    assert f_lmd(lower, real).item() == pytest.approx(2 * 0.02 * 256 * 20 * 48 / 68**2)


def test_head_turns_count_as_seen_but_not_from_the_front() -> None:
    real = still()
    turn = torch.from_numpy(euler_to_matrix(np.array([0.0, 0.5, 0.0])))
    turned = real @ turn.T
    assert m_lmd(turned, real).item() > 1.0
    assert frontal_lmd(turned, real).item() == pytest.approx(0.0, abs=1e-9)
    assert frontal_lmd(turned, real @ turn).item() == pytest.approx(0.0, abs=1e-9)
    # Mouths that differ in themselves differ by as much whichever way their heads turn.
    open_mouth = real.clone()
    open_mouth[:, 55:60, 1] += 0.03
    expected = frontal_lmd(open_mouth, real).item()
    assert expected == pytest.approx(m_lmd(open_mouth, real).item())
    assert frontal_lmd(open_mouth @ turn.T, real).item() == pytest.approx(expected)


def test_the_picture_view_ignores_depth_and_needs_none() -> None:
    ours, real = noisy(1, 4, seed=1), noisy(1, 4, seed=2)
    flat = m_lmd(ours[..., :2], real[..., :2])
    torch.testing.assert_close(m_lmd(ours, real), flat)
    with pytest.raises(ShapeError, match="depth"):
        frontal_lmd(ours[..., :2], real[..., :2])


def test_inter_ocular_distance_does_not_depend_on_the_crop() -> None:
    ours, real = noisy(1, 4, seed=1), noisy(1, 4, seed=2)
    for distance in (m_lmd, f_lmd, frontal_lmd):
        plain = distance(ours, real, unit="inter_ocular")
        torch.testing.assert_close(distance(7 * ours, 7 * real, unit="inter_ocular"), plain)
        torch.testing.assert_close(distance(7 * ours, 7 * real), 7 * distance(ours, real))


def test_masked_frames_may_hold_anything() -> None:
    ours, real = noisy(2, 6, seed=1), noisy(2, 6, seed=2)
    mask = (torch.arange(6) != 3).expand(2, -1)
    expected = frontal_lmd(ours[:, [0, 1, 2, 4, 5]], real[:, [0, 1, 2, 4, 5]])
    ours[:, 3] = torch.nan
    torch.testing.assert_close(frontal_lmd(ours, real, mask), expected)
    with pytest.raises(ShapeError, match="finite generated landmarks"):
        frontal_lmd(ours, real)


def test_the_class_equals_the_function_for_any_batch_split_and_repeat() -> None:
    ours, real = noisy(4, 5, seed=1), noisy(4, 5, seed=2)
    names = ["a", "b", "c", "d"]
    metric = LandmarkDistance("face", "frontal", "inter_ocular", centred=False)
    metric.update(ours[2:], real[2:], clip=names[2:])
    metric.update(ours[:3], real[:3], clip=names[:3])  # "c" comes twice
    expected = landmark_distance(
        ours, real, region="face", view="frontal", unit="inter_ocular", centred=False
    ).mean()
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-12)


def test_refuses_what_does_not_fit() -> None:
    real = still()
    with pytest.raises(ShapeError, match="frames they share"):
        m_lmd(real, real[:-1])
    with pytest.raises(ShapeError, match=r"68, 2 or 3.*ibug_points"):
        m_lmd(torch.zeros(3, 478, 3), torch.zeros(3, 478, 3))
    with pytest.raises(ShapeError, match="one flag a frame"):
        m_lmd(real, real, torch.ones(5))
    with pytest.raises(ShapeError, match="leave such clips out"):
        m_lmd(real, real, torch.zeros(6))
    blind = real.clone()
    blind[2, 45] = blind[2, 36]
    with pytest.raises(ShapeError, match="two eyes"):
        m_lmd(real, blind, unit="inter_ocular")
