from __future__ import annotations

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.metrics.offset import OffsetAccuracy, estimate_offset, offset_scores
from talkhead.metrics.retrieval import WindowRetrieval, pair_accuracy, window_retrieval


def embeddings(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_retrieval_perfect_reversed_and_constant() -> None:
    audio = embeddings(2, 8, 16)
    forth, back = window_retrieval(audio, 3.0 * audio)
    assert forth.tolist() == back.tolist() == [1.0, 1.0]
    forth, _ = window_retrieval(audio, audio.flip(1))
    assert forth.tolist() == [0.0, 0.0]
    forth, back = window_retrieval(torch.ones(8, 4), torch.ones(8, 4))
    assert forth.tolist() == back.tolist() == [0.125]


def test_retrieval_counts_by_hand() -> None:
    audio = torch.eye(3)
    visual = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1.0]])
    forth, back = window_retrieval(audio, visual)
    # Sound 1 still prefers face 1 (0.11 against 0); face 1 prefers sound 0.
    assert forth.item() == 1.0
    assert back.item() == pytest.approx(2 / 3)


def test_pair_accuracy_perfect_reversed_and_constant() -> None:
    audio = embeddings(2, 8, 16)
    assert pair_accuracy(audio, audio + 0.01).tolist() == [1.0, 1.0]
    assert pair_accuracy(torch.ones(8, 4), torch.ones(8, 4)).item() == 0.5
    # Each window's own partner is the farthest of all.
    far = torch.tensor([[0.0], [1.0]])
    assert pair_accuracy(far, far.flip(0)).item() == 0.0
    # Unrelated windows: the mean over many is chance.
    unrelated = pair_accuracy(embeddings(400, 8, 4), embeddings(400, 8, 4, seed=1)).mean()
    assert unrelated.item() == pytest.approx(0.5, abs=0.02)


def test_pair_accuracy_counts_by_hand() -> None:
    audio, visual = torch.tensor([[0.0], [3.0], [6.0]]), torch.tensor([[1.0], [0.0], [6.0]])
    # Rows of distances 1 0 6, 2 3 3, 5 6 0. True pairs win, per sound: 1, a half and 2 times of 2; per
    # picture (1 2 5, 0 3 6, 6 3 0): 2, 1 and 2 times.
    assert pair_accuracy(audio, visual).item() == pytest.approx((3.5 / 6 + 5 / 6) / 2)
    with pytest.raises(ShapeError, match="N >= 2"):
        pair_accuracy(audio[:1], visual[:1])


def test_retrieval_metric_weights_videos_equally_over_batches() -> None:
    audio, visual = embeddings(5, 6, 4), embeddings(5, 6, 4, seed=1)
    metric = WindowRetrieval()
    metric.update(audio[:1], visual[:1])
    metric.update(audio[1:], visual[1:])
    forth, back = window_retrieval(audio, visual)
    out = metric.compute()
    assert out["audio_to_visual"].item() == pytest.approx(forth.mean().item())
    assert out["top1"].item() == pytest.approx(0.5 * (forth.mean() + back.mean()).item())
    assert out["chance"].item() == pytest.approx(1 / 6)


@pytest.mark.parametrize("late", [-5, -1, 0, 3, 5])
def test_offset_is_positive_when_sound_comes_late(late: int) -> None:
    content = embeddings(80, 8)
    start = 10
    visual = content[start : start + 60]
    audio = content[start - late : start - late + 60]  # frame t carries the sound of t - late
    scores = offset_scores(audio, visual)
    found, confidence = estimate_offset(scores)
    assert found.item() == late
    assert scores[0, 15 + late].item() == pytest.approx(1.0)
    assert confidence.item() > 0.5


def test_offset_scores_equal_a_plain_loop_with_mask() -> None:
    audio, visual = embeddings(20, 4), embeddings(20, 4, seed=1)
    valid = torch.arange(20) % 7 != 3
    scores = offset_scores(audio, visual, valid, max_shift=4)[0]
    for k in range(9):
        pairs = [
            torch.cosine_similarity(visual[t].double(), audio[t + k - 4].double(), dim=0)
            for t in range(20)
            if 0 <= t + k - 4 < 20 and valid[t] and valid[t + k - 4]
        ]
        assert scores[k].item() == pytest.approx(torch.stack(pairs).mean().item())


def test_offset_accuracy_counts_within_tolerance() -> None:
    content = embeddings(3, 60, 8)
    metric = OffsetAccuracy(tolerance=1)
    metric.update(content[:2], content[:2], torch.tensor([0, 1]))
    metric.update(content[2:], content[2:], torch.tensor([4]))
    out = metric.compute()
    assert out["within"].item() == pytest.approx(2 / 3)
    assert out["mean_error"].item() == pytest.approx(5 / 3)


def test_true_offsets_and_masks_must_fit() -> None:
    metric, content = OffsetAccuracy(), embeddings(2, 40, 8)
    for truth in (torch.zeros(2, 1), torch.zeros(1), torch.zeros(())):
        with pytest.raises(ShapeError, match="one a clip"):
            metric.update(content, content, truth)
    with pytest.raises(ShapeError, match="one flag a frame"):
        metric.update(content, content, torch.zeros(2), torch.ones(40, 2))


def test_constant_embeddings_have_no_confidence_and_short_clips_are_refused() -> None:
    _, confidence = estimate_offset(offset_scores(torch.ones(40, 3), torch.ones(40, 3)))
    assert confidence.item() == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ShapeError, match="T > 15"):
        offset_scores(torch.ones(15, 3), torch.ones(15, 3))
    with pytest.raises(ShapeError, match="same windows"):
        window_retrieval(torch.ones(4, 3), torch.ones(5, 3))


def test_retrieval_by_distance_counts_by_hand() -> None:
    # By distance each sound is nearest to its own face; by cosine all point the same way.
    audio, visual = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([[1.2], [2.5], [4.0]])
    forth, back = window_retrieval(audio, visual, similarity="distance")
    assert forth.item() == 1.0
    assert back.item() == 1.0
    forth, back = window_retrieval(audio, visual)
    assert forth.item() == back.item() == pytest.approx(1 / 3)
    forth, back = window_retrieval(
        audio, torch.tensor([[1.0], [1.4], [4.0]]), similarity="distance"
    )
    # Face 1 (1.4) is nearer to sound 0 than to its own.
    assert forth.item() == 1.0
    assert back.item() == pytest.approx(2 / 3)
