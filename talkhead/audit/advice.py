"""From measures to advice: keep a clip, fix its offset, or drop it, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from talkhead.audit.duplicates import Match
from talkhead.audit.measure import Measures
from talkhead.errors import ConfigError
from talkhead.specs import FPS

RIDGE = "ridge"
"""Name of the judge when there is no network: the estimate that ``talkhead prepare`` made."""
_SPLIT_ORDER = ("test", "val", "train")
"""Of two copies the one in the evaluation split stays: dropping the other ends the leak."""
_KINDS = ("exact", "near", "sound")


@dataclass(frozen=True)
class Thresholds:
    """When a number becomes advice.

    Attributes:
        chance_quantile: An offset is clear when its confidence exceeds this quantile, over all clips, of
            what chance gives.
        min_clear: Least share of clear clips for the judge to be trusted when it finds *no* sync.
        min_shift: Smallest offset worth fixing, in frames; one frame is within the judge's error.
        max_shift: Largest offset believed; the outermost of the 15 searched are where noise ends up.
        min_agreement: Least share of a clip's stretches that agree with its offset.
        ridge_clear: Least confidence of an offset when there is no network.
        ridge_min_shift: ``min_shift`` when there is no network; its estimates are good to two frames.
        max_silence: Largest share of silence.
        max_profile: Largest share of frames turned aside by more than 45 degrees.
        min_sharpness: Least sharpness, relative to the set's median.
        min_face_px: Least width of the face in pixels of the source.
        min_tracked: Least share of frames in which the face was found.
        min_loudness: LUFS below which a clip is marked as quiet.
        max_clipped: Share of samples cut off above which a clip is marked.
        min_overlap: Share of the shorter of two near duplicates from which it counts as a copy.
    """

    chance_quantile: float = 0.99
    min_clear: float = 0.8
    min_shift: int = 2
    max_shift: int = 12
    min_agreement: float = 0.5
    ridge_clear: float = 0.15
    ridge_min_shift: int = 3
    max_silence: float = 0.8
    max_profile: float = 0.5
    min_sharpness: float = 0.4
    min_face_px: float = 48.0
    min_tracked: float = 0.95
    min_loudness: float = -45.0
    max_clipped: float = 0.001
    min_overlap: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a quantile that is none.

        Raises:
            ConfigError: Outside 0 to 1.
        """
        if not 0 <= self.chance_quantile <= 1:
            raise ConfigError(
                f"expected chance_quantile within 0 to 1, got {self.chance_quantile}."
            )

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Thresholds:
        """Defaults with changes such as ``min_face_px=64``.

        Raises:
            ConfigError: An unknown name, or no number.
        """
        kinds: dict[str, type[int] | type[float]] = {
            f.name: int if f.type == "int" else float for f in fields(cls)
        }
        values: dict[str, Any] = {}
        for setting in settings:
            name, _, text = setting.partition("=")
            if name not in kinds:
                raise ConfigError(
                    f"--limit: expected NAME=VALUE with a name of {', '.join(kinds)}, got {setting!r}."
                )
            try:
                values[name] = kinds[name](text)
            except ValueError as error:
                raise ConfigError(
                    f"--limit {name}: expected a number ({kinds[name].__name__}), got {text!r}."
                ) from error
        return replace(cls(), **values)


@dataclass(frozen=True)
class Advice:
    """What to do with a clip.

    Attributes:
        recommendation: ``keep``, ``fix`` or ``drop``.
        shift_frames: Frames by which ``prepare --fix-offset`` has to delay the raw sound; what the
            audited set was delayed by already is in it.
        faults: Why to drop it: ``duplicate``, ``silent``, ``low_track``, ``small_face``, ``profile``,
            ``blurred``, ``no_sync``.
        reason: The faults or the offset in words, empty for ``keep``.
        flags: What to look at, worst first.
        duplicate_of: Clip this one is a copy of, or empty.
        duplicate_kind: ``exact``, ``near`` or ``sound``, or empty.
    """

    recommendation: Literal["keep", "fix", "drop"]
    shift_frames: int
    faults: tuple[str, ...]
    reason: str
    flags: tuple[str, ...]
    duplicate_of: str = ""
    duplicate_kind: str = ""


