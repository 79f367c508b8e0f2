"""Templates: one for each table and figure of the papers, with the numbers as they are printed.

They are YAML files in ``talkhead/report/papers/``, one a paper, made to be read beside it::

    paper: its title
    needs: what must be built before our own rows can be filled (optional, also in a template)
    templates:
      table2:
        printed: Table 2
        title: what is compared
        stages: [motion_diffusion]        # whose results count, by the stage in metrics.json
        commands: [talkhead ablate …]     # what makes our rows
        columns:                          # as printed, from left to right
          - {id: snd, name: SND, metric: snd, better: lower, unit: "", also: []}
        rows:                             # as printed, from top to bottom
          - {method: GT, reference: gt}
          - {method: MakeItTalk, external: [makeittalk]}
          - {method: Ours, variants: [diffusion]}
        published:                        # data set -> one line a row, one number a column
          VoxCeleb2: |
            GT   | -
            …
        notes: [what a reader must know]

``metric`` is the name in ``metrics.json`` without its brackets; a column without one is not measured
by the suite, and ``also`` names other metrics of ours to stand beside. A row is bound to the names of
our variants: ``variants`` are trained here, so a template says when they are missing; ``external``
are other people's systems, shown when their videos were evaluated; ``reference`` is real motion or a
baseline on our data. A template of a figure has ``plot`` in place of columns and numbers. The plot
``curves`` shows scores over training, and has columns all the same: they are its panels from top to
bottom, each with the full name of a score, such as ``av_confidence_200ms[syncer]``, that validation logs
behind ``val/`` and the test for its references.

A number keeps the digits it is printed with; ``1.89±1.92`` has a spread, ``-`` is a printed dash.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

import yaml

from talkhead.errors import ConfigError
from talkhead.report.results import REFERENCES

Direction = Literal["lower", "higher", "gt", "one", "none"]
"""What is better: less, more, nearest to the real motion's, nearest to 1; or nothing is."""
Plot = Literal["poses", "frames", "curves"]
_NUMBER = re.compile(r"^(-|-?\d+(\.\d+)?(±\d+(\.\d+)?)?)$")


@dataclass(frozen=True)
class Printed:
    """A number as printed; ``value`` and ``spread`` are NaN where there is none."""

    text: str

    @property
    def value(self) -> float:
        """The number."""
        return math.nan if self.text == "-" else float(self.text.partition("±")[0])

    @property
    def spread(self) -> float:
        """What stands behind the ±."""
        return float(self.text.partition("±")[2] or math.nan)


@dataclass(frozen=True)
class PaperColumn:
    """A column as printed.

    Attributes:
        id: Its name in code and CSV.
        name: Its printed heading.
        metric: Name in ``metrics.json`` without brackets (with them in a plot of curves); empty when the
            suite does not measure it.
        better: What is better.
        unit: Of the printed numbers; empty when they have none, or none is printed.
        also: Metrics of ours, of other names, shown beside it.
    """

    id: str
    name: str
    metric: str = ""
    better: Direction = "none"
    unit: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperRow:
    """A row as printed, and which results of ours belong beside it.

    Attributes:
        method: Its printed name.
        variants: Names of our variants.
        kind: ``system`` (trained here), ``external`` (another system's videos) or ``reference``.
        reference: One of :data:`talkhead.report.results.REFERENCES` for the last.
    """

    method: str
    variants: tuple[str, ...] = ()
    kind: Literal["system", "external", "reference"] = "system"
    reference: str = ""

    def holds(self, variant: str) -> bool:
        """Whether a variant of ours belongs here, however its name is punctuated."""
        return plain_name(variant) in map(plain_name, self.variants)


@dataclass(frozen=True)
class Template:
    """One table or figure of a paper; see the module for the fields."""

    name: str
    paper: str
    printed: str
    title: str
    stages: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    columns: tuple[PaperColumn, ...] = ()
    published: Mapping[str, Mapping[str, tuple[Printed, ...]]] = field(default_factory=dict)
    plot: Plot | None = None
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    needs: str = ""

    def row_of(self, variant: str) -> PaperRow | None:
        """The row a variant of ours belongs to."""
        return next((row for row in self.rows if row.holds(variant)), None)

    def numbers(self, dataset: str, method: str) -> dict[str, Printed]:
        """Printed numbers of a row by column id; empty if the data set has no such row."""
        line = self.published.get(dataset, {}).get(method, ())
        return dict(zip((c.id for c in self.columns), line, strict=False))

    def has_dash(self, method: str, column: str) -> bool:
        """Whether the paper prints a dash there on every data set: the row has no such number."""
        numbers = [self.numbers(dataset, method) for dataset in self.published]
        return all(line and line[column].text == "-" for line in numbers)


def plain_name(variant: str) -> str:
    """A name without punctuation and capitals: ``guidance-2.5`` and ``guidance_2_5`` are one."""
    return re.sub(r"[^a-z0-9]+", "_", variant.lower()).strip("_")


@cache
def all_templates() -> Mapping[str, Template]:
    """Every template by name, such as ``diffusion_prior/table2``, in the papers' order.

    Raises:
        ConfigError: A file of the package breaks the rules of the module's docstring.
    """
    folder = resources.files("talkhead.report").joinpath("papers")
    found: dict[str, Template] = {}
    for paper in ("diffusion_prior", "shallow_diffusion", "ms_sync", "controltalk"):
        text = folder.joinpath(f"{paper}.yaml").read_text(encoding="utf-8")
        found |= read_paper(paper, text)
    return found


def template(name: str) -> Template:
    """A template by name.

    Raises:
        ConfigError: There is none of that name.
    """
    known = all_templates()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see --list-templates."
        raise ConfigError(f"no template '{name}'; {hint}")
    return known[name]


