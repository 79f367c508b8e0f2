"""Which generated video belongs to which real one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from talkhead.errors import DataError

_SHOWN = 8


@dataclass(frozen=True)
class Pair:
    """A generated video and the real one it is compared with.

    Attributes:
        name: Path below both folders, without the ending.
        generated: File of the generated video.
        reference: File of the real video.
    """

    name: str
    generated: Path
    reference: Path


def match_pairs(
    generated: Path,
    reference: Path,
    generated_files: Sequence[Path],
    reference_files: Sequence[Path],
    *,
    allow_missing: bool = False,
) -> tuple[list[Pair], list[str]]:
    """Pair files whose path below their folder is the same but for the ending.

    Args:
        generated: Folder of the generated videos.
        reference: Folder of the real ones.
        generated_files: Videos below ``generated``.
        reference_files: Videos below ``reference``.
        allow_missing: Leave files without a partner out instead of refusing them.

    Returns:
        Pairs by name, and one line for each file without a partner.

    Raises:
        DataError: Files without a partner (unless allowed), two files of one name in a folder, or no pair.
    """
    ours, theirs = _by_name(generated, generated_files), _by_name(reference, reference_files)
    alone = [f"{name} only in {generated}" for name in sorted(set(ours) - set(theirs))]
    alone += [f"{name} only in {reference}" for name in sorted(set(theirs) - set(ours))]
    pairs = [Pair(name, ours[name], theirs[name]) for name in sorted(set(ours) & set(theirs))]
    if not pairs:
        raise DataError(
            f"expected videos of the same names in {generated} ({len(ours)} found) and {reference} "
            f"({len(theirs)} found), got no pair; name a generated file like its real one."
        )
    if alone and not allow_missing:
        raise DataError(
            f"expected every video to have a partner of the same name, got {len(alone)} without: "
            f"{shortened(alone)}. Rename or remove them, or pass --allow-missing to score the "
            f"{len(pairs)} pairs there are."
        )
    return pairs, alone


def shortened(lines: Sequence[str]) -> str:
    """The first lines and how many more there are."""
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; check the file."
        ) from error


def _by_name(folder: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Files by their path below the folder, without the ending."""
    named: dict[str, Path] = {}
    for file in files:
        name = file.relative_to(folder).with_suffix("").as_posix()
        if name in named:
            raise DataError(
                f"expected one video named {name} in {folder}, got {named[name].name} and {file.name}; "
                "remove one."
            )
        named[name] = file
    return named
