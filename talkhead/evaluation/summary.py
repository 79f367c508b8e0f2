"""From scores of clips to ``metrics.json``, a CSV of clips and a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from talkhead.evaluation.measure import Measurement
from talkhead.evaluation.scores import (
    Pooled,
    halves,
    scores_against,
    scores_alone,
    scores_floor,
    scores_shuffled,
)
from talkhead.evaluation.spaces import Spaces
from talkhead.metrics.confidence import normalised_confidence
from talkhead.report.results import MetricName
from talkhead.report.tables import ARROWS, direction_of
from talkhead.report.units import unit_of
from talkhead.stages.motion_evaluation import derangement, row_means

ROWS = ("", "gt", "floor", "shuffled")
"""The generated videos; the real ones in their place; real halves against each other; other real clips."""
TITLES = {
    "": "generated",
    "gt": "ground truth",
    "floor": "real halves (floor)",
    "shuffled": "other real clips",
}


@dataclass
class Summary:
    """Scores of all clips.

    Attributes:
        metrics: Mean over clips, or the pooled value, by name; a reference's with its prefix.
        spread: Standard deviation over clips, and the number of clips, by the same names.
        per_clip: One row a clip: its name, the measurement's facts and scores of every row.
        missing: Metric -> why it is not there.
    """

    metrics: dict[str, float]
    spread: dict[str, tuple[float, int]]
    per_clip: list[dict[str, Any]]
    missing: dict[str, str] = field(default_factory=dict)


def summarise(
    names: Sequence[str],
    load: Callable[[str], Measurement],
    spaces: Spaces,
    training_confidence: float | None = None,
) -> Summary:
    """Score measured clips; one or two of them are in memory at a time.

    Args:
        names: Names of the clips.
        load: A clip's measurement.
        spaces: Motion descriptors.
        training_confidence: Mean SyncNet confidence of the method's training set; adds ``sync_nlse``.

    Returns:
        Means, spread and rows. Real clips are compared with the next one by name (``shuffled``), which
        is left out for a single clip.
    """
    partner = derangement(names)
    rows: dict[str, list[dict[str, Any]]] = {row: [] for row in ROWS}
    facts: list[dict[str, Any]] = []
    pooled = {row: Pooled(spaces) for row in ("", "gt", "floor")}
    for i, name in enumerate(names):
        clip = load(name)
        other = load(names[partner[i]]).reference
        found: dict[str, dict[str, float]] = {
            "": clip.pictures
            | scores_alone(clip.generated, spaces)
            | scores_against(clip.generated, clip.reference, spaces),
            "gt": scores_alone(clip.reference, spaces)
            | scores_against(clip.reference, clip.reference, spaces),
            "floor": scores_floor(clip.reference, spaces),
            "shuffled": scores_shuffled(clip.reference, other, spaces) if len(names) > 1 else {},
        }
        pooled[""].add(clip.generated, clip.reference)
        pooled["gt"].add(clip.reference, clip.reference)
        pooled["floor"].add(*halves(clip.reference))
        facts.append(clip.facts)
        for row, scores in found.items():
            rows[row].append(scores)
    metrics: dict[str, float] = {}
    spread: dict[str, tuple[float, int]] = {}
    for row in ROWS:
        means = row_means(rows[row])
        spread |= {named(row, name): _spread(rows[row], name) for name in means}
        means |= pooled[row].compute() if row in pooled else {}
        metrics |= {named(row, name): value for name, value in means.items()}
    if training_confidence is not None:
        metrics |= _relative_confidence(metrics, training_confidence)
    per_clip = [
        {"clip": name, **facts[i]}
        | {named(row, key): value for row in ROWS for key, value in rows[row][i].items()}
        for i, name in enumerate(names)
    ]
    return Summary(metrics, spread, per_clip)


def named(row: str, name: str) -> str:
    """A metric's name with the reference it was measured on in front."""
    return f"{row}/{name}" if row else name


def _spread(rows: Sequence[Mapping[str, float]], name: str) -> tuple[float, int]:
    """Standard deviation over clips (NaN for one) and how many have the score."""
    values = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
    return (statistics.stdev(values) if len(values) > 1 else math.nan), len(values)


def _relative_confidence(metrics: Mapping[str, float], training: float) -> dict[str, float]:
    """N_c of every mean confidence."""
    out = {}
    for name, value in metrics.items():
        parsed = MetricName.parse(name)
        if parsed.base == "sync_confidence":
            relative = str(MetricName("sync_nlse", parsed.reference, parsed.space))
            out[relative] = normalised_confidence(value, training)
    return out


def table(summary: Summary, facts: Mapping[str, str]) -> str:
    """Markdown: what was measured on what, one line a metric, then what is missing.

    Args:
        summary: Scores.
        facts: Lines for the head of the table.
    """
    lines = [f"- {key}: {value}" for key, value in facts.items()]
    heads = ["metric", "unit", *(TITLES[row] for row in ROWS)]
    lines += ["", _line(heads), _line(["---"] * len(heads))]
    bases = dict.fromkeys(_without_reference(name) for name in summary.metrics)
    for name in bases:
        arrow = ARROWS[direction_of(name)]
        cells = [_cell(summary, named(row, name)) for row in ROWS]
        lines.append(_line([f"{name} {arrow}".strip(), unit_of(name), *cells]))
    lines += [
        "",
        "Mean ± standard deviation over clips; a value without ± is of all clips at once.",
        *_biases(summary),
    ]
    lines += [f"Missing: {name}: {reason}" for name, reason in summary.missing.items()]
    return "\n".join(lines) + "\n"


def _biases(summary: Summary) -> list[str]:
    """What the Fréchet distances owe to the number of frames they are of."""
    frames = [row["frames"] for row in summary.per_clip]
    bases = {MetricName.parse(name).base for name in summary.metrics}
    lines = []
    if "fid_fm" in bases:
        lines.append(
            "fid_fm, fid_dfm and snd are per video and biased upwards, the more the fewer its frames (here "
            f"{min(frames)} to {max(frames)}, half as many in the floor's halves): compare clips of equal "
            "length, beside the floor."
        )
    if bases & {"fid", "frechet"}:
        lines.append(
            f"fid and frechet are biased upwards, the more the fewer the frames (here {sum(frames)} a side, "
            "fewer with --fid-every, half as many in the floor): compare equal counts of the same clips."
        )
    return lines


def _without_reference(name: str) -> str:
    parsed = MetricName.parse(name)
    return str(MetricName(parsed.base, "", parsed.space))


def _cell(summary: Summary, name: str) -> str:
    """A value with its spread, or a dash."""
    value = summary.metrics.get(name, math.nan)
    if math.isnan(value):
        return "-"
    deviation, count = summary.spread.get(name, (math.nan, 0))
    return _short(value) if count == 0 else f"{_short(value)} ± {_short(deviation)}"


def _short(value: float) -> str:
    """Three digits or so."""
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}" if value else "0"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
