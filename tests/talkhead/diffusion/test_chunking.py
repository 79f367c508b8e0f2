from __future__ import annotations

import resource
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from talkhead.diffusion.chunking import sample_long, sample_stream, single_frames
from talkhead.diffusion.sampler import CleanFrames, ItemNoise
from talkhead.errors import ConfigError, ShapeError


class _Window:
    """Counts on from the last clean frame: any lost or doubled frame breaks the count."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []  # frames, clean frames

    def __call__(self, audio: Tensor, clean: CleanFrames | None) -> Tensor:
        rows, frames = audio.shape[:2]
        known = 0 if clean is None else int(clean.mask[0].long().cumprod(0).sum())
        start = float(clean.codes[0, known - 1, 0]) + 1 if clean is not None and known else 0.0
        self.spans.append((frames, known))
        fresh = torch.arange(frames - known, dtype=torch.float32) + start
        old = clean.codes[0, :known, 0] if clean is not None else fresh[:0]
        return torch.cat([old, fresh])[None, :, None].expand(rows, frames, 2)


@pytest.mark.parametrize("overlap", [1, 3])
@pytest.mark.parametrize("frames", [1, 7, 8, 9, 15, 16, 22, 50])
def test_every_frame_once_and_in_order(frames: int, overlap: int) -> None:
    window = _Window()
    got = sample_long(window, torch.zeros(2, frames, 4), length=8, overlap=overlap)
    assert got.shape == (2, frames, 2)
    torch.testing.assert_close(got[1, :, 0], torch.arange(frames, dtype=torch.float32))
    assert all(length == min(8, frames) for length, _ in window.spans)
    assert all(known >= overlap for _, known in window.spans[1:])


def test_window_count_is_the_least_possible() -> None:
    window = _Window()
    sample_long(window, torch.zeros(1, 250, 4), length=128, overlap=1)
    assert window.spans == [(128, 0), (128, 6)]  # 10 s at 25 fps: two windows


@pytest.mark.parametrize("block", [1, 5, 8, 64])
def test_stream_equals_whole(block: int) -> None:
    audio = torch.randn(1, 30, 3, generator=torch.Generator().manual_seed(0))

    def noisy() -> object:
        noise = ItemNoise([4], 8, 2)

        def window(part: Tensor, clean: CleanFrames | None) -> Tensor:
            codes = part.cumsum(1)[..., :2] + noise.draw(part.shape[1])
            return codes if clean is None else clean.written_into(codes)

        return window

    whole = sample_long(noisy(), audio, length=8, overlap=2)  # type: ignore[arg-type]  # closure
    pieces = list(sample_stream(noisy(), audio.split(block, 1), length=8, overlap=2))  # type: ignore[arg-type]  # closure
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=0)


def test_first_frames_come_before_the_last_audio() -> None:
    asked = 0

    def audio() -> Iterator[Tensor]:
        nonlocal asked
        for _ in range(10):
            asked += 1
            yield torch.zeros(1, 4, 2)

    stream = sample_stream(_Window(), audio(), length=8)
    assert next(stream).shape[1] == 8
    assert asked == 2


def test_memory_does_not_grow_with_length() -> None:
    alive: list[weakref.ref[Tensor]] = []

    def audio(blocks: int) -> Iterator[Tensor]:
        for _ in range(blocks):
            part = torch.zeros(1, 256, 512)
            alive.append(weakref.ref(part))
            yield part

    def window(part: Tensor, clean: CleanFrames | None) -> Tensor:
        return torch.zeros(1, part.shape[1], 42)

    def used_mib(blocks: int) -> float:
        frames = sum(p.shape[1] for p in sample_stream(window, audio(blocks), length=128))
        assert frames == 256 * blocks
        assert sum(ref() is not None for ref in alive) <= 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    short = used_mib(60)  # 10 minutes
    assert used_mib(120) - short < 8


def test_given_frames_are_kept_across_windows() -> None:
    mask = torch.zeros(1, 20, dtype=torch.bool)
    mask[0, [0, 7, 11, 19]] = True
    clean = CleanFrames(torch.arange(20.0)[None, :, None].expand(1, 20, 2) + 100, mask)

    def window(audio: Tensor, kept: CleanFrames | None) -> Tensor:
        codes = torch.zeros(1, audio.shape[1], 2)
        return codes if kept is None else kept.written_into(codes)

    got = sample_long(window, torch.zeros(1, 20, 3), length=8, clean=clean)
    torch.testing.assert_close(got[mask], clean.codes[mask])
    assert bool((got[~mask] == 0).all())


def test_single_frames_are_found_in_the_windows_that_hold_them() -> None:
    given = single_frames({0: torch.tensor([[4.0, 5.0]]), 9: torch.tensor([[6.0, 7.0]])})
    clean = given(0, 6)
    assert clean is not None
    assert clean.mask.tolist() == [[True] + 5 * [False]]
    assert clean.codes[0, 0].tolist() == [4.0, 5.0]
    later = given(7, 15)
    assert later is not None
    assert later.mask.nonzero().tolist() == [[0, 2]]
    assert later.codes[0, 2].tolist() == [6.0, 7.0]
    assert given(10, 15) is None


def test_refuses_what_cannot_work() -> None:
    with pytest.raises(ConfigError, match="overlap of 1 to 7"):
        sample_long(_Window(), torch.zeros(1, 9, 2), length=8, overlap=8)
    with pytest.raises(ShapeError, match="at least 1 frame"):
        list(sample_stream(_Window(), [], length=8))
    short = CleanFrames(torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(ShapeError, match="per audio frame"):
        sample_long(_Window(), torch.zeros(1, 9, 2), length=8, clean=short)
