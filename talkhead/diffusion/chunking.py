"""Sequences of any length from a network with a fixed window, in constant memory.

Window ``w + 1`` starts ``overlap`` frames before window ``w`` ends; those frames are given to it as
clean frames and are not emitted twice. The last window is moved back so that it is full, too: a
network trained on full windows does not meet a stub, and the frames it already has are clean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from talkhead.diffusion.sampler import CleanFrames
from talkhead.errors import ConfigError, ShapeError

WindowSampler = Callable[[Tensor, CleanFrames | None], Tensor]
"""``(audio (B, l, Da), clean frames or None) -> codes (B, l, D)`` for a window of ``l`` frames."""

GivenFrames = Callable[[int, int], CleanFrames | None]
"""Frames the caller wants kept within ``[start, stop)`` of the whole sequence."""


def sample_long(
    window: WindowSampler,
    audio: Tensor,
    *,
    length: int,
    overlap: int = 1,
    clean: CleanFrames | None = None,
) -> Tensor:
    """Codes for a whole sequence.

    Args:
        window: Samples one window.
        audio: Features, ``(B, T, Da)``, any ``T >= 1``.
        length: Frames in a full window.
        overlap: Clean frames shared by neighbouring windows, ``1 <= overlap < length``.
        clean: Frames of the whole sequence to keep, ``(B, T, …)``.

    Returns:
        ``(B, T, D)``; the same frames :func:`sample_stream` would emit.

    Raises:
        ShapeError: The clean frames do not cover the audio's frames.
    """
    if clean is not None and clean.mask.shape != audio.shape[:2]:
        raise ShapeError(
            f"expected clean frames for {tuple(audio.shape[:2])} (batch, frames), got "
            f"{tuple(clean.mask.shape)}; give one flag per audio frame."
        )

    def given(start: int, stop: int) -> CleanFrames | None:
        if clean is None:
            return None
        return CleanFrames(clean.codes[:, start:stop], clean.mask[:, start:stop])

    pieces = sample_stream(window, [audio], length=length, overlap=overlap, given=given)
    return torch.cat(list(pieces), 1)


def sample_stream(
    window: WindowSampler,
    audio: Iterable[Tensor],
    *,
    length: int,
    overlap: int = 1,
    given: GivenFrames | None = None,
) -> Iterator[Tensor]:
    """Codes piece by piece, each as soon as its window has all its audio.

    Memory is bounded by one window plus one block of audio, whatever the length of the stream.

    Args:
        window: Samples one window.
        audio: Blocks of features in order, ``(B, t, Da)`` with any ``t``.
        length: Frames in a full window.
        overlap: Clean frames shared by neighbouring windows, ``1 <= overlap < length``.
        given: Frames to keep, asked for per window.

    Yields:
        New codes ``(B, n, D)``; together as many frames as there is audio.

    Raises:
        ConfigError: The overlap does not fit the window.
        ShapeError: The stream held no frame.
    """
    if not 1 <= overlap < length:
        raise ConfigError(
            f"expected an overlap of 1 to {length - 1} frames for windows of {length}, got "
            f"{overlap}; lower the overlap."
        )
    chain = _Chain(window, length, given)
    for block in audio:
        for piece in block.split(length, 1):  # a long block must not be copied once per window
            yield from chain.feed(piece, overlap)
    yield from chain.finish()


def single_frames(codes: Mapping[int, Tensor]) -> GivenFrames:
    """Keep the named frames, such as frame 0 for a start from the portrait, and nothing else.

    Args:
        codes: Frame number -> codes ``(B, D)``.
    """

    def given(start: int, stop: int) -> CleanFrames | None:
        inside = {frame - start: code for frame, code in codes.items() if start <= frame < stop}
        if not inside:
            return None
        like = next(iter(inside.values()))
        kept = like.new_zeros(like.shape[0], stop - start, like.shape[1])
        mask = torch.zeros(kept.shape[:2], dtype=torch.bool, device=like.device)
        for place, code in inside.items():
            kept[:, place], mask[:, place] = code, True
        return CleanFrames(kept, mask)

    return given


class _Chain:
    """The last window's audio and codes, and audio that no window has used yet."""

    def __init__(self, window: WindowSampler, length: int, given: GivenFrames | None) -> None:
        self._window, self._length, self._given = window, length, given
        self._audio: Tensor | None = None  # frames [base, base + len) of the stream
        self._codes: Tensor | None = None  # the first frames of the same span
        self._base = 0

    def feed(self, piece: Tensor, overlap: int) -> Iterator[Tensor]:
        """Take a piece of audio; yield the codes of every window that is now full."""
        self._audio = piece if self._audio is None else torch.cat([self._audio, piece], 1)
        while True:
            start = 0 if self._codes is None else self._codes.shape[1] - overlap
            if self._audio.shape[1] - start < self._length:
                return
            yield self._run(start, self._length)

    def finish(self) -> Iterator[Tensor]:
        """Yield the codes of the audio left over after the last full window."""
        if self._audio is None or self._audio.shape[1] == 0:
            raise ShapeError("expected at least 1 frame of audio features, got 0; check the sound.")
        total = self._audio.shape[1]
        if self._codes is None or self._codes.shape[1] < total:
            start = max(0, total - self._length)
            yield self._run(start, total - start)

    def _run(self, start: int, frames: int) -> Tensor:
        """Sample ``frames`` frames from buffer position ``start``; forget what is older."""
        assert self._audio is not None
        known = self._codes[:, start:] if self._codes is not None else None
        first = self._base + start
        clean = self._given(first, first + frames) if self._given is not None else None
        if known is not None:
            clean = _with_known(known, frames, clean)
        codes = self._window(self._audio[:, start : start + frames], clean)
        fresh = codes if known is None else codes[:, known.shape[1] :]
        # clone: a view would keep the whole block of audio it was cut from alive
        self._audio, self._codes, self._base = self._audio[:, start:].clone(), codes, first
        return fresh


def _with_known(known: Tensor, frames: int, clean: CleanFrames | None) -> CleanFrames:
    """Clean frames of a window: its first frames are ``known``, the rest as the caller asked."""
    codes = known.new_zeros(known.shape[0], frames, known.shape[2])
    mask = torch.zeros(codes.shape[:2], dtype=torch.bool, device=known.device)
    if clean is not None:
        codes, mask = clean.codes.to(codes).clone(), clean.mask.clone()
    codes[:, : known.shape[1]] = known
    mask[:, : known.shape[1]] = True
    return CleanFrames(codes, mask)
