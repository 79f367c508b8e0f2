"""A table over seeds, ``mean ± std (n)``, with published numbers beside, as markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from talkhead.report.published import PublishedRow
from talkhead.report.results import MetricName
from talkhead.report.templates import Direction
from talkhead.report.units import unit_of

ARROWS: Mapping[Direction, str] = {
    "lower": "↓",
    "higher": "↑",
    "gt": "→ GT",
    "one": "→ 1",
    "none": "",
}
GT_NAME = "GT (real motion)"
REFERENCE_NAMES = {
    "gt": GT_NAME,
    "floor": "real against real (floor)",
    "shuffled": "shuffled real motion",
    "mean": "training mean, repeated",
}
DIRECTIONS: Mapping[str, Direction] = {
    "var": "gt",
    "fid_fm": "lower",
    "fid_dfm": "lower",
    "snd": "lower",
    "multimodality": "gt",
    "diversity_ratio": "one",
    "variance_ratio": "one",
    "mean_error": "lower",
    "log_spectral_distance": "lower",
    "autocorrelation_distance": "lower",
    "sync_nlse": "lower",
    "fid": "lower",
    "sync_confidence": "higher",
    "blink_distance": "lower",
    "gaze_distance": "lower",
    "mouth_distance": "lower",
    "gaze_reading_distance": "lower",
    "lid_reading_distance": "lower",
    "expression_distance": "lower",
    "pose_distance": "lower",
    "mouth_correlation": "higher",
    "border_jump": "one",
    "edit_jump": "one",
    "sync_distance": "lower",
    "sync_offset": "lower",
    "blink_rate": "gt",
    "jitter": "lower",
    "silence_motion": "lower",
    "found": "higher",
    "frechet": "lower",
}
LABELS = {"var": "Var", "fid_fm": "FID_fm", "fid_dfm": "FID_Δfm", "snd": "SND"}
_HIGHER = (
    "retrieval",
    "offset_within",
    "readout_r2",
    "r2_",
    "psnr",
    "ssim",
    "csim",
    "pair_accuracy",
    "rigid_confidence",
    "rigid_pair_accuracy",
    "av_confidence",
    "av_cosine",
    "av_pair_accuracy",
)
_LOWER = ("leakage", "lpips", "loss", "lmd", "offset_error", "rigid_offset", "av_offset")
_AS_REAL = ("drift_",)


@dataclass(frozen=True)
class Cell:
    """Values of one metric over seeds."""

    values: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN without values."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Sample standard deviation; NaN below two seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def text(self, *, counted: bool = True) -> str:
        """``1.23 ± 0.04 (3 seeds)``, a lone value without spread, or a dash."""
        if not self.values:
            return "-"
        if len(self.values) == 1:
            return f"{_number(self.mean)} (1 seed)" if counted else _number(self.mean)
        return f"{_number(self.mean)} ± {_number(self.std)} ({len(self.values)} seeds)"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: What is shown.
        kind: ``variant`` (trained here), ``reference`` (real motion or a baseline on our data) or
            ``published``.
        cells: Column key -> our value.
        paper: The paper's row beside it.
    """

    name: str
    kind: Literal["variant", "reference", "published"]
    cells: Mapping[str, Cell]
    paper: PublishedRow | None = None


