"""A table of a paper with our numbers beside it: which results fill which cells, markdown and CSV.

Every number of ours stands in a column headed by its own full name in ``metrics.json``, such as
``snd[readout]``; none stands in a column of the paper, because none was measured as the paper's was.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from talkhead.report.build import cell_of, comparable_groups, group_header, reference_cell
from talkhead.report.results import REFERENCES, DataInfo, MetricName, RunResult
from talkhead.report.tables import (
    ARROWS,
    REFERENCE_NAMES,
    Cell,
    csv_number,
    direction_of,
    markdown_table,
)
from talkhead.report.templates import (
    Direction,
    PaperColumn,
    PaperRow,
    Printed,
    Template,
    bound_elsewhere,
    plain_name,
)

MISSING = "missing"


@dataclass(frozen=True)
class Line:
    """One line of a filled table.

    Attributes:
        row: Printed name of the row, or the variant of ours that the paper has no row for.
        kind: ``published``, or what is ours: a ``variant``, or a ``reference`` (real motion or a baseline).
        dataset: What the printed numbers were measured on; empty for ours.
        variant: Ours: name of the variant or reference, of the first that could when no result fills it.
        group: Ours: which group of comparable results it comes from; None when there is none.
        printed: Column id -> printed number.
        cells: Full metric name -> our value; measured lines have one for every column of ours.
    """

    row: str
    kind: Literal["published", "variant", "reference"]
    dataset: str = ""
    variant: str = ""
    group: int | None = None
    printed: Mapping[str, Printed] = field(default_factory=dict)
    cells: Mapping[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class FilledTable:
    """A template with everything that some results say about it.

    Attributes:
        template: What is filled.
        groups: Comparable results that measured any of its columns.
        own: Column id -> full names of our metrics beside it, in order of appearance.
        lines: From top to bottom.
    """

    template: Template
    groups: Sequence[Sequence[RunResult]]
    own: Mapping[str, tuple[str, ...]]
    lines: Sequence[Line]

    def markdown(self) -> str:
        """Title, what both sides were measured on, the table and its notes."""
        known = self.template
        lines = [
            *preface(known, self.groups),
            *markdown_table(self._grid()),
            "",
            f"*`-`: the paper prints a dash; `{MISSING}`: no run measured it. A column of ours is headed by "
            "the metric's full name; blank cells are meant to be so.*",
            *(f"\n*{note}*" for note in known.notes),
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """A line for each row and column, also where a number is missing."""
        out = io.StringIO()
        names = (
            "template row source dataset variant column metric unit better value spread seeds text "
            "data extractor"
        )
        writer = csv.DictWriter(out, names.split(), lineterminator="\n", restval="")
        writer.writeheader()
        for line in self.lines:
            base = {"template": self.template.name, "row": line.row}
            for column in self.template.columns:
                if line.kind == "published":
                    writer.writerow(base | _published_record(line, column))
                else:
                    writer.writerows(base | record for record in self._own_records(line, column))
        return out.getvalue()

    def _grid(self) -> list[list[str]]:
        heads = ["row", "source"]
        for column in self.template.columns:
            unit = f" ({column.unit})" if column.unit else ""
            heads.append(f"{column.name} {ARROWS[column.better]}".strip() + unit)
            own = self.own[column.id]
            heads += [f"`{name}` {ARROWS[_better(column, name)]}".strip() for name in own]
        return [heads, *([line.row, self._source(line), *self._cells(line)] for line in self.lines)]

    def _source(self, line: Line) -> str:
        if line.kind == "published":
            return f"published ({line.dataset})"
        side = "talkhead" if line.group is None else side_of(self.groups, line.group)
        name = REFERENCE_NAMES[line.variant] if line.kind == "reference" else f"`{line.variant}`"
        return f"{side}: {name}"

    def _cells(self, line: Line) -> list[str]:
        texts = []
        for column in self.template.columns:
            own = self.own[column.id]
            if line.kind == "published":
                texts += [line.printed[column.id].text, *("" for _ in own)]
            else:
                none = "-" if self.template.has_dash(line.row, column.id) else MISSING
                texts += ["" if own else none, *(_text(line, name, none) for name in own)]
        return texts

    def _own_records(self, line: Line, column: PaperColumn) -> Iterator[dict[str, str]]:
        facts = {} if line.group is None else _data_record(self.groups[line.group][0])
        none = "-" if self.template.has_dash(line.row, column.id) else MISSING
        for name in self.own[column.id] or ("",):
            cell = line.cells.get(name, Cell())
            better = _better(column, name) if name else column.better
            yield {
                "source": "talkhead",
                "variant": line.variant,
                "column": column.id,
                "metric": name,
                "better": better,
                "value": csv_number(cell.mean),
                "spread": csv_number(cell.std),
                "seeds": str(len(cell.values)),
                "text": _text(line, name, none),
                **facts,
            }


def side_of(groups: Sequence[Sequence[RunResult]], number: int) -> str:
    """What our lines are called; several groups are told apart by letters."""
    return f"talkhead {chr(ord('A') + number)}" if len(groups) > 1 else "talkhead"


def preface(template: Template, groups: Sequence[Sequence[RunResult]]) -> list[str]:
    """Title and what both sides were measured on, in markdown."""
    lines = [f"# {template.name}: {template.title}", ""]
    if any(group[0].data.synthetic for group in groups):
        lines += ["**Synthetic data:** our numbers come from drawn faces.", ""]
    where = (
        f", on {', '.join(template.published)}; numbers as printed" if template.published else ""
    )
    lines.append(f"- published: {template.printed} of *{template.paper}*{where}")
    for number, group in enumerate(groups):
        facts = "; ".join(f"{key}: {value}" for key, value in group_header(group).items())
        lines.append(f"- {side_of(groups, number)}: {facts}")
    lines += [f"- makes our rows: `{command}`" for command in template.commands]
    lines += [f"- our rows need {template.needs}"] if template.needs else []
    return [*lines, ""]


def fill(
    template: Template, results: Iterable[RunResult], spaces: Collection[str] = ()
) -> FilledTable:
    """Put results into a template.

    A row takes the results of the variants bound to it, one line for each group of comparable results.
    Variants that belong to no row of any template of the paper get lines of their own below, then the
    baselines that were measured. Rows of systems trained here, and of real motion, that no result fills
    are shown as missing.

    Args:
        template: One with columns.
        results: All results; those of other stages are left aside.
        spaces: Metrics of ours measured elsewhere than in one of these (what stands in brackets) are left
            out; empty: none is.

    Raises:
        DataError: Two results claim the same variant and seed, see
            :func:`talkhead.report.build.comparable_groups`.
    """
    concerned = [result for result in results if result.stage in template.stages]
    bases = {base for column in template.columns for base in (column.metric, *column.also) if base}
    groups = [
        group
        for group in comparable_groups(concerned)
        if any(MetricName.parse(name).base in bases for one in group for name in one.metrics)
    ]
    own = {column.id: _own_columns(column, groups, spaces) for column in template.columns}
    names = [name for column in own.values() for name in column]
    lines: list[Line] = []
    for row in template.rows:
        for dataset in template.published:
            printed = template.numbers(dataset, row.method)
            lines.append(Line(row.method, "published", dataset, printed=printed))
        lines += _measured_lines(row, groups, names) or _missing_lines(row)
    lines += _further_lines(template, groups, names)
    return FilledTable(template, groups, own, lines)


def _own_columns(
    column: PaperColumn, groups: Sequence[Sequence[RunResult]], spaces: Collection[str]
) -> tuple[str, ...]:
    """Full names of everything measured for a column, the column's own metric before others."""
    found: dict[str, dict[str, None]] = {base: {} for base in (column.metric, *column.also) if base}
    for result in (result for group in groups for result in group):
        for name in result.metrics:
            parsed = MetricName.parse(name)
            left_out = spaces and parsed.space and parsed.space not in spaces
            if parsed.base in found and not left_out:
                found[parsed.base][str(MetricName(parsed.base, "", parsed.space))] = None
    return tuple(name for names in found.values() for name in names)


