from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import EYE_OUTER, canonical_landmarks
from talkhead.metrics.part_distances import (
    EYES,
    IRISES,
    MOUTH,
    DescriptorDistance,
    Part,
    PartError,
    ReadingDistance,
    blink_distance,
    descriptor_distance,
    gaze_distance,
    motion_share,
    mouth_distance,
    normalised_mean_error,
    reading_distance,
)
from tests.oracles.landmarks import nme_loop
from tests.talkhead.metrics.cases import gaze_network

DISTANCES = [(blink_distance, EYES, 32), (gaze_distance, IRISES, 10), (mouth_distance, MOUTH, 40)]


def track(frames: int = 3) -> Tensor:
    return torch.from_numpy(np.array(canonical_landmarks())).expand(frames, -1, -1).clone()


@pytest.mark.parametrize(("distance", "points", "count"), DISTANCES)
def test_moving_its_points_by_a_known_share_of_the_eye_distance(
    distance: object, points: tuple[int, ...], count: int
) -> None:
    assert callable(distance)
    assert len(points) == count
    real = 3.0 * track()
    unit = (real[0, EYE_OUTER[0], :2] - real[0, EYE_OUTER[1], :2]).norm()
    moved = real.clone()
    moved[0, list(points), 0] += 0.3 * unit
    moved[0, list(points), 1] += 0.4 * unit
    moved[..., 2] += 7.0  # depth does not count
    assert float(distance(real, real)) == 0.0
    assert float(distance(moved, real)) == pytest.approx(0.5 / 3, rel=1e-5)
    others = real.clone()
    others[:, [i for i in range(478) if i not in points]] += 1.0
    assert float(distance(others, real)) == 0.0


def clips(count: int, frames: int = 4, seed: int = 0) -> Tensor:
    """Trembling faces of different size, ``(B, T, 478, 3)``."""
    random = torch.Generator().manual_seed(seed)
    size = 1.0 + torch.arange(count)[:, None, None, None]
    return size * (track(frames) + 0.02 * torch.randn(count, frames, 478, 3, generator=random))


@pytest.mark.parametrize("points", [EYES, IRISES, MOUTH])
def test_equals_a_plain_loop_for_every_clip(points: tuple[int, ...]) -> None:
    generated, real = clips(3), clips(3, seed=1)
    found = normalised_mean_error(generated, real, points)
    assert found.dtype == torch.float64
    for b in range(3):
        wanted = nme_loop(generated[b, :, :, :2].numpy(), real[b, :, :, :2].numpy(), points)
        assert found[b].item() == pytest.approx(wanted, rel=1e-6)
    flat = normalised_mean_error(generated[..., :2], real[..., :2], points)
    assert torch.equal(flat, found)


def test_masked_frames_count_for_nothing() -> None:
    generated, real = clips(2), clips(2, seed=1)
    valid = torch.tensor([[True, False, True, False], [True, True, True, True]])
    lost = real.clone()
    lost[0, 1], lost[0, 3] = torch.nan, 0.0
    found = normalised_mean_error(generated, lost, EYES, valid)
    alone = [
        normalised_mean_error(generated[0, ::2], real[0, ::2], EYES),
        normalised_mean_error(generated[1], real[1], EYES),
    ]
    assert found.tolist() == torch.cat(alone).tolist()
    codes, others = generated.flatten(2), real.flatten(2)
    masked = descriptor_distance(codes, others, valid)
    assert masked[0].item() == descriptor_distance(codes[0, ::2], others[0, ::2]).item()


