"""Which tables a set of results makes.

Only results on the same data, split and extractor share a table; others get tables of their own, so
two kinds of numbers are never mixed silently.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from talkhead.errors import DataError
from talkhead.report import published
from talkhead.report.published import guidance_of, published_for, published_rows
from talkhead.report.results import REFERENCES, MetricName, RunResult
from talkhead.report.tables import REFERENCE_NAMES, Cell, Row, Table


def comparable_groups(results: Iterable[RunResult]) -> list[list[RunResult]]:
    """Results split by stage kind, data fingerprint, split and extractor, in order of appearance.

    Raises:
        DataError: Two files claim the same variant and seed within a group.
    """
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    for result in results:
        kind = "motion prior" if result.stage.startswith("motion_") else result.stage
        groups.setdefault((kind, *result.comparable), []).append(result)
    for group in groups.values():
        seen: dict[tuple[str, int], RunResult] = {}
        for result in group:
            other = seen.setdefault((result.variant, result.seed), result)
            if other is not result:
                raise DataError(
                    f"two results for variant '{result.variant}', seed {result.seed}: "
                    f"{other.path} and {result.path}; report them separately or rename a variant."
                )
    return list(groups.values())


PUBLISHED_JUDGES = ("syncnet_v2", "inception_v3")
"""Networks whose scores stand beside the paper's; numbers of any other do not compare."""

DRIVEN: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "lip_only": (
        "The lip code drives alone",
        ("mouth_distance", "mouth_correlation", "mouth_motion", "head_motion", "found"),
        ("sync_confidence", "sync_nlse"),
    ),
    "nonlip_only": (
        "The non-lip code drives alone",
        (
            *("blink_distance", "gaze_distance", "expression_distance", "pose_distance"),
            *("head_motion", "mouth_motion", "found"),
        ),
        ("blink_distance", "gaze_distance", "expression_distance", "pose_distance"),
    ),
    "both": (
        "Both codes drive",
        (
            *("blink_distance", "gaze_distance", "expression_distance", "pose_distance"),
            *("mouth_distance", "mouth_correlation", "mouth_motion", "head_motion", "found"),
        ),
        (),
    ),
}
"""Driving mode -> title, our columns and the paper's columns of table 4."""


def build_tables(results: Iterable[RunResult]) -> list[Table]:
    """Every table the results allow.

    For motion priors: table 2 of paper 1 in each space, table I when guidance was varied; for the
    disentanglement: table 4; for every group: the remaining metrics.

    Raises:
        DataError: See :func:`comparable_groups`.
    """
    tables: list[Table] = []
    for group in comparable_groups(results):
        used: set[str] = set()
        tables += _sync_tables(group, used)
        tables += _driving_tables(group, used)
        for space in _spaces(group):
            tables += _motion_tables(group, space, used)
        rest = _rest_table(group, used)
        if rest is not None:
            tables.append(rest)
    return tables


def _motion_tables(group: Sequence[RunResult], space: str, used: set[str]) -> list[Table]:
    """Tables 2 and I in one space."""
    main = ["var", "fid_fm", "fid_dfm", "snd"]
    extra = ["fid_fm_pooled", "fid_dfm_pooled", "snd_pooled", "multimodality", "diversity_ratio"]
    present = _bases(group, space)
    columns = [c for c in [*main, *extra] if c in present]
    if "snd" not in columns:
        return []
    used |= {str(MetricName(c, ref, space)) for c in columns for ref in ("", *REFERENCES)}
    where = f" [{space}]" if space else ""
    # The other systems' papers print no such numbers.
    stage = group[0].stage
    paper = main if stage.startswith("motion_") or stage == "evaluate" else []
    notes = [
        "Paper columns: VoxCeleb2, 67 face-model coefficients, not standardised; compare "
        "orderings, not values."
    ][: len(paper)]
    notes += [
        "FID_fm, FID_Δfm and SND are per video and biased upwards, the more the fewer its frames (here "
        f"{_frames_a_clip(group):.0f} on average, half as many in the floor's halves): compare clips of "
        "equal length, beside the floor.",
    ]
    guided = [r for r in group if guidance_of(r.variant) is not None]
    plain = [r for r in group if guidance_of(r.variant) is None]
    tables = []
    if plain:
        rows = _reference_rows(group, columns, space)
        rows += _variant_rows(plain, columns, space, published.TABLE_2)
        title = f"Variance and naturalness of generated motion{where}"
        if paper:
            rows += _published_rows(published.TABLE_2, {r.paper.method for r in rows if r.paper})
            title += " (paper 1, table 2)"
        tables.append(Table(title, columns, rows, group_header(plain), space, paper, notes))
    if guided:
        guided.sort(key=lambda r: guidance_of(r.variant) or 0.0)
        rows = _reference_rows(group, columns, space)
        rows += _variant_rows(guided, columns, space, published.TABLE_I)
        title = f"Guidance factor{where} (paper 1, table I)"
        tables.append(Table(title, columns, rows, group_header(guided), space, main, notes))
    return tables


