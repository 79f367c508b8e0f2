"""A preparation small enough for tests: 32 pixels, two expressions, no workers, drawn faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.prepare.finish import FinishOptions
from datamodules.prepare.options import ClipOptions
from datamodules.prepare.pipeline import PrepareJob


def small_job(raw: Path, out: Path, **changes: Any) -> PrepareJob:
    return PrepareJob(
        raw,
        out,
        clip=ClipOptions(size=32),
        finish=FinishOptions(n_expression=2),
        workers=0,
        landmarker="tests.datamodules.prepare.fake_face:FakeFace",
        **changes,
    )
