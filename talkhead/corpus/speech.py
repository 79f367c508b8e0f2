"""Speech with phoneme times from eSpeak NG, the same samples for the same arguments.

eSpeak NG comes as the ``espeakng_loader`` wheel (GPL-3, therefore in the ``corpus`` extra) and is
called through ctypes. Its library keeps global state that survives even its own re-initialisation:
the second of two equal calls differs in samples and in length (tried with 1.52.0). So each
synthesis runs in a freshly loaded copy with a fixed seed, under one process-wide lock. Loading
takes a few milliseconds, and the result does not depend on what was said before, nor on which
worker process says it.
"""

from __future__ import annotations

import _ctypes
import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from talkhead.errors import ConfigError, DataError, MissingDependencyError
from talkhead.specs import SAMPLE_RATE_HZ

VOICES = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc")
VARIANTS = (*(f"m{i}" for i in range(1, 9)), *(f"f{i}" for i in range(1, 6)))
PAUSE = "_"
"""Label of every silence in :attr:`Speech.phonemes`."""

# Numbers of eSpeak's public header speak_lib.h.
_OUTPUT_RETRIEVAL = 1
_INIT_PHONEME_EVENTS, _INIT_DONT_EXIT = 0x0001, 0x8000
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3
_CHARS_UTF8 = 1
_EVENT_LIST_END, _EVENT_PHONEME = 0, 7
_NATIVE_NAMES = {"en-gb": "en"}
_RATES, _PITCHES = (80, 450), (0, 99)
_STRESS_MARKS = "',%=\""

_lock = threading.Lock()


class Phoneme(NamedTuple):
    """One phoneme: eSpeak mnemonic without stress marks, start and end in seconds."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """A spoken text.

    Attributes:
        wave: ``(S,)`` float32 in [-1, 1] at 16 kHz.
        phonemes: Gapless from 0 to the end of the wave, silences labelled :data:`PAUSE`.
    """

    wave: NDArray[np.float32]
    phonemes: list[Phoneme]

    @property
    def duration_s(self) -> float:
        """Length of the wave in seconds."""
        return len(self.wave) / SAMPLE_RATE_HZ


class _EventId(ctypes.Union):
    """The union at the end of eSpeak's event."""

    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """``espeak_EVENT``; ``sample`` counts from the start of the synthesis."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass
class _Recorder:
    """Collects what eSpeak hands to its callback."""

    blocks: list[NDArray[np.int16]] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self.blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_LIST_END:
            if events[i].type == _EVENT_PHONEME:
                label = events[i].id.string.decode("utf-8", "replace")
                self.events.append((label, int(events[i].sample)))
            i += 1
        return 0


def _loader() -> Any:
    """The wheel that ships the library, or an error that says what to install."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingDependencyError(
            "the embedded corpus speaks with eSpeak NG, which is not installed; "
            "install it with: pip install 'talkhead[corpus]'"
        ) from error
    return espeakng_loader


def _unload(library: ctypes.CDLL) -> None:
    """Drop the library and with it its static state."""
    free = getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")
    free(library._handle)