def _sync_tables(group: Sequence[RunResult], used: set[str]) -> list[Table]:
    """Table 1, for results that hold picture quality or sync confidence."""
    tables = []
    order = ["fid", "sync_confidence", "sync_nlse"]
    parsed = [MetricName.parse(name) for result in group for name in result.metrics]
    for space in dict.fromkeys(p.space for p in parsed if p.base in order):
        columns = [c for c in order if c in {p.base for p in parsed if p.space == space}]
        used |= {str(MetricName(c, ref, space)) for c in columns for ref in ("", *REFERENCES)}
        rows = _reference_rows(group, columns, space)
        rows += _variant_rows(group, columns, space, published.TABLE_1)
        where = f" [{space}]" if space else ""
        title = f"Synchronisation and picture quality{where} (paper 1, table 1)"
        if space in PUBLISHED_JUDGES:
            rows += _published_rows(published.TABLE_1, {r.paper.method for r in rows if r.paper})
            paper, note = columns, "Paper columns: VoxCeleb2, SyncNet and Inception of the paper."
        else:
            paper, note = [], f"The paper's judge is another network than {space or 'this one'}."
        notes = [note]
        if "fid" in columns:
            notes.append(
                f"FID is biased upwards, the more the fewer the frames (here {group[0].data.frames} at most "
                "a side): compare equal counts of the same clips."
            )
        tables.append(Table(title, columns, rows, group_header(group), space, paper, notes))
    return tables


def _driving_tables(group: Sequence[RunResult], used: set[str]) -> list[Table]:
    """Table 4, for results that drove faces by one code at a time."""
    tables = []
    measured = {name for result in group for name in result.metrics}
    for mode, (title, order, paper) in DRIVEN.items():
        columns = [n for c in order for n in sorted(measured) if n.startswith(f"{mode}/{c}[")]
        if not columns:
            continue
        used |= {name for name in measured if name.startswith(f"{mode}/")}
        rows = _variant_rows(group, columns, None, published.TABLE_4)
        rows += _published_rows(published.TABLE_4, {r.paper.method for r in rows if r.paper})
        notes = [
            "Motion: spread over time as a share of the real video's, where 0 is still; blurred pictures "
            "make the tracker tremble, so still faces do not reach it.",
            "Paper columns: VoxCeleb2, SyncNet, 2-D landmarks and 3DMM coefficients; compare orderings.",
        ]
        tables.append(
            Table(
                f"{title} (paper 1, table 4)", columns, rows, group_header(group), "", paper, notes
            )
        )
    return tables


def _rest_table(group: Sequence[RunResult], used: set[str]) -> Table | None:
    """Everything no other table shows."""
    names: dict[str, None] = {}
    for result in group:
        names.update({name: None for name in result.metrics if name not in used})
    if not names:
        return None
    columns = list(names)
    rows = _variant_rows(group, columns, None, published.TABLE_4)
    stage = group[0].stage
    kind = "the motion priors" if stage.startswith("motion_") else stage
    rows = [Row(r.name, r.kind, r.cells) for r in rows]
    if stage != "lip_disentangle":
        return Table(
            f"Other metrics of {kind}", columns, rows, group_header(group), transposed=True
        )
    title = "Disentanglement of lip and non-lip, other metrics"
    notes = ["Leakage and probe: R² of a linear probe on held-out clips."]
    return Table(title, columns, rows, group_header(group), notes=notes, transposed=True)


def _variant_rows(
    group: Sequence[RunResult],
    columns: Sequence[str],
    space: str | None,
    paper: str,
) -> list[Row]:
    """One row a variant; ``space`` None takes columns as full metric names."""
    by_variant: dict[str, list[RunResult]] = {}
    for result in group:
        by_variant.setdefault(result.variant, []).append(result)
    rows = []
    for variant, runs in by_variant.items():
        names = {c: c if space is None else str(MetricName(c, "", space)) for c in columns}
        cells = {c: cell_of(runs, name) for c, name in names.items()}
        rows.append(Row(variant, "variant", cells, published_for(paper, variant)))
    return rows


