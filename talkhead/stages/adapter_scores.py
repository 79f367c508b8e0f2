"""Whole test clips spoken anew with several strengths of the adapter, and what became of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.mfcc import FULL_SCALE
from talkhead.audio.speech_windows import STEPS_PER_FRAME
from talkhead.batch import SPEECH, to_bytes, to_float
from talkhead.errors import ConfigError
from talkhead.geometry.motion import mouth_opening, pose_free
from talkhead.geometry.mouth_box import mouth_boxes
from talkhead.geometry.points68 import ibug_points
from talkhead.losses.outside_mouth import outside_difference
from talkhead.metrics.correlation import correlation
from talkhead.metrics.silence import silence_motion, silent_frames
from talkhead.metrics.sync_scores import sync_scores
from talkhead.networks.face_look import Look, redraw
from talkhead.ranks import gather_rows
from talkhead.specs import frames_to_samples
from talkhead.stages.lip_sync_expert import NAME as JUDGE
from talkhead.stages.lip_sync_expert import embed_track

if TYPE_CHECKING:
    from talkhead.stages.audio2exp import Audio2ExpStage

MODES = ("video", "portrait")
"""Every frame drawn from itself, as in dubbing; or the clip's first frame held still, as with a portrait."""
BLOCK = 8
"""Frames drawn at a time."""
MIN_WINDOWS = 25
"""Runs of frames that a clip needs before its offset is looked for."""
UNADAPTED = "unadapted"
"""The renderer with the expression of the face that it is shown."""
FILMED = "filmed"
"""The face held still with the expressions that were filmed with the speech: as if the adapter were right."""
RETRACKED = "retracked:renderer"

Tracker = Callable[[Tensor], tuple["NDArray[np.float32] | None", float]]
"""Pictures ``(T, 3, H, W)`` uint8 to landmarks ``(T, 478, 3)`` in crop units and the share with a face."""


@dataclass(frozen=True)
class _Clip:
    """A test clip.

    Attributes:
        pictures: ``(T, 3, H, W)`` uint8.
        landmarks: Tracked ones of the real frames, ``(T, 478, 3)``.
        audio: Embeddings of the speech around every frame, ``(T, A)``.
        steps: Speech features of the whole clip, ``(S, D)``.
        wave: Samples ``(640 T,)`` in [-1, 1].
    """

    pictures: Tensor
    landmarks: NDArray[np.float32]
    audio: Tensor
    steps: Tensor
    wave: Tensor