@contextmanager
def _fresh_library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A newly loaded, initialised and seeded eSpeak and its sample rate; one at a time."""
    loader = _loader()
    with _lock:
        library = ctypes.CDLL(loader.get_library_path())
        try:
            options = _INIT_PHONEME_EVENTS | _INIT_DONT_EXIT
            data = loader.get_data_path().encode()
            rate = int(library.espeak_Initialize(_OUTPUT_RETRIEVAL, 0, data, options))
            if rate <= 0:
                raise DataError(
                    f"eSpeak NG could not read its data in {loader.get_data_path()}; "
                    "reinstall it with: pip install --force-reinstall espeakng-loader"
                )
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            yield library, rate
        finally:
            library.espeak_Terminate()
            _unload(library)


def _check_request(text: str, voice: str, rate: int, pitch: int) -> None:
    """Refuse what eSpeak would silently ignore."""
    base, _, variant = voice.partition("+")
    if base not in VOICES or (variant and variant not in VARIANTS):
        raise ConfigError(
            f"unknown voice {voice!r}; expected one of {', '.join(VOICES)}, "
            f"optionally followed by + and one of {', '.join(VARIANTS)}."
        )
    if not _RATES[0] <= rate <= _RATES[1] or not _PITCHES[0] <= pitch <= _PITCHES[1]:
        raise ConfigError(
            f"speaking rate must be {_RATES[0]}..{_RATES[1]} words a minute and pitch "
            f"{_PITCHES[0]}..{_PITCHES[1]}, got rate {rate} and pitch {pitch}."
        )
    if not text.strip():
        raise ConfigError("there is no text to speak; give at least one word.")


def _record(text: str, voice: str, rate: int, pitch: int) -> tuple[_Recorder, int]:
    """Run eSpeak once."""
    recorder = _Recorder()
    base, plus, variant = voice.partition("+")
    native = _NATIVE_NAMES.get(base, base) + plus + variant
    with _fresh_library() as (library, native_rate):
        callback = _Callback(recorder)
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(native.encode()) != 0:
            raise ConfigError(f"this eSpeak NG has no voice {native!r}; choose another voice.")
        library.espeak_SetParameter(_PARAMETER_RATE, rate, 0)
        library.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)
        data = text.encode()
        library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        library.espeak_Synchronize()
    if not recorder.blocks:
        raise DataError(f"eSpeak NG spoke nothing for {text!r}; use words it can read.")
    return recorder, native_rate


def _timed(events: list[tuple[str, int]], samples: int, rate: int) -> list[Phoneme]:
    """Events -> gapless phonemes; empty ones go, neighbouring silences become one."""
    out: list[Phoneme] = []
    for (raw, start), (_, end) in pairwise([("", 0), *events, ("", samples)]):
        if end <= start:
            continue
        bare = raw.lstrip(_STRESS_MARKS)
        label = PAUSE if not bare or bare.startswith("_") else bare
        if out and label == PAUSE == out[-1].label:
            out[-1] = Phoneme(PAUSE, out[-1].start_s, end / rate)
        else:
            out.append(Phoneme(label, start / rate, end / rate))
    return out


def synthesize(text: str, voice: str = "en-us", rate: int = 165, pitch: int = 50) -> Speech:
    """Speak a text.

    Args:
        text: English text; punctuation makes pauses.
        voice: One of :data:`VOICES`, optionally ``+`` one of :data:`VARIANTS`: ``"en-us+f2"``.
        rate: Words a minute, 80 to 450.
        pitch: eSpeak's pitch, 0 to 99 (50 is the voice's own).

    Returns:
        The wave at 16 kHz (resampled without delay from eSpeak's 22 050 Hz) and the phonemes.

    Raises:
        MissingDependencyError: ``espeakng_loader`` is not installed.
        ConfigError: Unknown voice, or rate, pitch or text out of range.
        DataError: eSpeak's data are broken or it spoke nothing.

    Source: speak_lib.h of eSpeak NG (event and parameter numbers).
    """
    from torchaudio.functional import resample

    _check_request(text, voice, rate, pitch)
    recorder, native_rate = _record(text, voice, rate, pitch)
    native = np.concatenate(recorder.blocks)
    wave = torch.from_numpy(native.astype(np.float32) / 32768.0)
    wave = resample(wave, native_rate, SAMPLE_RATE_HZ).clamp(-1.0, 1.0)
    return Speech(wave.numpy(), _timed(recorder.events, len(native), native_rate))


def silence(seconds: float) -> Speech:
    """Nothing said for a while."""
    samples = max(1, round(seconds * SAMPLE_RATE_HZ))
    wave = np.zeros(samples, np.float32)
    return Speech(wave, [Phoneme(PAUSE, 0.0, samples / SAMPLE_RATE_HZ)])


def join(parts: list[Speech]) -> Speech:
    """One utterance after the other, phoneme times shifted along.

    Raises:
        ConfigError: There is nothing to join.
    """
    if not parts:
        raise ConfigError("there is no speech to join; give at least one part.")
    phonemes: list[Phoneme] = []
    samples = 0
    for part in parts:
        offset = samples / SAMPLE_RATE_HZ
        phonemes += [Phoneme(p.label, p.start_s + offset, p.end_s + offset) for p in part.phonemes]
        samples += len(part.wave)
    return Speech(np.concatenate([p.wave for p in parts]), phonemes)


def require_espeak() -> None:
    """Fail early where speech will be needed.

    Raises:
        MissingDependencyError: ``espeakng_loader`` is not installed.
    """
    _loader()
