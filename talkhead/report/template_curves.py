"""Figures of a paper that show training, drawn from ``curves.csv`` of our runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.report.build import comparable_groups, reference_cell
from talkhead.report.curves import FILE_NAME, read_curves
from talkhead.report.plots import CurvePanel, plot_curves
from talkhead.report.results import MetricName, RunResult
from talkhead.report.tables import ARROWS, REFERENCE_NAMES, Cell, csv_number
from talkhead.report.template_figures import DrawnFigure
from talkhead.report.template_tables import MISSING, side_of
from talkhead.report.templates import PaperRow, Template

PREFIX = "val/"
Curves = Mapping[str, Mapping[int, Mapping[str, Mapping[int, float]]]]
"""Variant -> seed -> name of a score -> training batches -> value."""


@dataclass(frozen=True)
class Line:
    """What stands for a printed row in every panel.

    Attributes:
        row: Printed name.
        variant: Ours that fills it, or would; of a reference its name.
        reference: Whether it is a level that the test measured, not a curve.
        points: Column id -> training batches -> values over seeds.
        levels: Column id -> values over seeds of a reference.
    """

    row: str
    variant: str
    reference: bool = False
    points: Mapping[str, Mapping[int, Cell]] = field(default_factory=dict)
    levels: Mapping[str, Cell] = field(default_factory=dict)


def draw_curves(template: Template, results: Iterable[RunResult], folder: Path) -> DrawnFigure:
    """Draw a figure from ``curves.csv`` of the runs: the mean over seeds, with a band of the spread.

    A seed without a score at a step, because it was stopped or validated elsewhere, does not enter the
    mean there; the CSV says how many did.

    Args:
        template: One whose plot is ``curves``.
        results: All results; those of other stages are left aside.
        folder: Where the pictures go.

    Raises:
        DataError: Broken curves, or two results for one variant and seed.
        MissingDependencyError: matplotlib is not installed.
    """
    groups = comparable_groups(result for result in results if result.stage in template.stages)
    found = [(group, kept) for group in groups if (kept := kept_curves(group))]
    figure = DrawnFigure(template, [group for group, _ in found])
    stem = template.name.rpartition("/")[2]
    if not found:
        figure.told.append(f"no run kept {FILE_NAME}: every row is {MISSING}")
        figure.records += _records(template, _lines(template, [], {}), "talkhead")
    for number, (group, kept) in enumerate(found):
        side = side_of(figure.groups, number)
        lines = _lines(template, group, kept)
        figure.records += _records(template, lines, side)
        figure.told += [f"{side}: {told}" for told in _told(template, lines, group, kept)]
        panels = _panels(template, lines)
        if panels:
            path = folder / (f"{stem}_{side[-1]}.png" if len(found) > 1 else f"{stem}.png")
            figure.pictures.append(plot_curves(panels, template.title, path))
    return figure


def kept_curves(group: Iterable[RunResult]) -> Curves:
    """Curves beside the metrics of every run that has them.

    Raises:
        DataError: A file is broken.
    """
    found: dict[str, dict[int, dict[str, dict[int, float]]]] = {}
    for result in group:
        path = None if result.path is None else result.path.parent / FILE_NAME
        if path is None or not path.is_file():
            continue
        curves = found.setdefault(result.variant, {}).setdefault(result.seed, {})
        for point in read_curves(path):
            curves.setdefault(point.name, {})[point.step] = point.value
    return found


def _lines(template: Template, group: Sequence[RunResult], kept: Curves) -> list[Line]:
    """One for every variant that belongs to a row, or for the row when none does."""
    lines: list[Line] = []
    for row in template.rows:
        if row.kind == "reference":
            lines.append(_reference(template, row, group))
            continue
        for variant in [v for v in kept if row.holds(v)] or row.variants[:1]:
            seeds = kept.get(variant, {})
            points = {
                column.id: _over_seeds([c.get(PREFIX + column.metric, {}) for c in seeds.values()])
                for column in template.columns
            }
            lines.append(Line(row.method, variant, points=points))
    return lines


def _reference(template: Template, row: PaperRow, group: Sequence[RunResult]) -> Line:
    levels = {}
    for column in template.columns:
        name = MetricName.parse(column.metric)
        levels[column.id] = reference_cell(group, MetricName(name.base, row.reference, name.space))
    return Line(row.method, row.reference, reference=True, levels=levels)


def _over_seeds(curves: Sequence[Mapping[int, float]]) -> dict[int, Cell]:
    """Step -> the values of all seeds that have one."""
    steps = sorted({step for curve in curves for step in curve})
    cells = {
        step: Cell(tuple(c[step] for c in curves if math.isfinite(c.get(step, math.nan))))
        for step in steps
    }
    return {step: cell for step, cell in cells.items() if cell.values}


def _panels(template: Template, lines: Sequence[Line]) -> list[CurvePanel]:
    """From top to bottom, those that hold a curve."""
    panels = []
    for column in template.columns:
        curves = {_label(line, lines): line.points[column.id] for line in lines if line.points}
        levels = {line.row: line.levels[column.id] for line in lines if line.levels}
        if any(curves.values()):
            panels.append(
                CurvePanel(
                    heading=f"{column.name} {ARROWS[column.better]}".strip(),
                    score=MetricName.parse(column.metric).base,
                    curves=curves,
                    levels={row: cell.mean for row, cell in levels.items() if cell.values},
                )
            )
    return panels


def _label(line: Line, lines: Sequence[Line]) -> str:
    """Printed name of the row, and the variant where the row has several."""
    shared = sum(other.row == line.row for other in lines) > 1
    return f"{line.row}: {line.variant}" if shared else line.row


def _told(
    template: Template, lines: Sequence[Line], group: Sequence[RunResult], kept: Curves
) -> Iterable[str]:
    """What became of every row, and which panels stay empty."""
    for line in lines:
        if line.reference:
            known = any(cell.values for cell in line.levels.values())
            name = REFERENCE_NAMES[line.variant]
            yield f"{line.row}: {f'{name}, dashed, of the test' if known else MISSING}"
            continue
        seeds = sorted(kept.get(line.variant, {}))
        without = sorted({r.seed for r in group if r.variant == line.variant} - set(seeds))
        if not any(line.points.values()):
            yield f"{line.row}: {MISSING}"
            continue
        more = f"; none of {_seeds(without)}" if without else ""
        yield f"{line.row}: `{line.variant}`, {FILE_NAME} of {_seeds(seeds)}{more}"
    for column in template.columns:
        if not any(line.points.get(column.id) for line in lines):
            yield f"{column.name} (`{PREFIX}{column.metric}`): {MISSING}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _records(template: Template, lines: Sequence[Line], side: str) -> list[dict[str, str | float]]:
    """A line of the CSV for every point, level and what is missing."""
    records: list[dict[str, str | float]] = []
    for line in lines:
        for column in template.columns:
            name = MetricName.parse(column.metric)
            logged = PREFIX + column.metric
            if line.reference:
                logged = str(MetricName(name.base, line.variant, name.space))
            base: dict[str, str | float] = {
                "source": side,
                "row": line.row,
                "variant": line.variant,
                "panel": column.name,
                "metric": logged,
            }
            level = line.levels.get(column.id, Cell())
            drawn = [
                ({"step": step}, cell) for step, cell in line.points.get(column.id, {}).items()
            ]
            drawn += [({}, level)] if level.values else []
            records += [
                {
                    **base,
                    "state": "drawn",
                    **where,
                    "value": csv_number(cell.mean),
                    "spread": csv_number(cell.std),
                    "seeds": len(cell.values),
                }
                for where, cell in drawn
            ] or [base | {"state": MISSING}]
    return records