@dataclass(frozen=True)
class SetFacts:
    """What holds for the whole set.

    Attributes:
        judge: ``syncnet_v2``, ``syncnet`` or :data:`RIDGE`.
        judged: Clips with an offset.
        chance: Confidence above which an offset is clear; None without a network.
        typical_chance: Median confidence of what chance gives; None without a network.
        clear_share: Share of judged clips with a clear offset.
        median_offset: Median of the clear offsets in frames, None without one.
        median_share: Share of the clear offsets that are within a frame of it.
        sharpness: Median sharpness.
    """

    judge: str
    judged: int
    chance: float | None
    typical_chance: float | None
    clear_share: float
    median_offset: float | None
    median_share: float
    sharpness: float


@dataclass(frozen=True)
class Offset:
    """An offset and the evidence for it."""

    frames: int
    confidence: float
    chance: float | None
    agreement: float
    clear: bool


def offset_of(
    row: Any, measures: Measures, chance: float | None, limits: Thresholds
) -> Offset | None:
    """A clip's offset by the network, or without one by ``prepare``; None if it has none.

    Args:
        row: The clip (``datamodules.shards.ClipRow``).
        measures: Its measures.
        chance: Confidence above which a network's offset is clear; None where there is no network.
        limits: Thresholds.
    """
    if chance is not None:
        sync = measures.sync
        if sync is None:
            return None
        clear = sync.confidence > chance and abs(sync.offset_frames) <= limits.max_shift
        return Offset(sync.offset_frames, sync.confidence, sync.chance, sync.agreement, clear)
    if row.offset_frames is None or row.offset_confidence is None:
        return None
    clear = row.offset_confidence >= limits.ridge_clear
    return Offset(int(row.offset_frames), row.offset_confidence, None, 1.0, clear)


def set_facts(
    rows: Sequence[Any], measures: Sequence[Measures], judge: str, limits: Thresholds
) -> SetFacts:
    """Numbers that single clips are held against.

    Args:
        rows: All clips.
        measures: Theirs, in the same order.
        judge: Name of the judge.
        limits: Thresholds.
    """
    chances = [m.sync.chance for m in measures if m.sync is not None]
    chance: float | None = None
    if judge != RIDGE:
        chance = float(np.quantile(chances, limits.chance_quantile)) if chances else 0.0
    pairs = zip(rows, measures, strict=True)
    offsets = [o for row, m in pairs if (o := offset_of(row, m, chance, limits)) is not None]
    clear = [o.frames for o in offsets if o.clear]
    median = float(np.median(clear)) if clear else None
    near = [median is not None and abs(frames - median) <= 1 for frames in clear]
    return SetFacts(
        judge=judge,
        judged=len(offsets),
        chance=chance,
        typical_chance=float(np.median(chances)) if chances else None,
        clear_share=len(clear) / len(offsets) if offsets else 0.0,
        median_offset=median,
        median_share=sum(near) / len(near) if near else 0.0,
        sharpness=float(np.median([m.sharpness for m in measures])),
    )


def advise(
    rows: Sequence[Any],
    measures: Sequence[Measures],
    matches: Sequence[Match],
    facts: SetFacts,
    limits: Thresholds,
    noted: Mapping[str, Sequence[str]],
) -> list[Advice]:
    """Advice for every clip, in their order.

    Args:
        rows: All clips.
        measures: Theirs, in the same order.
        matches: From :func:`talkhead.audit.duplicates.find_matches` on their fingerprints.
        facts: From :func:`set_facts`.
        limits: Thresholds.
        noted: Flags that ``prepare`` gave, by clip.
    """
    copies = _copies(rows, matches, limits)
    out = []
    recommendation: Literal["keep", "fix", "drop"]
    for place, (row, measured) in enumerate(zip(rows, measures, strict=True)):
        faults, flags = _faults(row, measured, facts, limits)
        copy_of, kind, whole = copies.get(place, ("", "", False))
        if whole:
            faults["duplicate"] = f"{kind} duplicate of {copy_of}"
        elif kind:
            flags.append("same_sound" if kind == "sound" else "overlap")
        offset = _offset_advice(row, measured, facts, limits, faults, flags)
        # Prepare's own opinion about the offset is what is being judged here.
        flags += [flag for flag in noted.get(row.id, ()) if not flag.startswith("offset")]
        shift = row.audio_shift_frames + (offset.frames if offset is not None else 0)
        reason = "; ".join(faults.values())
        if faults:
            recommendation = "drop"
        elif offset is not None:
            recommendation, reason = "fix", _offset_words(offset)
        else:
            recommendation = "keep"
        out.append(
            Advice(recommendation, shift, tuple(faults), reason, tuple(flags), copy_of, kind)
        )
    return out