class AdapterScores:
    """Scores of a clip spoken by its own sound, by ``<mode>_<score>[space]``.

    | score                                | of                                                | good    |
    |--------------------------------------|---------------------------------------------------|---------|
    | `sync_cosine[sync_expert]`           | mouths against their own speech                   | high    |
    | `sync_confidence[sync_expert]`       | the same, best against median of all shifts       | high    |
    | `sync_offset[sync_expert]`           | the best shift in frames, absolute                | 0       |
    | `outside_change`                     | mean difference from the source outside the mouth | low     |
    | `outside_edit`                       | the same from the renderer alone                  | low     |
    | `mouth_opening[retracked:renderer]`  | mean lip distance over eye distance               | as real |
    | `opening_follows[retracked:renderer]`| correlation over time with the real lip distance  | 1       |
    | `silence_motion[retracked:renderer]` | mouth speed while nothing is said                 | low     |
    | `found[retracked:renderer]`          | share of drawn frames with a face                 | 1       |
    | `opening_rank[retracked:renderer]`   | Spearman correlation of alpha and mean opening    | 1       |

    ``…_alpha_<a>`` is behind the score at a strength of the sweep, nothing at ``test_alpha``.
    ``unadapted/`` is the renderer with the expression it found, the floor of every change: an adapter whose
    ``outside_edit`` is below that ``outside_change`` is lost in the renderer's own error. ``filmed/`` is a
    face held still that is given the expressions of the clip's own frames, the most that this renderer lets
    an adapter do; ``gt/`` the real clip. Tracked scores are there when a callback gives the stage a tracker.

    The expert also trained the adapter, so its scores say whether training worked and not how good the
    result looks: ``talkhead evaluate`` has judges that were not asked.

    Source: ControlTalk figures 7 and 8 (alpha) and table 1 (Sync, by an expert).
    """

    def __init__(self, stage: Audio2ExpStage, data: Any, tracker: Tracker | None) -> None:
        """Keep what is needed.

        Args:
            stage: The stage under test.
            data: The datamodule.
            tracker: Tracks drawn pictures again; None leaves these scores out.
        """
        self._stage, self._data, self._tracker = stage, data, tracker

    @torch.no_grad()
    def __call__(self, row: Any) -> dict[str, float]:
        """Scores of a clip."""
        clip = self._read(row)
        scores: dict[str, float] = {}
        real = self._real(clip)
        for mode in self._stage.test_modes:
            scores |= {f"gt/{mode}_{name}": value for name, value in real.items()}
            openings = []
            drawn = self._drawn(clip, mode)
            for drawing, made in drawn.items():
                found = self._made(clip, made, drawn[UNADAPTED], mode)
                opening = found.get(f"mouth_opening[{RETRACKED}]")
                if isinstance(drawing, float) and opening is not None:
                    openings.append((drawing, opening))
                scores |= dict(self._named(found, mode, drawing))
            if len(openings) > 2:
                rank = _spearman(openings)
                scores[f"{mode}_opening_rank[{RETRACKED}]"] = rank
        return scores

    def _read(self, row: Any) -> _Clip:
        stage, prepared = self._stage, self._data.prepared
        frames = min(row.frames, stage.test_frames)
        features = self._data.store.window(SPEECH, row).float()
        steps = features.unflatten(1, (STEPS_PER_FRAME, -1)).flatten(0, 1)
        windows = stage.sync_expert.frame_windows(steps, frames)
        audio = [stage.hear(part.to(stage.device)) for part in windows.split(BLOCK)]
        samples = torch.from_numpy(prepared.audio(row)).float() / FULL_SCALE
        return _Clip(
            prepared.frames(row, range(frames), stage.video_spec.size),
            np.asarray(prepared.landmarks(row)[:frames], np.float32),
            torch.cat(audio),
            steps,
            samples[: frames_to_samples(frames)],
        )

    def _drawn(self, clip: _Clip, mode: str) -> dict[float | str, Tensor]:
        """Pictures ``(T, 3, H, W)`` uint8 by strength of the adapter, and without it."""
        stage = self._stage
        drawn: dict[float | str, list[Tensor]] = defaultdict(list)
        for look, audio, expressions in self._looks(clip, mode):
            for name, expression in expressions.items():
                made = redraw(stage.motion_extractor, stage.renderer, look, expression)
                drawn[name].append(to_bytes(made).cpu())
            for alpha in stage.test_alphas:
                drawn[alpha].append(to_bytes(stage(look, audio, alpha)).cpu())
        return {drawing: torch.cat(parts) for drawing, parts in drawn.items()}

    def _looks(self, clip: _Clip, mode: str) -> Iterator[tuple[Look, Tensor, dict[str, Tensor]]]:
        """Faces to be drawn, the speech of a few frames, and expressions to draw without the adapter."""
        stage = self._stage
        still = stage.look(to_float(clip.pictures[:1].to(stage.device)))
        for start in range(0, len(clip.audio), BLOCK):
            audio = clip.audio[start : start + BLOCK]
            shown = to_float(clip.pictures[start : start + BLOCK].to(stage.device))
            if mode == "portrait":
                look, more = still.repeated(len(audio)), {FILMED: stage.expressions(shown)}
            else:
                look, more = stage.look(shown), {}
            yield look, audio, {UNADAPTED: look.head.expression, **more}

    def _real(self, clip: _Clip) -> dict[str, float]:
        """Scores of the clip itself, with the landmarks it was prepared with."""
        points = torch.from_numpy(ibug_points(clip.landmarks)[..., :2])
        scores = self._sync(clip, clip.pictures, points)
        if self._tracker is not None:
            scores |= _mouth(clip.landmarks, clip.wave)
        return scores

    def _made(self, clip: _Clip, pictures: Tensor, alone: Tensor, mode: str) -> dict[str, float]:
        """Scores of drawn pictures ``(T, 3, H, W)`` uint8; ``alone`` are those of the renderer alone."""
        held, sources = clip.landmarks, clip.pictures
        if mode == "portrait":
            held, sources = held[:1].repeat(len(held), 0), sources[:1].expand_as(sources)
        points = torch.from_numpy(ibug_points(held)[..., :2])
        scores = self._sync(clip, pictures, points)
        scores["outside_change"] = self._outside(pictures, sources, points)
        if pictures is not alone:
            scores["outside_edit"] = self._outside(pictures, alone, points)
        if self._tracker is not None:
            landmarks, scores[f"found[{RETRACKED}]"] = self._tracker(pictures)
            if landmarks is not None:
                scores |= _mouth(landmarks, clip.wave)
                follows = correlation(_opening(landmarks), _opening(clip.landmarks))
                scores[f"opening_follows[{RETRACKED}]"] = float(follows)
        return scores

    def _sync(self, clip: _Clip, pictures: Tensor, points: Tensor) -> dict[str, float]:
        """The expert's verdict on pictures whose mouths lie where 68 points say."""
        stage = self._stage
        if len(pictures) - stage.sync_expert.frames + 1 < MIN_WINDOWS:
            return {}
        visual, audio = embed_track(
            stage.sync_expert,
            lambda at: to_float(pictures[at[0] : at[-1] + 1].to(stage.device)),
            points,
            clip.steps,
            stage.device,
        )
        found = sync_scores(visual, audio)
        return {
            f"sync_cosine[{JUDGE}]": float((visual * audio).sum(-1).mean()),
            f"sync_confidence[{JUDGE}]": float(found.lse_c),
            f"sync_distance[{JUDGE}]": float(found.lse_d),
            f"sync_offset[{JUDGE}]": float(found.offset.abs()),
        }

    def _outside(self, pictures: Tensor, sources: Tensor, points: Tensor) -> float:
        boxes = mouth_boxes(points)
        parts = [
            outside_difference(to_float(a), to_float(b), box)
            for a, b, box in zip(
                pictures.split(BLOCK), sources.split(BLOCK), boxes.split(BLOCK), strict=True
            )
        ]
        return float(torch.cat(parts).mean())

    def _named(
        self, found: dict[str, float], mode: str, drawing: float | str
    ) -> Iterator[tuple[str, float]]:
        """Names of the scores of a drawing."""
        for name, value in found.items():
            base, bracket, space = name.partition("[")
            if isinstance(drawing, str):
                yield f"{drawing}/{mode}_{name}", value
                continue
            yield f"{mode}_{base}_alpha_{drawing:g}{bracket}{space}", value
            if drawing == self._stage.test_alpha:
                yield f"{mode}_{name}", value