@dataclass(frozen=True)
class Table:
    """One table with everything its header must state; ``transposed`` puts metrics into rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    header: Mapping[str, str]
    space: str = ""
    paper_columns: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    transposed: bool = False

    def direction(self, column: str) -> Direction:
        """What is better in a column."""
        return direction_of(column)

    def best(self, column: str) -> frozenset[str]:
        """Variants with the best mean; empty when fewer than two differ."""
        known = {
            r.name: r.cells[column].mean
            for r in self.rows
            if r.kind == "variant" and column in r.cells and not math.isnan(r.cells[column].mean)
        }
        badness = self._badness(column)
        if badness is None or len(set(known.values())) < 2:
            return frozenset()
        least = min(badness(value) for value in known.values())
        return frozenset(name for name, value in known.items() if badness(value) == least)

    def _badness(self, column: str) -> Callable[[float], float] | None:
        """What the best row has least of; None when nothing says what is better."""
        kind = self.direction(column)
        if kind == "lower":
            return lambda value: value
        if kind == "higher":
            return lambda value: -value
        if kind == "one":
            return lambda value: abs(value - 1.0)
        truth = next((r.cells.get(column) for r in self.rows if r.name == GT_NAME), None)
        if kind == "gt" and truth is not None and truth.values:
            target = truth.mean
            return lambda value: abs(value - target)
        return None

    def markdown(self) -> str:
        """Title, header lines, the table and its notes."""
        lines = [f"### {self.title}", ""]
        lines += [f"- {key}: {value}" for key, value in self.header.items()]
        grid = self._grid()
        if self.transposed:
            grid = [list(line) for line in zip(*grid, strict=True)]
        lines += ["", *markdown_table(grid)]
        if self.notes:
            lines += ["", *(f"*{note}*" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def _heading(self, column: str) -> str:
        """A metric's name, what is better, and its unit where there is room for it."""
        unit = unit_of(column) if self.transposed else ""
        return f"{label(column)} {ARROWS[self.direction(column)]}".strip() + (
            f" ({unit})" if unit else ""
        )

    def _grid(self) -> list[list[str]]:
        """Heading and rows as text."""
        heads = [self._heading(column) for column in self.columns]
        grid = [["variant", *heads, *(f"{label(c)}, paper" for c in self.paper_columns)]]
        best = {c: self.best(c) for c in self.columns}
        for row in self.rows:
            name = f"{row.name} *(published)*" if row.kind == "published" else row.name
            counted = row.kind == "variant"
            cells = [(c, row.cells.get(c, Cell()).text(counted=counted)) for c in self.columns]
            ours = [f"**{text}**" if row.name in best[c] else text for c, text in cells]
            paper = row.paper.values if row.paper is not None else {}
            theirs = [_printed(paper[c]) if c in paper else "-" for c in self.paper_columns]
            grid.append([name, *ours, *theirs])
        return grid


def label(column: str) -> str:
    """How a metric is written in a heading."""
    return LABELS.get(column, column)


def direction_of(name: str) -> Direction:
    """What is better for a metric, by its base name; ``none`` when that is not known.

    Nothing is better or worse about a reference's own value.
    """
    parsed = MetricName.parse(name)
    base = parsed.base.rpartition("/")[2].removesuffix("_pooled").removeprefix("process_")
    if parsed.reference or "chance" in base:
        return "none"
    if base in DIRECTIONS:
        return DIRECTIONS[base]
    if base.startswith(_HIGHER):
        return "higher"
    if base.startswith(_AS_REAL):
        return "gt"
    return "lower" if base.startswith(_LOWER) else "none"


def write_csv(tables: Iterable[Table]) -> str:
    """All tables as one long CSV: a line for each row and column."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "table",
            "row",
            "kind",
            "metric",
            "space",
            "mean",
            "std",
            "seeds",
            "unit",
            "direction",
            "paper",
            "paper_dataset",
            "data",
            "extractor",
            "rate",
            "crop",
        ]
    )
    for table in tables:
        for row in table.rows:
            paper = row.paper.values if row.paper is not None else {}
            for column in dict.fromkeys([*table.columns, *table.paper_columns]):
                cell = row.cells.get(column, Cell())
                shown = paper.get(column) if column in table.paper_columns else None
                if not cell.values and shown is None:
                    continue
                writer.writerow(
                    [
                        table.title,
                        row.name,
                        row.kind,
                        column,
                        table.space,
                        csv_number(cell.mean),
                        csv_number(cell.std),
                        len(cell.values),
                        unit_of(column),
                        table.direction(column),
                        "" if shown is None else shown,
                        "" if shown is None or row.paper is None else row.paper.dataset,
                        table.header["data"],
                        table.header["extractor"],
                        table.header.get("rate", ""),
                        table.header.get("crop", ""),
                    ]
                )
    return out.getvalue()


def csv_number(value: float) -> str:
    """All digits; nothing for NaN."""
    return "" if math.isnan(value) else repr(value)


def _number(value: float) -> str:
    """Two decimals from 1 up, three below, exponents only for very small and large values."""
    size = abs(value)
    if size == 0 or 1 <= size < 10_000:
        return f"{value:.2f}"
    return f"{value:.3f}" if 0.01 <= size < 1 else f"{value:.3g}"


def _printed(value: float) -> str:
    """A published number with the digits the paper prints."""
    return f"{value:.2f}" if abs(value) < 10 and round(value, 2) == value else f"{value:g}"


def markdown_table(grid: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first row is its heading."""
    return [_line(grid[0]), _line(["---"] * len(grid[0])), *map(_line, grid[1:])]


def _line(cells: Sequence[str]) -> str:
    """One row; a bar within a cell, as in ``|AV-Off|``, would end it."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
