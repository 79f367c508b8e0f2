"""Scores over training: ``curves.csv`` beside a run's ``metrics.json``.

::

    step,name,value
    1000,val/loss,0.25
    1000,val/av_confidence_200ms[syncer],0.5

``step`` counts training batches and never falls from line to line; no step and name stand twice. Scores
that were not finite are written as ``nan`` or ``inf``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from talkhead.errors import DataError
from talkhead.text_files import write_text_atomic

FILE_NAME = "curves.csv"


class CurvePoint(NamedTuple):
    """One line of the file.

    Attributes:
        step: Training batches seen.
        name: As logged, such as ``val/loss``.
        value: The score.
    """

    step: int
    name: str
    value: float


def read_curves(path: Path) -> list[CurvePoint]:
    """Every line of a file, in its order.

    Raises:
        DataError: It cannot be read, has other columns, or a step or value is no number.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        head, *rows = lines or [[]]
        if tuple(head) != CurvePoint._fields:
            raise ValueError(f"its columns are {head}")
        return [CurvePoint(int(step), name, float(value)) for step, name, value in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}: expected lines of {','.join(CurvePoint._fields)}, but {error}; move the file away."
        ) from error


def write_curves(path: Path, points: Iterable[CurvePoint]) -> None:
    """Write a whole file through a temporary name."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CurvePoint._fields)
    writer.writerows(points)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, out.getvalue())