def _reference_rows(group: Sequence[RunResult], columns: Sequence[str], space: str) -> list[Row]:
    """Real motion, floor and baselines, averaged over runs because they may draw at random."""
    rows = []
    for reference in REFERENCES:
        cells = {
            column: cell
            for column in columns
            if (cell := reference_cell(group, MetricName(column, reference, space))).values
        }
        if cells:
            gt = next((r for r in published_rows(published.TABLE_2) if r.method == "GT"), None)
            paper = gt if reference == "gt" else None
            rows.append(Row(REFERENCE_NAMES[reference], "reference", cells, paper))
    return rows


def _published_rows(table: str, shown: set[str]) -> list[Row]:
    """Methods of the paper that we have no counterpart of."""
    return [
        Row(row.method, "published", {}, row)
        for row in published_rows(table)
        if row.dataset == "VoxCeleb2" and row.method not in shown
    ]


def reference_cell(group: Sequence[RunResult], metric: MetricName) -> Cell:
    """A reference's value, the mean over all runs of a seed; equal values are one.

    Most references depend on no model. Those that are rendered differ a little from run to run.
    """
    seeds = sorted({result.seed for result in group})
    cells = [cell_of([r for r in group if r.seed == seed], str(metric)) for seed in seeds]
    if metric.base == "var" and metric.reference == "gt" and not any(c.values for c in cells):
        # Shuffling changes which clip is compared, not how much the clips move.
        return reference_cell(group, replace(metric, reference="shuffled"))
    values = tuple(cell.mean for cell in cells if cell.values)
    distinct = tuple(dict.fromkeys(round(v, 6) for v in values))
    return Cell(distinct) if len(distinct) == 1 else Cell(values)


def cell_of(runs: Sequence[RunResult], name: str) -> Cell:
    """Values of one metric over runs, without NaN."""
    values = [r.metrics[name] for r in sorted(runs, key=lambda r: r.seed) if name in r.metrics]
    return Cell(tuple(v for v in values if not math.isnan(v)))


def _spaces(group: Sequence[RunResult]) -> list[str]:
    """Spaces in which motion was measured, in order of appearance."""
    found: dict[str, None] = {}
    for result in group:
        for name in result.metrics:
            parsed = MetricName.parse(name)
            if parsed.base == "snd":
                found[parsed.space] = None
    return list(found)


def _bases(group: Sequence[RunResult], space: str) -> set[str]:
    """Base names measured in a space."""
    parsed = (MetricName.parse(name) for result in group for name in result.metrics)
    return {p.base for p in parsed if p.space == space}


def group_header(group: Sequence[RunResult]) -> dict[str, str]:
    """What a reader must know about a table's numbers."""
    first = group[0].data
    kind = "synthetic" if first.synthetic else "real"
    seeds = sorted({r.seed for r in group})
    commands = list(dict.fromkeys(r.command for r in group))
    more = f" (and {len(commands) - 1} more)" if len(commands) > 1 else ""
    return {
        "data": f"{first.dataset} ({kind}), split {first.split}, {first.clips} clips, "
        f"{first.frames} frames, fingerprint {first.data_fingerprint[:12]}",
        "extractor": group[0].extractor,
        **_measured_how(group[0].settings),
        "seeds": f"{len(seeds)} ({', '.join(map(str, seeds))}); mean ± sample standard deviation",
        "command": f"`{commands[0]}`{more}",
    }


def _measured_how(settings: Mapping[str, Any]) -> dict[str, str]:
    """Rate, crop, motion space and judges, as far as a result notes them."""
    facts = {}
    if "fps" in settings:
        facts["rate"] = f"{settings['fps']} fps"
    if "crop" in settings:
        facts["crop"] = str(settings["crop"])
    if settings.get("fid_every", 1) > 1:
        facts["frames of FID and CSIM"] = f"one in {settings['fid_every']}"
    if "motion_space" in settings:
        facts["motion descriptors"] = str(settings["motion_space"])
    if settings.get("judges"):
        facts["judges"] = ", ".join(f"{k} ({v})" for k, v in settings["judges"].items())
    if settings.get("digests"):
        digests = (f"{name} {str(digest)[:12]}" for name, digest in settings["digests"].items())
        facts["files of the judges"] = ", ".join(digests)
    return facts


def _frames_a_clip(group: Sequence[RunResult]) -> float:
    """Mean length of the clips in frames."""
    return group[0].data.frames / max(1, group[0].data.clips)
