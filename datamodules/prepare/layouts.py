"""How known data sets lie on disk: every layout yields the same list of raw clips.

A layout only looks at names; whether a file can be decoded is found out clip by clip.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from datamodules.shard_index import SPLITS
from talkhead.errors import ConfigError, DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg"})
TEXT_ENCODING = "utf-8-sig"
"""Published lists start with a byte order mark that would become part of the first name."""

BoxInHeights = tuple[float, float, float, float]


@dataclass(frozen=True)
class RawClip:
    """A stretch of a media file that shows one speaker.

    Attributes:
        id: Unique name within the data set.
        path: The video file.
        source: ``path`` relative to the data set's root.
        speaker: Who speaks; splits keep speakers apart.
        video: The recording; frames of one video share light, clothes and camera.
        start_s: Where the clip begins in the file, None for its start.
        end_s: Where it ends, None for the end of the file.
        box: Where the annotators saw the face, ``(x, y, w, h)`` in picture heights, or None.
        audio: A separate sound file, or None if the sound is in the video file.
        official: The split it has to be in: ``"train"``, ``"val"``, ``"test"``, ``"dev"`` (train or val)
            or None.
        whole: The clip must begin with its first frame (truth files are aligned to it).
    """

    id: str
    path: Path
    source: str
    speaker: str
    video: str
    start_s: float | None = None
    end_s: float | None = None
    box: BoxInHeights | None = None
    audio: Path | None = None
    official: str | None = None
    whole: bool = False


@dataclass(frozen=True)
class Skipped:
    """A file the layout itself turns down."""

    source: str
    reason: str
    detail: str


@dataclass
class Listing:
    """Everything a layout found, in a fixed order."""

    clips: list[RawClip] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def videos_under(root: Path) -> list[Path]:
    """Video files below a folder in sorted order, without hidden ones; links to folders are followed."""
    found = []
    entered: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:  # a link back up the tree would be walked for ever
            inner.clear()
            continue
        entered.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        shown = (Path(folder) / name for name in names if not name.startswith("."))
        found += [p for p in shown if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    return sorted(found)


def _clip(root: Path, path: Path, speaker: str, video: str) -> RawClip:
    """A whole file as one clip."""
    source = path.relative_to(root).as_posix()
    return RawClip(source.rsplit(".", 1)[0], path, source, speaker, video)


Assigned = tuple[str, str | None]
"""Speaker and official split of a file."""


def _speakers_from_csv(table: Path, root: Path, paths: list[Path]) -> dict[Path, Assigned]:
    """File -> speaker and split from a table with the columns ``file``, ``speaker``, maybe ``split``."""
    try:
        with table.open(newline="", encoding=TEXT_ENCODING) as handle:
            reader = csv.DictReader(handle)
            names = set(reader.fieldnames or ())
            if not {"file", "speaker"} <= names:
                raise DataError(
                    f"{table}: expected the columns file and speaker, got {sorted(names)}."
                )
            rows = {
                Path(row["file"]).as_posix(): (
                    row["speaker"].strip(),
                    (row.get("split") or "").strip() or None,
                )
                for row in reader
                if row["speaker"].strip()
            }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the speaker table {table}: {error}.") from error
    _check_splits(table, rows.values())
    by_name = Counter(Path(name).name for name in rows)
    unique = {Path(n).name: s for n, s in rows.items() if by_name[Path(n).name] == 1}
    out: dict[Path, Assigned] = {}
    for path in paths:
        source = path.relative_to(root).as_posix()
        beside = f"{root.name}/{source}"
        assigned = rows.get(source) or rows.get(beside) or unique.get(path.name)
        if assigned:
            out[path] = assigned
    return out


def _check_splits(table: Path, assigned: Iterable[Assigned]) -> None:
    """Every split is one we know, and every speaker is in one."""
    split_of: dict[str, str | None] = {}
    for speaker, split in assigned:
        if split is not None and split not in SPLITS:
            raise DataError(
                f"{table}: expected a split of {', '.join(SPLITS)} or none, got {split!r} for {speaker}."
            )
        if split_of.setdefault(speaker, split) != split:
            raise DataError(
                f"{table}: speaker {speaker} is in two splits ({split_of[speaker]}, {split}); splits "
                "keep speakers apart, so give all clips of a speaker the same one."
            )


def list_folder(root: Path, speaker_from: str = "parent") -> Listing:
    """Any tree of videos.

    Args:
        root: Folder to search.
        speaker_from: ``"parent"``: the folder a file lies in is its speaker; ``"stem"``: every file
            is a speaker of its own; else the path of a CSV with the columns ``file`` (relative to
            ``root``, or a unique file name), ``speaker`` and optionally ``split`` (train, val, test;
            empty lets the hash decide).

    Raises:
        DataError: The table cannot be read.
        ConfigError: ``speaker_from`` is neither a rule nor a file.
    """
    paths = videos_under(root)
    listing = Listing()
    if speaker_from not in ("parent", "stem"):
        table = Path(speaker_from)
        if not table.is_file():
            raise ConfigError(
                f"expected --speaker-from parent, stem or a CSV file, got {speaker_from!r}."
            )
        speakers = _speakers_from_csv(table, root, paths)
    elif speaker_from == "stem":
        speakers = {p: (p.stem, None) for p in paths}
    else:
        folders = {p: p.parent.relative_to(root).as_posix() for p in paths}
        speakers = {p: (root.name if s == "." else s, None) for p, s in folders.items()}
    for path in paths:
        if path in speakers:
            source = path.relative_to(root).with_suffix("").as_posix()
            speaker, split = speakers[path]
            listing.clips.append(replace(_clip(root, path, speaker, source), official=split))
        else:
            source = path.relative_to(root).as_posix()
            listing.skipped.append(Skipped(source, "no_speaker", f"not in {speaker_from}"))
    return listing


def list_embedded(root: Path) -> Listing:
    """The embedded corpus: ``speaker/video/clip.mp4``; truth files beside them are never opened."""
    listing = Listing()
    for path in videos_under(root):
        parts = path.relative_to(root).parts
        if len(parts) != 3:
            source = path.relative_to(root).as_posix()
            listing.skipped.append(Skipped(source, "layout", "expected speaker/video/clip.mp4"))
            continue
        clip = _clip(root, path, parts[0], f"{parts[0]}/{parts[1]}")
        listing.clips.append(replace(clip, whole=True))
    return listing


_HDTF_PREFIX = re.compile(r"^(?:RD|WDA|WRA)_")
_HDTF_CUT = re.compile(r"^(?P<name>.+)_(?P<number>\d{1,3})$")


def hdtf_speaker(name: str) -> str:
    """Speaker of an HDTF video: ``CarolynMaloney2`` -> ``CarolynMaloney``.

    Numbers count the videos of a person, except for ``Radio``, whose numbers count guests.
    """
    base = name.rstrip("0123456789")
    return name if base in ("", "Radio") else base


def _clock_s(text: str) -> float:
    """``"01:35"`` or ``"1:02:03"`` in seconds."""
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _hdtf_lines(root: Path, ending: str) -> Iterator[tuple[str, list[str]]]:
    """``(video name without suffix, other fields)`` of all lists with an ending, below ``root``."""
    for table in sorted(root.rglob(f"*_{ending}.txt")):
        for line in table.read_text(encoding=TEXT_ENCODING).splitlines():
            fields = line.split()
            if fields:
                yield Path(fields[0]).stem, fields[1:]


def _hdtf_boxes(root: Path) -> dict[str, BoxInHeights]:
    """Crops ``Name_0 -> (x, y, w, h)`` in picture heights; the lists have ``x w y h`` in pixels."""
    heights = {name: float(rest[0]) for name, rest in _hdtf_lines(root, "resolution") if rest}
    boxes: dict[str, BoxInHeights] = {}
    for clip, rest in _hdtf_lines(root, "crop_wh"):
        cut = _HDTF_CUT.match(clip)
        height = heights.get(cut["name"]) if cut else None
        if height and len(rest) == 4:
            x, w, y, h = (float(v) / height for v in rest)
            boxes[clip] = (x, y, w, h)
    return boxes


def list_hdtf(root: Path) -> Listing:
    """HDTF: clips cut as ``Name_0.mp4``, or whole videos ``Name.mp4`` with the published lists.

    Names may carry the prefixes ``RD_``, ``WDA_``, ``WRA_``. The lists (``*_annotion_time.txt``,
    ``*_crop_wh.txt``, ``*_resolution.txt``) may lie anywhere below ``root``; a clip without a crop
    is searched in the whole picture.
    """
    spans = dict(_hdtf_lines(root, "annotion_time"))
    boxes = _hdtf_boxes(root)
    listing = Listing()
    for path in videos_under(root):
        name = _HDTF_PREFIX.sub("", path.stem)
        cut = _HDTF_CUT.match(name)
        source = path.relative_to(root).as_posix()
        if cut and name not in spans:
            clip = _clip(root, path, hdtf_speaker(cut["name"]), cut["name"])
            # Cut clips are cropped already or not, nobody knows: the face is searched everywhere.
            listing.clips.append(clip)
        elif spans.get(name):
            whole = _clip(root, path, hdtf_speaker(name), name)
            for number, span in enumerate(spans[name]):
                start, _, end = span.partition("-")
                listing.clips.append(
                    replace(
                        whole,
                        id=f"{whole.id}_{number}",
                        start_s=_clock_s(start),
                        end_s=_clock_s(end),
                        box=boxes.get(f"{name}_{number}"),
                    )
                )
        else:
            listing.skipped.append(
                Skipped(source, "no_interval", "not a clip Name_0.mp4 and no interval in the lists")
            )
    return listing


def list_mead(root: Path, views: tuple[str, ...] = ("front",)) -> Listing:
    """MEAD: ``M003/video/front/angry/level_1/001.mp4`` with sound in ``M003/audio/angry/level_1``.

    ``W021`` has an extra level, ``video/1/front``. Sound belongs to all views of a sentence.
    """
    listing = Listing()
    for path in videos_under(root):
        parts = path.relative_to(root).parts
        source = path.relative_to(root).as_posix()
        if "video" not in parts[:-1] or parts.index("video") == 0:
            listing.skipped.append(Skipped(source, "layout", "expected SPEAKER/video/VIEW/..."))
            continue
        at = parts.index("video")
        rest = [p for p in parts[at + 1 : -1] if not p.isdigit()]
        if len(rest) != 3:
            listing.skipped.append(Skipped(source, "layout", "expected VIEW/EMOTION/LEVEL/NNN.mp4"))
            continue
        view, emotion, level = rest
        if view not in views:
            continue
        actor = root.joinpath(*parts[:at])
        sound = actor / "audio" / emotion / level / f"{path.stem}.m4a"
        clip = _clip(root, path, parts[at - 1], f"{parts[at - 1]}/{emotion}/{level}/{path.stem}")
        listing.clips.append(replace(clip, audio=sound))
    return listing


def list_voxceleb2(root: Path) -> Listing:
    """VoxCeleb2: ``{dev,test}/mp4/id00012/VIDEO/00001.mp4``, sound inside, official test split."""
    listing = Listing()
    for path in videos_under(root):
        parts = path.relative_to(root).parts
        source = path.relative_to(root).as_posix()
        if len(parts) != 5 or parts[0] not in ("dev", "test") or parts[1] != "mp4":
            detail = "expected {dev,test}/mp4/ID/VIDEO/NNNNN.mp4"
            listing.skipped.append(Skipped(source, "layout", detail))
            continue
        clip = _clip(root, path, parts[2], f"{parts[2]}/{parts[3]}")
        listing.clips.append(replace(clip, official=parts[0]))
    return listing


LAYOUTS: dict[str, Callable[[Path], Listing]] = {
    "folder": list_folder,
    "embedded": list_embedded,
    "hdtf": list_hdtf,
    "mead": list_mead,
    "voxceleb2": list_voxceleb2,
}


def list_clips(
    layout: str,
    root: Path,
    *,
    speaker_from: str = "parent",
    views: tuple[str, ...] = ("front",),
) -> Listing:
    """All raw clips of a data set.

    Args:
        layout: A key of :data:`LAYOUTS`.
        root: Where the data set lies.
        speaker_from: For ``folder``, see :func:`list_folder`.
        views: For ``mead``, the camera views to take.

    Raises:
        ConfigError: Unknown layout.
        DataError: ``root`` is not a folder, or it holds no clip of this layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"expected a layout of {', '.join(LAYOUTS)}, got {layout!r}.")
    if not root.is_dir():
        raise DataError(f"no folder {root}; pass the folder that holds the {layout} data.")
    if layout == "folder":
        listing = list_folder(root, speaker_from)
    elif layout == "mead":
        listing = list_mead(root, views)
    else:
        listing = LAYOUTS[layout](root)
    if not listing.clips:
        why = f" ({len(listing.skipped)} files were skipped)" if listing.skipped else ""
        raise DataError(
            f"found no clip of layout {layout!r} below {root}{why}; check the folder and --dataset."
        )
    twice = [name for name, n in Counter(c.id for c in listing.clips).items() if n > 1]
    if twice:
        raise DataError(
            f"{root}: files {twice[:3]} differ only in their suffix; keep one of each name."
        )
    return listing
