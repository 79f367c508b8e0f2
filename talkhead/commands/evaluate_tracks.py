"""Face-model coefficient tracks of evaluated videos, read beside their measurements."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from talkhead.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datamodules.tracks import TrackFolder
    from talkhead.evaluation.measure import Measurement, Side
    from talkhead.evaluation.pairs import Pair

SIDES = ("generated", "reference")


@dataclass(frozen=True)
class Tracks:
    """The tracks of both sides.

    Attributes:
        generated: Those of the generated videos.
        reference: Those of the real ones.
        missing: What has no usable track -> why; filled while tracks are read.
    """

    generated: TrackFolder
    reference: TrackFolder
    missing: dict[str, str] = field(default_factory=dict)

    def attach(self, name: str, measured: Measurement) -> None:
        """Give both sides of a pair their coefficients on the clock of its frames.

        A track that is missing, cannot be read or is of another video is noted and costs only itself.
        """
        for side in SIDES:
            found: Side = getattr(measured, side)
            fps = float(measured.facts[f"fps_{side}"])
            self._attach(name, side, found, fps)

    def digests(self, pairs: Sequence[Pair]) -> dict[str, str]:
        """One SHA-256 a side, over names and contents of the tracks in use and their lag."""
        from talkhead.evaluation.pairs import file_sha256

        out = {}
        for side in SIDES:
            folder: TrackFolder = getattr(self, side)
            digest = hashlib.sha256(str(folder.lag_rows).encode())
            for pair in pairs:
                path = folder.find(f"{pair.name}.mp4")
                content = "none" if path is None else file_sha256(path)
                digest.update(f"|{pair.name}|{content}".encode())
            out[f"{side}_tracks"] = digest.hexdigest()
        return out

    def check_any(self, pairs: Sequence[Pair]) -> None:
        """Refuse folders in which no clip has its track.

        Raises:
            DataError: No pair has one on either side.
        """
        for side in SIDES:
            folder: TrackFolder = getattr(self, side)
            if not any(folder.find(f"{pair.name}.mp4") for pair in pairs):
                raise DataError(
                    f"--{side}-tracks: expected files named as the clips in {folder.folder}, for "
                    f"example {pairs[0].name}.mat, found none of them."
                )

    def _attach(self, name: str, side: str, measured: Side, fps: float) -> None:
        """Coefficients of one video."""
        from torch import from_numpy

        from talkhead.geometry.deep3d import N_MEASURED, read_deep3d

        folder: TrackFolder = getattr(self, side)
        path = folder.find(f"{name}.mp4")
        if path is None:
            self.missing[f"{name} ({side})"] = "no file"
            return
        try:
            track = read_deep3d(path).on_clock(measured.frames, fps, lag_rows=folder.lag_rows)
        except DataError as error:
            self.missing[f"{name} ({side})"] = str(error)
            return
        measured.coefficients = from_numpy(track.motion[:, :N_MEASURED].copy())


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that name tracks."""
    group = parser.add_argument_group(
        "face-model coefficients (Deep3DFaceRecon .mat files named as the videos), for scores [deep3d]"
    )
    for side, whose in (("generated", "generated"), ("reference", "real")):
        group.add_argument(
            f"--{side}-tracks",
            type=Path,
            metavar="DIR",
            help=f"folder of the tracks of the {whose} videos",
        )
        group.add_argument(
            f"--{side}-track-lag",
            type=int,
            default=0,
            metavar="FRAMES",
            help="source frames by which the videos come later than their tracks (0)",
        )


def tracks_of(options: argparse.Namespace) -> Tracks | None:
    """The tracks that the options name, None without any.

    Raises:
        ConfigError: Tracks of one side only.
        DataError: A folder without tracks.
    """
    from datamodules.tracks import TrackFolder

    given = [side for side in SIDES if getattr(options, f"{side}_tracks") is not None]
    if not given:
        return None
    if len(given) == 1:
        other = next(side for side in SIDES if side not in given)
        raise ConfigError(
            f"--{given[0]}-tracks: expected tracks of both sides, got none of the other; fit the same face "
            f"model to those videos and pass --{other}-tracks, too."
        )
    folders = {}
    for side in SIDES:
        folder = TrackFolder(
            getattr(options, f"{side}_tracks"), getattr(options, f"{side}_track_lag")
        )
        folder.check(f"--{side}-tracks")
        folders[side] = folder
    return Tracks(folders["generated"], folders["reference"])