def _offset_words(offset: Offset) -> str:
    """The offset in words."""
    side = "lags" if offset.frames > 0 else "leads"
    chance = "" if offset.chance is None else f", chance {offset.chance:.2f}"
    return (
        f"video {side} the sound by {abs(offset.frames)} frames "
        f"(confidence {offset.confidence:.2f}{chance})"
    )


def _faults(
    row: Any, measured: Measures, facts: SetFacts, limits: Thresholds
) -> tuple[dict[str, str], list[str]]:
    """Reasons to drop a clip, in words by name, and things to look at."""
    relative = measured.sharpness / facts.sharpness if facts.sharpness else 1.0
    checks = {
        "silent": (
            measured.silence_share > limits.max_silence,
            f"{measured.silence_share:.0%} silence",
        ),
        "low_track": (
            row.tracked_share < limits.min_tracked,
            f"face found in {row.tracked_share:.0%} of the frames",
        ),
        "small_face": (
            measured.face_px < limits.min_face_px,
            f"face is {measured.face_px:.0f} px wide",
        ),
        "profile": (
            measured.profile_share > limits.max_profile,
            f"turned aside in {measured.profile_share:.0%} of the frames",
        ),
        "blurred": (
            relative < limits.min_sharpness,
            f"blurred ({relative:.2f} of the set's sharpness)",
        ),
    }
    level = measured.loudness_lufs
    marks = {
        "quiet": level is not None and level < limits.min_loudness,
        "clipped": measured.clipped_share > limits.max_clipped,
    }
    faults = {name: words for name, (hit, words) in checks.items() if hit}
    return faults, [name for name, hit in marks.items() if hit]


def _offset_advice(
    row: Any,
    measured: Measures,
    facts: SetFacts,
    limits: Thresholds,
    faults: dict[str, str],
    flags: list[str],
) -> Offset | None:
    """The offset to fix, if any; what else is wrong with it is added to faults and flags."""
    offset = offset_of(row, measured, facts.chance, limits)
    if offset is None:
        flags.insert(0, "offset_unknown")
        return None
    if not offset.clear:
        hopeless = facts.typical_chance is not None and offset.confidence < facts.typical_chance
        if hopeless and facts.clear_share >= limits.min_clear:
            faults["no_sync"] = (
                f"sound and lips fit at no offset (confidence {offset.confidence:.2f}, chance "
                f"{facts.typical_chance:.2f})"
            )
        flags.insert(0, "offset_unclear")
        return None
    if offset.agreement < limits.min_agreement:
        flags.insert(0, "offset_drifts")
        return None
    smallest = limits.ridge_min_shift if facts.chance is None else limits.min_shift
    return offset if abs(offset.frames) >= smallest else None


def _copies(
    rows: Sequence[Any], matches: Sequence[Match], limits: Thresholds
) -> dict[int, tuple[str, str, bool]]:
    """For clips that match one that stays: that one, the kind, and whether they are a copy of it.

    A clip goes only for one that stays: of three cuts that overlap in a row the third is kept.
    """
    split_rank = {split: number for number, split in enumerate(_SPLIT_ORDER)}
    turn = {
        place: number
        for number, place in enumerate(
            sorted(range(len(rows)), key=lambda i: (split_rank[rows[i].split], i))
        )
    }
    partners: dict[int, list[tuple[bool, int, int, Match]]] = defaultdict(list)
    for match in matches:
        stays, goes = sorted((match.first, match.second), key=turn.__getitem__)
        shorter_s = min(rows[stays].frames, rows[goes].frames) / FPS
        enough = match.overlap_s >= limits.min_overlap * shorter_s
        copy = match.kind != "sound" and enough
        partners[goes].append((not copy, _KINDS.index(match.kind), turn[stays], match))
    found: dict[int, tuple[str, str, bool]] = {}
    gone: set[int] = set()
    for place in sorted(partners, key=turn.__getitem__):
        for part, _, _, match in sorted(partners[place], key=lambda entry: entry[:3]):
            other = match.first if match.second == place else match.second
            if other in gone:
                continue
            found[place] = (rows[other].id, match.kind, not part)
            if not part:
                gone.add(place)
            break
    return found
