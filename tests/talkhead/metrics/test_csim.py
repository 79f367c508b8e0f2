from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from talkhead.errors import ShapeError
from talkhead.metrics.csim import CSIM, csim


def embeddings(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    """Angles of 0, 60 and 90 degrees to the portrait."""
    frames = torch.tensor([[5.0, 0.0], [1.0, math.sqrt(3.0)], [0.0, 0.1]])
    assert csim(frames, torch.tensor([2.0, 0.0])).tolist() == pytest.approx([0.5])
    assert csim(frames[None], torch.tensor([[-2.0, 0.0]])).tolist() == pytest.approx([-0.5])


def test_the_same_face_is_one_and_its_opposite_minus_one() -> None:
    frames = embeddings(3, 5, 8)
    assert csim(frames, frames).tolist() == pytest.approx([1.0] * 3)
    assert csim(frames, -frames).tolist() == pytest.approx([-1.0] * 3)
    assert csim(7.0 * frames, 0.1 * frames).tolist() == pytest.approx(
        [1.0] * 3
    )  # length is nothing


@pytest.mark.parametrize("degrees", [5.0, 30.0, 120.0])
def test_turning_every_embedding_costs_the_cosine_of_the_angle(degrees: float) -> None:
    frames, angle = embeddings(4, 2).double(), math.radians(degrees)
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
        dtype=torch.float64,
    )
    assert csim(frames @ turn, frames).item() == pytest.approx(math.cos(angle))


def test_agrees_with_scipy_for_portraits_and_for_videos() -> None:
    frames, portraits, video = (
        embeddings(2, 4, 6),
        embeddings(2, 6, seed=1),
        embeddings(2, 4, 6, seed=2),
    )
    for source in (portraits[:, None].expand(-1, 4, -1), video):
        expected = [
            np.mean([1 - cosine(e, s) for e, s in zip(es, ss, strict=True)])
            for es, ss in zip(frames.double().numpy(), source.double().numpy(), strict=True)
        ]
        np.testing.assert_allclose(csim(frames, source).numpy(), expected, rtol=1e-9)
    torch.testing.assert_close(
        csim(frames, portraits), csim(frames, portraits[:, None].expand(-1, 4, -1))
    )


def test_frames_without_a_face_do_not_count() -> None:
    frames, portrait = embeddings(1, 5, 8), embeddings(1, 8, seed=1)
    valid = torch.tensor([[True, True, False, True, False]])
    expected = csim(frames[valid][None], portrait)
    frames[~valid] = 0.0
    torch.testing.assert_close(csim(frames, portrait, valid), expected)
    with pytest.raises(ShapeError, match="without a face"):
        csim(frames, portrait)
    frames[~valid] = torch.nan
    with pytest.raises(ShapeError, match="without a face"):
        csim(frames, portrait)
    with pytest.raises(ShapeError, match="leave such clips out"):
        csim(frames, portrait, torch.zeros(1, 5))


def test_the_class_equals_the_function_for_any_batch_split_and_repeat() -> None:
    frames, portraits, names = embeddings(4, 5, 8), embeddings(4, 8, seed=1), ["a", "b", "c", "d"]
    metric = CSIM()
    metric.update(frames[2:], portraits[2:], clip=names[2:])
    metric.update(frames[:3], portraits[:3], clip=names[:3])
    assert metric.compute().item() == pytest.approx(csim(frames, portraits).mean().item())
    assert metric.higher_is_better


def test_refuses_what_does_not_fit() -> None:
    frames = embeddings(2, 5, 8)
    for source in (embeddings(2, 4, 8), embeddings(2, 7), embeddings(3, 8), embeddings(8)):
        with pytest.raises(ShapeError, match="one recogniser"):
            csim(frames, source)
    with pytest.raises(ShapeError, match="one a frame"):
        csim(embeddings(8), embeddings(8))
    with pytest.raises(ShapeError, match="one flag a frame"):
        csim(frames, frames, torch.ones(2, 4))
