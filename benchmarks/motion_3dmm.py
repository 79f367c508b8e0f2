"""Head pose of the face mesh against Deep3DFaceRecon tracks of the same clips, as a markdown table.

    python benchmarks/motion_3dmm.py CLIPS MOTION     # about 30 ms a frame on one core

CLIPS holds ``*_023.mp4`` and MOTION ``*_023.mat``: files with the same number at the end of their names
belong together. Both are compared at the clip's own frame rate, so that a lag shows in whole frames.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkhead.geometry.deep3d import Deep3DTrack, read_deep3d
from talkhead.geometry.motion import pose_free
from talkhead.landmarks.gaps import bridge
from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh
from talkhead.media.decode import iter_frames, probe
from talkhead.metrics.correlation import best_lag, correlation

ANGLES = ("pitch", "yaw", "roll")
GOOD = 0.9
"""Correlations from here on are printed bold."""

COMPONENTS = 5
"""Main components of a clip's 64 expression coefficients that may explain a difference."""


def pairs(clips: Path, tracks: Path) -> Iterator[tuple[Path, Path]]:
    """Clips and tracks with the same number."""
    numbered = {_number(path): path for path in clips.glob("*.mp4")}
    for track in sorted(tracks.glob("*.mat")):
        if (clip := numbered.get(_number(track))) is not None:
            yield clip, track


def _number(path: Path) -> str:
    found = re.search(r"\d+$", path.stem)
    return found[0] if found else path.stem


def mesh_pose(clip: Path) -> tuple[Tensor, float]:
    """Rotation and place ``(T, 5)`` in radians and pixels at the clip's own frame rate."""
    fps = probe(clip).fps
    points, _ = bridge(list(MediaPipeMesh().track(iter_frames(clip, round(fps)))))
    _, rotation, place, _ = pose_free(points)
    return torch.from_numpy(np.concatenate([rotation, place], axis=1)).double(), fps


def compare(name: str, track: Deep3DTrack, clip: Path) -> tuple[list[str], Tensor, Tensor]:
    """One row of the table, and the head rotation in degrees of both, each minus its mean."""
    ours, fps = mesh_pose(clip)
    theirs = torch.from_numpy(np.concatenate([track.rotation, track.place()[:, :2]], axis=1))
    lag, _ = best_lag(theirs, ours)
    both = min(len(ours), len(theirs))
    as_it_lies = correlation(ours[:both, :3], theirs[:both, :3]).tolist()
    shared = both - abs(lag)
    ours, theirs = ours[max(lag, 0) :][:shared], theirs[max(-lag, 0) :][:shared]
    turned = [torch.rad2deg(side[:, :3]) for side in (ours, theirs)]
    apart = turned[0] - turned[1]
    spreads = zip(*(side.std(0).tolist() for side in (*turned, apart)), strict=True)
    expression = torch.from_numpy(track.expression[max(-lag, 0) :][:shared]).double()
    share, chance = explained(apart[:, 0], expression)
    cells = [
        name,
        f"{fps:g}",
        str(shared),
        f"{lag:+d}",
        *(f"{r:.2f}" for r in as_it_lies),
        *(f"**{r:.2f}**" if r >= GOOD else f"{r:.2f}" for r in correlation(ours, theirs).tolist()),
        *(f"{mesh:.1f} / {model:.1f} / {both:.1f}" for mesh, model, both in spreads),
        f"{share:.2f} ({chance:.2f})",
    ]
    return cells, turned[0] - turned[0].mean(0), turned[1] - turned[1].mean(0)


def explained(curve: Tensor, expression: Tensor) -> tuple[float, float]:
    """R^2 of a curve on the main components of the expression, and its mean for expressions moved in time."""
    centred = expression - expression.mean(0)
    main_ones = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:COMPONENTS].T
    wanted = (curve - curve.mean())[:, None]

    def r2(predictors: Tensor) -> float:
        left = wanted - predictors @ torch.linalg.lstsq(predictors, wanted).solution
        return float(1 - left.square().sum() / wanted.square().sum())

    shifts = range(len(curve) // 10, len(curve) - len(curve) // 10, max(1, len(curve) // 50))
    chance = [r2(main_ones.roll(shift, 0)) for shift in shifts]
    return r2(main_ones), sum(chance) / len(chance)


def main(clips: Path, tracks: Path) -> None:
    """Print the table, the correlation over all frames and the slope between both."""
    heads = ["clip", "fps", "frames", "lag", *(f"{a}, as it lies" for a in ANGLES)]
    heads += [f"{a}, aligned" for a in (*ANGLES, "x", "y")]
    heads += [f"spread of {a}: mesh / 3DMM / difference, degrees" for a in ANGLES]
    heads += ["share of the pitch difference that goes with expression (by chance)"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    ours, theirs = [], []
    for clip, path in pairs(clips, tracks):
        cells, first, second = compare(clip.stem, read_deep3d(path), clip)
        print("| " + " | ".join(cells) + " |", flush=True)
        ours.append(first)
        theirs.append(second)
    if not ours:
        sys.exit(f"no clip of {clips} has a track in {tracks}")
    every, others = torch.cat(ours), torch.cat(theirs)
    slopes = (every * others).sum(0) / every.square().sum(0)
    print(f"\nall {len(every)} frames, each clip minus its mean:")
    for angle, r, slope in zip(ANGLES, correlation(every, others), slopes, strict=True):
        print(f"- {angle}: r = {r:.3f}, 3DMM = {slope:.2f} x mesh")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