def _measured_lines(
    row: PaperRow, groups: Sequence[Sequence[RunResult]], names: Sequence[str]
) -> list[Line]:
    lines = []
    for number, group in enumerate(groups):
        if row.kind == "reference":
            lines += _reference_lines(row.method, row.reference, number, group, names)
        for variant in dict.fromkeys(r.variant for r in group if row.holds(r.variant)):
            lines.append(_variant_line(row.method, variant, number, group, names))
    return lines


def _missing_lines(row: PaperRow) -> list[Line]:
    """What no result fills; other people's systems are not ours to miss."""
    if row.kind == "external":
        return []
    if row.kind == "reference":
        return [Line(row.method, "reference", variant=row.reference)]
    return [Line(row.method, "variant", variant=row.variants[0])]


def _further_lines(
    template: Template, groups: Sequence[Sequence[RunResult]], names: Sequence[str]
) -> list[Line]:
    """Variants that the paper knows nothing of, and baselines that it does not print."""
    elsewhere = bound_elsewhere(template)
    shown = {row.reference for row in template.rows}
    lines = []
    for number, group in enumerate(groups):
        unknown = [
            variant
            for variant in dict.fromkeys(r.variant for r in group)
            if template.row_of(variant) is None and plain_name(variant) not in elsewhere
        ]
        further = (_variant_line(name, name, number, group, names) for name in unknown)
        lines += [line for line in further if any(cell.values for cell in line.cells.values())]
        for reference in REFERENCES:
            if reference not in shown:
                lines += _reference_lines("baseline", reference, number, group, names)
    return lines


def _variant_line(
    row: str, variant: str, number: int, group: Sequence[RunResult], names: Sequence[str]
) -> Line:
    runs = [result for result in group if result.variant == variant]
    cells = {name: cell_of(runs, name) for name in names}
    return Line(row, "variant", variant=variant, group=number, cells=cells)


def _reference_lines(
    row: str, reference: str, number: int, group: Sequence[RunResult], names: Sequence[str]
) -> list[Line]:
    """One line, or none if the reference was not measured."""
    cells = {}
    for name in names:
        parsed = MetricName.parse(name)
        cells[name] = reference_cell(group, MetricName(parsed.base, reference, parsed.space))
    if not any(cell.values for cell in cells.values()):
        return []
    return [Line(row, "reference", variant=reference, group=number, cells=cells)]


def _text(line: Line, name: str, none: str) -> str:
    cell = line.cells.get(name, Cell())
    return cell.text(counted=line.kind == "variant") if cell.values else none


def _better(column: PaperColumn, name: str) -> Direction:
    """What is better in a column of ours: as the paper says of its own, if the metric is that one."""
    return column.better if MetricName.parse(name).base == column.metric else direction_of(name)


def _published_record(line: Line, column: PaperColumn) -> dict[str, str]:
    number = line.printed[column.id]
    return {
        "source": "published",
        "dataset": line.dataset,
        "column": column.id,
        "unit": column.unit,
        "better": column.better,
        "value": csv_number(number.value),
        "spread": csv_number(number.spread),
        "text": number.text,
    }


def _data_record(result: RunResult) -> dict[str, str]:
    data: DataInfo = result.data
    return {
        "dataset": f"{data.dataset} ({'synthetic' if data.synthetic else 'real'}), {data.split}",
        "data": data.data_fingerprint,
        "extractor": result.extractor,
    }
