"""Units of metrics, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from talkhead.metrics.rigid_offset import frame_ms
from talkhead.networks.rigid_syncer import MAX_LEVELS
from talkhead.report.results import MetricName
from talkhead.time_pyramid import window_ms

UNITS: Mapping[str, str] = {
    "psnr": "dB",
    "psnr_of_source": "dB",
    "ssim": "-1…1",
    "lpips": "≥ 0",
    "fid": "≥ 0",
    "frechet": "≥ 0",
    "csim": "-1…1",
    "sync_confidence": "embedding units",
    "sync_distance": "embedding units",
    "sync_offset": "frames of 40 ms",
    "sync_signed_offset": "frames of 40 ms",
    "sync_nlse": "share",
    **{
        f"{of}_{name}_{window_ms(i)}ms": unit
        for of in ("rigid", "av")
        for i in range(MAX_LEVELS)
        for name, unit in (
            ("offset", f"frames of {frame_ms(i)} ms"),
            ("offset_std", f"frames of {frame_ms(i)} ms"),
            ("offset_in_ms", "ms"),
            # Of keypoints, a mean cosine times the root of its windows, or what ``edges`` makes it.
            ("confidence", "cosine" if of == "rigid" else "≥ 0"),
            ("cosine", "cosine"),
            ("pair_accuracy", "share"),
        )
    },
    **{f"pair_accuracy_{window_ms(i)}ms": "share" for i in range(MAX_LEVELS)},
    "pair_accuracy": "share",
    "lmd_mouth": "",
    "lmd_frontal": "",
    "lmd_face": "",
    "blink_distance": "eye distances",
    "gaze_distance": "eye distances",
    "mouth_distance": "eye distances",
    "gaze_reading_distance": "half eye widths",
    "lid_reading_distance": "eye widths",
    "expression_distance": "deviations",
    "pose_distance": "deviations",
    "blink_rate": "Hz",
    "jitter": "",
    "silence_motion": "eye distances/s",
    "var": "variances",
    "fid_fm": "variances",
    "fid_dfm": "variances",
    "snd": "variances",
    "found": "share of frames",
    "multimodality": "deviations",
    "mouth_motion": "share",
    "head_motion": "share",
    "sync_cosine": "cosine",
    "outside_change": "0…2",
    "outside_edit": "0…2",
    "mouth_opening": "eye distances",
    "opening_rank": "rank correlation",
    "opening_follows": "correlation",
    "border_jump": "ratio",
    "edit_jump": "ratio",
    "network_evaluations": "a window",
    "sampling_time": "ms a frame",
    **{
        f"{stream}_with_{part}": "correlation"
        for stream in ("pose", "rhythm")
        for part in ("prosody", "posture")
    },
}
"""Unit by the base name of a metric; empty where the name's brackets say it."""
_IN_BRACKETS = {"px256": "px at 256", "warped": "px at 256", "inter_ocular": "eye distances"}
_DRIFT = re.compile(r"drift_\d+")
_ADAPTED = re.compile(r"(?:video|portrait)_(\w+?)(?:_alpha_[\d.]+)?")
"""Scores of ControlTalk's adapter: how it was shown, what is measured, at which strength."""

_OF_FACE_MODEL = {
    **dict.fromkeys(("var", "fid_fm", "fid_dfm", "snd"), "coefficients²"),
    "expression_distance": "coefficients",
    "pose_distance": "rad",
}
"""Units in the space ``deep3d``, whose numbers are not standardised."""


def unit_of(name: str) -> str:
    """Unit of a metric by its full name; empty when it has none."""
    parsed = MetricName.parse(name)
    base = parsed.base.rpartition("/")[2].removesuffix("_pooled")
    if parsed.space == "deep3d" and base in _OF_FACE_MODEL:
        return _OF_FACE_MODEL[base]
    adapted = _ADAPTED.fullmatch(base)
    if adapted is not None:
        base = adapted[1]
    if _DRIFT.fullmatch(base):
        return "px at 256"
    return UNITS.get(base, "") or _IN_BRACKETS.get(parsed.space, "")