def test_descriptor_distance_by_hand() -> None:
    real, moved = torch.zeros(2, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert float(descriptor_distance(moved, real)) == 3.0
    # (9 + 16) / 2 and (0 + 1) / 2, then their mean.
    assert float(descriptor_distance(moved, real, form="mean_square")) == 6.5
    assert float(descriptor_distance(real, real, form="mean_square")) == 0.0
    both = descriptor_distance(torch.stack([moved, real]), torch.stack([real, real]))
    assert both.tolist() == [3.0, 0.0]


def test_twice_the_difference_costs_twice_or_four_times() -> None:
    real, away = clips(2).flatten(2), 0.1 * clips(2, seed=1).flatten(2)
    for form, cost in (("euclidean", 2.0), ("mean_square", 4.0)):
        once, twice = (
            descriptor_distance((real + k * away).double(), real.double(), form=form)  # type: ignore[arg-type]  # loops over the names
            for k in (1, 2)
        )
        torch.testing.assert_close(twice, cost * once, rtol=1e-4, atol=0.0)


def test_motion_share_by_hand() -> None:
    real = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert float(motion_share(real, real)) == pytest.approx(1.0)
    assert float(motion_share(real / 2, real)) == pytest.approx(0.5)
    assert float(motion_share(torch.ones(5, 2), real)) == 0.0


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="same frames"):
        blink_distance(track(3), track(2))
    with pytest.raises(ShapeError, match=r"\(T, D\)"):
        descriptor_distance(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="478"):
        blink_distance(torch.zeros(2, 68, 3), torch.zeros(2, 68, 3))
    with pytest.raises(ShapeError, match=r"mask \(3,\), got \(2,\)"):
        blink_distance(track(3), track(3), torch.ones(2))
    with pytest.raises(ShapeError, match="none in clip 0"):
        gaze_distance(track(3), track(3), torch.zeros(3))
    for broken in (torch.zeros(478, 3), torch.full((478, 3), torch.nan)):
        real = track(3)
        real[1] = broken
        with pytest.raises(ShapeError, match="two eyes apart"):
            gaze_distance(track(3), real)
    with pytest.raises(ShapeError, match=r"\(T, D\)"):
        motion_share(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="2 frames"):
        motion_share(torch.zeros(1, 3), torch.zeros(4, 3))


def test_reading_distance_is_that_of_what_the_network_reads() -> None:
    network = gaze_network()
    pictures = torch.rand(70, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    others = pictures.flip(0)
    points = (0.5 + 0.3 * track(70)).float()
    with torch.no_grad():
        read, wanted = network.read(others, points), network.read(pictures, points)
    for part, columns in (("eyes", slice(0, 2)), ("gaze", slice(2, 4))):
        total = 0.0
        for t in range(70):
            total += (read[t, columns] - wanted[t, columns]).double().norm().item()
        found = reading_distance(network, others, pictures, points, points, part=part)  # type: ignore[arg-type]  # loops over the names
        assert found.item() == pytest.approx(total / 70, rel=1e-5)
        assert found > 0
        same = reading_distance(network, pictures, pictures, points, points, part=part)  # type: ignore[arg-type]  # loops over the names
        assert same.item() == 0.0
    with pytest.raises(ShapeError, match="one shape"):
        reading_distance(network, others[:3], pictures, points[:3], points)


CLIPS = 5


def scores(rows: list[int]) -> Tensor:
    """Every class on the clips of some numbers, which come in three batches."""
    generated, real = clips(CLIPS).float(), clips(CLIPS, seed=1).float()
    valid = torch.ones(CLIPS, 4, dtype=torch.bool)
    valid[2, 1:] = False
    standard = (torch.zeros(9), torch.arange(1.0, 10.0))
    parts: tuple[Part, ...] = ("eyes", "irises", "mouth")
    errors = [PartError(part) for part in parts]
    distances = [DescriptorDistance(), DescriptorDistance(standard, "mean_square")]
    reading = ReadingDistance(gaze_network())
    pictures = torch.rand(CLIPS, 4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    points = 0.5 + 0.3 * track(4).float()
    for part in (rows[:1], rows[1:3], rows[3:]):
        names = [f"clip{i}" for i in part]
        for error in errors:
            error.update(generated[part], real[part], valid[part], names)
        for distance in distances:
            ours, theirs = (side[part][:, :, :3].flatten(2) for side in (generated, real))
            distance.update(ours, theirs, valid[part], names)
        for i in part:
            reading.update(pictures[i], pictures[i] ** 2, points, points, f"clip{i}")
    return torch.stack([metric.compute() for metric in (*errors, *distances, reading)])


def test_classes_are_the_mean_of_their_function() -> None:
    found = scores(list(range(CLIPS)))
    each = normalised_mean_error(
        clips(CLIPS)[[0, 1, 3, 4]], clips(CLIPS, seed=1)[[0, 1, 3, 4]], EYES
    )
    third = normalised_mean_error(clips(CLIPS)[2, :1], clips(CLIPS, seed=1)[2, :1], EYES)
    assert found[0].item() == pytest.approx(torch.cat([each, third]).mean().item(), rel=1e-5)
    assert scores([4, 2, 0, 1, 3]).tolist() == pytest.approx(found.tolist(), rel=1e-12)


def test_a_standard_divides_before_the_distance() -> None:
    metric = DescriptorDistance((torch.tensor([5.0, 5.0]), torch.tensor([3.0, 2.0])))
    metric.update(torch.tensor([[3.0, 2.0]]), torch.zeros(1, 2))
    assert metric.compute().item() == pytest.approx(2**0.5)
