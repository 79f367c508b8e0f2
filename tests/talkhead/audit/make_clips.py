"""Rows and measures of clips without fault, to be given one."""

from __future__ import annotations

from typing import Any

import numpy as np

from datamodules.shard_index import ClipRow
from talkhead.audit.duplicates import Fingerprint
from talkhead.audit.measure import Measures
from talkhead.audit.sync import ClipSync

FRAMES = 200


def row(name: str, **values: Any) -> ClipRow:
    """A clip of eight seconds."""
    known: dict[str, Any] = {
        "speaker": f"speaker of {name}", "video": name, "split": "train", "shard": 0, "start": 0,
        "frames": FRAMES, "source": f"{name}.mp4", "fps_in": 25.0, "box": (0.0, 0.0, 300.0, 300.0),
    }  # fmt: skip
    return ClipRow(id=name, **{**known, **values})


def sync(offset: int = 0, confidence: float = 6.0, **values: Any) -> ClipSync:
    """A clear offset; chance gives 1."""
    known = {"chance": 1.0, "agreement": 1.0, "lse_c": 6.0, "lse_d": 7.0}
    return ClipSync(offset, confidence, **{**known, **values})


def measures(name: str, **values: Any) -> Measures:
    """Nothing wrong."""
    mark = Fingerprint(name, name, np.arange(4, dtype=np.uint32), np.arange(2, dtype=np.uint64))
    known: dict[str, Any] = {
        "sync": sync(), "silence_share": 0.2, "loudness_lufs": -23.0, "clipped_share": 0.0,
        "pose_deg": (-5.0, 5.0, -10.0, 10.0, -2.0, 2.0), "profile_share": 0.0, "sharpness": 0.5,
        "face_px": 150.0, "print": mark,
    }  # fmt: skip
    return Measures(clip=name, **{**known, **values})
