from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from talkhead.audio.speech_stream import stream_windows
from talkhead.audio.speech_windows import Align, speech_windows
from talkhead.errors import ShapeError


def features(steps: int) -> Tensor:
    return torch.randn(steps, 3, generator=torch.Generator().manual_seed(steps))


@pytest.mark.parametrize("align", ["start", "centre"])
@pytest.mark.parametrize(("steps", "piece"), [(100, 7), (100, 100), (100, 30), (18, 5), (6, 2)])
def test_pieces_join_to_the_windows_of_the_whole(steps: int, piece: int, align: Align) -> None:
    whole, frames = features(steps), steps // 2
    for length in (18, 1, 5):
        found = torch.cat(
            list(stream_windows(whole.split(piece), frames, length=length, align=align))
        )
        assert torch.equal(found, speech_windows(whole, frames, length=length, align=align))


def test_hubert_without_its_last_steps_still_gives_every_frame_a_window() -> None:
    """A model without padding ends a step early, and a video may be longer than its sound."""
    whole = features(95)
    found = torch.cat(list(stream_windows(whole.split(20), 60)))
    assert torch.equal(found, speech_windows(whole, 60))


def test_ten_minutes_are_never_held_at_once() -> None:
    frames, piece = 15_000, 100
    read = 0

    def chunks() -> Iterator[Tensor]:
        nonlocal read
        for start in range(0, 2 * frames, piece):
            read += piece
            yield torch.arange(start, start + piece)[:, None].float()

    given = 0
    for windows in stream_windows(chunks(), frames):
        given += len(windows)
        assert read - 2 * given <= piece + 18  # steps read ahead of what was given
        assert windows.untyped_storage().nbytes() <= 4 * 18 * piece
    assert given == frames


def test_nothing_to_hear_is_refused() -> None:
    with pytest.raises(ShapeError, match="got none"):
        list(stream_windows([], 3))
    with pytest.raises(ShapeError, match="at least one step"):
        list(stream_windows([features(3)], 3, length=0))
