from __future__ import annotations

import numpy as np
import pytest
import torch

from talkhead.corpus.eye_motion import BLINK_TEMPLATE, EyeParams, lid_openings, sample_blinks
from talkhead.errors import ShapeError
from talkhead.metrics.blinks import BlinkRate, blink_rate, blink_spans, eye_aspect_ratio
from tests.talkhead.metrics.landmark_faces import still, with_opening


def dips(frames: int, *spans: tuple[int, int], low: float = 0.1) -> torch.Tensor:
    """Openings ``(T,)`` of 1 with some spans at ``low``."""
    opening = torch.ones(frames, dtype=torch.float64)
    for start, stop in spans:
        opening[start:stop] = low
    return opening


def test_eye_aspect_ratio_by_hand() -> None:
    points = torch.zeros(68, 3)
    eye = torch.tensor([[0, 0], [1, -1], [3, -2], [4, 0], [3, 1], [1, 2]], dtype=torch.float32)
    points[36:42, :2] = eye
    points[42:48, :2] = 5.0 * eye.flip(0)[[5, 4, 3, 2, 1, 0]] * torch.tensor([1.0, 0.0])
    points[..., 2] = torch.randn(68, generator=torch.Generator().manual_seed(0))  # does not count
    # Lids 3 and 3 apart, corners 4 apart; the other eye is shut.
    assert eye_aspect_ratio(points).tolist() == [pytest.approx(6 / 8), 0.0]


def test_eye_aspect_ratio_follows_the_lids_and_not_the_size() -> None:
    opening = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    ratio = eye_aspect_ratio(with_opening(opening))
    torch.testing.assert_close(ratio[0, 0], ratio[0, 1], atol=2e-3, rtol=0.0)
    torch.testing.assert_close(ratio, ratio[0] * opening[:, None])
    torch.testing.assert_close(eye_aspect_ratio(9 * with_opening(opening)), ratio)
    with pytest.raises(ShapeError, match="ibug_points"):
        eye_aspect_ratio(torch.zeros(3, 478, 3))


def test_blinks_of_known_place_and_length() -> None:
    opening = dips(100, (10, 14), (40, 42), (60, 72))
    assert blink_spans(opening) == [(10, 14), (40, 42), (60, 72)]
    assert blink_spans(0.2 * opening) == blink_spans(opening)  # a share of the clip's own level


def test_what_is_no_blink() -> None:
    one_frame, too_long = (5, 6), (30, 43)
    assert blink_spans(dips(100, one_frame, too_long)) == []
    assert blink_spans(dips(100, (20, 25), low=0.55)) == []  # lids lowered, not shut
    shut_at_first = dips(100, (0, 4), (50, 54))
    assert blink_spans(shut_at_first) == [(50, 54)]


def test_a_blink_ends_only_when_the_lids_are_well_open() -> None:
    opening = dips(100, (20, 26))
    opening[22] = 0.6  # above half, below 0.7
    assert blink_spans(opening) == [(20, 26)]
    opening[22:24] = 0.8
    assert blink_spans(opening) == [(20, 22), (24, 26)]


def test_holes_and_ends() -> None:
    opening = dips(100, (20, 24), (97, 100))
    assert blink_spans(opening) == [(20, 24), (97, 100)]
    valid = torch.ones(100, dtype=torch.bool)
    valid[22] = False  # the rest after the hole begins shut
    assert blink_spans(opening, valid) == [(20, 22), (97, 100)]
    valid[19] = False  # now its beginning is hidden as well
    assert blink_spans(opening, valid) == [(97, 100)]


def test_rate_by_hand() -> None:
    clips = with_opening(torch.stack([dips(100, (10, 14), (50, 53)), dips(100)]))
    assert blink_rate(clips).tolist() == [0.5, 0.0]  # 2 blinks in 4 s
    valid = (torch.arange(100) < 50).expand(2, -1)
    assert blink_rate(clips, valid).tolist() == [0.5, 0.0]  # 1 in 2 s
    assert blink_rate(clips[0, :, :, :2]).tolist() == [0.5]
    twice = torch.cat([clips[:1], clips[:1]], dim=1)
    assert blink_rate(twice).tolist() == [0.5]


@pytest.mark.parametrize("seed", range(4))
def test_counts_the_blinks_that_the_embedded_corpus_makes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    params, frames = EyeParams(), 2500
    blinks = sample_blinks(np.full(frames, 0.5), params.blink_refractory_s, rng)
    blinks = [b for b in blinks if b + len(BLINK_TEMPLATE) <= frames]
    lids = lid_openings(params, np.zeros((frames, 2)), blinks, rest=0.8)
    spans = blink_spans(torch.from_numpy(lids[:, 0]))
    # The template is below half from its second frame on and above 0.7 in its sixth.
    assert spans == [(b + 1, b + 5) for b in blinks]
    rate = blink_rate(with_opening(torch.from_numpy(lids[:, 0]).double()))
    assert rate.item() == pytest.approx(len(blinks) / 100)


def test_the_class_equals_the_function_for_any_batch_split_and_repeat() -> None:
    openings = torch.stack(
        [dips(50, *[(12 * i + 2, 12 * i + 5) for i in range(n)]) for n in (0, 1, 2, 4)]
    )
    clips, names = with_opening(openings), ["a", "b", "c", "d"]
    metric = BlinkRate()
    metric.update(clips[2:], clip=names[2:])
    metric.update(clips[:3], clip=names[:3])
    assert metric.compute().item() == pytest.approx((0 + 1 + 2 + 4) / 4 / 2)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="one clip at a time"):
        blink_spans(torch.ones(2, 30))
    with pytest.raises(ShapeError, match="one clip at a time"):
        blink_spans(torch.ones(30), torch.ones(29))
    with pytest.raises(ShapeError, match="leave such clips out"):
        blink_rate(still(), torch.zeros(6))
    with pytest.raises(ShapeError, match="ibug_points"):
        blink_rate(torch.zeros(6, 478, 3))