def chosen(patterns: Iterable[str]) -> list[Template]:
    """Templates by name or shell pattern (``ms_sync/*``), each once.

    Raises:
        ConfigError: A pattern that matches none.
    """
    picked: dict[str, Template] = {}
    for pattern in patterns:
        names = fnmatch.filter(all_templates(), pattern)
        for name in names or [pattern]:
            picked[name] = template(name)
    return list(picked.values())


def bound_elsewhere(of: Template) -> frozenset[str]:
    """Plain names of variants that belong to other templates of the same paper, and not to this one."""
    paper = of.name.partition("/")[0]
    names = {
        plain_name(variant)
        for other in all_templates().values()
        if other.name.partition("/")[0] == paper
        for row in other.rows
        for variant in row.variants
    }
    return frozenset(name for name in names if of.row_of(name) is None)


def read_paper(paper: str, text: str) -> dict[str, Template]:
    """Templates of one paper's file.

    Args:
        paper: First half of their names.
        text: YAML.

    Raises:
        ConfigError: Unknown keys or values, a number that is none, rows without numbers or numbers
            without a row, or a line with more or fewer numbers than columns.
    """
    raw = yaml.safe_load(text)
    _keys(raw, {"paper", "templates"}, {"needs"}, paper)
    return {
        f"{paper}/{key}": _template(f"{paper}/{key}", raw, body)
        for key, body in raw["templates"].items()
    }


def _template(name: str, paper: Mapping[str, Any], body: Any) -> Template:
    required = {"printed", "title", "stages", "rows"}
    plot = body.get("plot") if isinstance(body, dict) else None
    figure = plot is not None
    _keys(
        body,
        required
        | ({"plot"} if figure else {"published"})
        | ({"columns"} if plot in (None, "curves") else set()),
        {"commands", "notes", "needs"},
        name,
    )
    rows = tuple(_row(item, name) for item in body["rows"])
    _unique([row.method for row in rows], "row", name)
    _unique([plain_name(v) for row in rows for v in row.variants], "variant", name)
    columns = tuple(_column(item, name) for item in body.get("columns", []))
    _unique([column.id for column in columns], "column", name)
    if figure and plot not in get_args(Plot):
        raise ConfigError(f"{name}: expected plot among {get_args(Plot)}, got {plot!r}.")
    if figure and not all(column.metric for column in columns):
        raise ConfigError(f"{name}: every panel of a plot needs a metric.")
    return Template(
        name=name,
        paper=paper["paper"],
        printed=body["printed"],
        title=body["title"],
        stages=tuple(body["stages"]),
        rows=rows,
        columns=columns,
        published={} if figure else _published(body["published"], rows, columns, name),
        plot=plot,
        commands=tuple(body.get("commands", [])),
        notes=tuple(body.get("notes", [])),
        needs=body.get("needs", paper.get("needs", "")),
    )


def _column(item: Any, name: str) -> PaperColumn:
    _keys(item, {"id", "name"}, {"metric", "better", "unit", "also"}, name)
    if item.get("better", "none") not in get_args(Direction):
        raise ConfigError(
            f"{name}: column '{item['id']}' has better: {item['better']!r}; "
            f"expected one of {get_args(Direction)}."
        )
    return PaperColumn(**{**item, "also": tuple(item.get("also", []))})


def _row(item: Any, name: str) -> PaperRow:
    _keys(item, {"method"}, {"variants", "external", "reference"}, name)
    method = item["method"]
    if len(item) != 2:
        raise ConfigError(
            f"{name}: row '{method}' needs exactly one of variants, external and reference."
        )
    if "reference" in item:
        if item["reference"] not in REFERENCES:
            raise ConfigError(
                f"{name}: row '{method}' has reference {item['reference']!r}; "
                f"expected one of {REFERENCES}."
            )
        return PaperRow(method, kind="reference", reference=item["reference"])
    if "external" in item:
        return PaperRow(method, tuple(item["external"]), "external")
    return PaperRow(method, tuple(item["variants"]))


def _published(
    blocks: Mapping[str, str], rows: Sequence[PaperRow], columns: Sequence[PaperColumn], name: str
) -> dict[str, dict[str, tuple[Printed, ...]]]:
    """Data set -> method -> numbers, in the order of the columns."""
    methods = [row.method for row in rows]
    found: dict[str, dict[str, tuple[Printed, ...]]] = {}
    for dataset, block in blocks.items():
        split = [line.partition("|") for line in block.strip().splitlines()]
        lines = {method.strip(): numbers.split() for method, _, numbers in split}
        if [method.strip() for method, _, _ in split] != methods:
            raise ConfigError(
                f"{name}, {dataset}: expected the rows {methods} once and in this order, got "
                f"{[method.strip() for method, _, _ in split]}."
            )
        for method, numbers in lines.items():
            wrong = [number for number in numbers if not _NUMBER.match(number)]
            if wrong or len(numbers) != len(columns):
                raise ConfigError(
                    f"{name}, {dataset}: row '{method}' has {numbers}; expected "
                    f"{len(columns)} numbers, such as 1.20, 1.20±0.10 or -."
                )
        found[dataset] = {m: tuple(map(Printed, numbers)) for m, numbers in lines.items()}
    return found


def _keys(item: Any, required: set[str], optional: set[str], where: str) -> None:
    """Refuse a missing or unknown key."""
    found = set(item) if isinstance(item, dict) else {repr(item)}
    if required - found or found - required - optional:
        raise ConfigError(
            f"{where}: expected the keys {sorted(required)} and perhaps {sorted(optional)}, got "
            f"{sorted(map(str, found))}."
        )


def _unique(names: Sequence[str], what: str, where: str) -> None:
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ConfigError(f"{where}: {what} {', '.join(double)} stands twice.")