def check_sweep(modes: Sequence[str], alphas: Sequence[float]) -> None:
    """Refuse unknown modes and negative strengths.

    Raises:
        ConfigError: One of them.
    """
    if not modes or not set(modes) <= set(MODES):
        raise ConfigError(f"test_modes: expected some of {', '.join(MODES)}, got {modes}.")
    if min(alphas) < 0:
        raise ConfigError(f"test_alphas: expected numbers of at least 0, got {alphas}.")


def log_scores(
    stage: Audio2ExpStage, score: Callable[[Any], dict[str, float]], rows: Sequence[Any]
) -> list[dict[str, Any]]:
    """Score clips, evenly spaced and shared over ranks; log means over those that have the score.

    Args:
        stage: Logs ``test/<name>``.
        score: :class:`AdapterScores`.
        rows: Clips of the split.

    Returns:
        One row for each of this rank's clips.
    """
    if not rows:
        return []
    chosen = rows[:: math.ceil(len(rows) / (stage.test_clips or len(rows)))]
    mine = chosen[stage.global_rank :: stage.trainer.world_size]
    here: list[dict[str, Any]] = []
    for row in mine:
        here.append({"clip": row.id, **score(row)})
        rank_zero_info(f"alpha sweep: {len(here)} of {len(mine)} clips")
    everywhere = gather_rows(here)
    names = sorted({name for clip in everywhere for name in clip if name != "clip"})
    for name in names:
        known = [clip[name] for clip in everywhere if name in clip and not math.isnan(clip[name])]
        if known:
            stage.log(f"test/{name}", sum(known) / len(known), rank_zero_only=True)
    return here


def _opening(landmarks: NDArray[np.float32]) -> Tensor:
    """Lip distance ``(T, 1)`` over eye distance of tracked landmarks ``(T, 478, 3)``."""
    return torch.from_numpy(mouth_opening(pose_free(landmarks)[0]))[:, None]


def _mouth(landmarks: NDArray[np.float32], wave: Tensor) -> dict[str, float]:
    """Opening and motion in silence of tracked landmarks ``(T, 478, 3)``."""
    points = torch.from_numpy(ibug_points(landmarks))
    moved = silence_motion(points, silent_frames(wave)[: len(points)])
    return {
        f"mouth_opening[{RETRACKED}]": float(_opening(landmarks).mean()),
        f"silence_motion[{RETRACKED}]": float(moved),
    }


def _spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Rank correlation of pairs of numbers, all different."""
    ranks = torch.tensor(pairs, dtype=torch.float64).argsort(dim=0).argsort(dim=0).double()
    return float(correlation(ranks[:, :1], ranks[:, 1:]))
