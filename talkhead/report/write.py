"""Write a whole report: tables, CSV and every plot that the runs allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.errors import MissingDependencyError
from talkhead.report import claims
from talkhead.report import plots as draw
from talkhead.report.build import build_tables, comparable_groups
from talkhead.report.published import MULTIMODALITY, guidance_of
from talkhead.report.results import MetricName, RunResult, find_results
from talkhead.report.samples import FILE_NAME as SAMPLES_NAME
from talkhead.report.samples import MotionSamples
from talkhead.report.tables import Table, write_csv


@dataclass
class Report:
    """Files of a written report.

    Attributes:
        markdown: ``table.md``.
        csv: ``table.csv``.
        plots: PNG files.
        left_out: What could not be drawn and why.
    """

    markdown: Path
    csv: Path
    plots: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def write_report(folders: Iterable[Path | str], out: Path | str, *, plots: bool = True) -> Report:
    """Read all results below ``folders`` and write the report into ``out``.

    Without matplotlib the tables are written all the same and ``left_out`` says what is missing.

    Raises:
        DataError: See :func:`talkhead.report.results.find_results` and
            :func:`talkhead.report.build.comparable_groups`.
    """
    target = Path(out)
    results = find_results(folders)
    tables = build_tables(results)
    target.mkdir(parents=True, exist_ok=True)
    report = Report(target / "table.md", target / "table.csv")
    if plots:
        try:
            _all_plots(results, target / "plots", report)
        except MissingDependencyError as error:
            report.left_out.append(str(error))
    _write_text(report.csv, write_csv(tables))
    _write_text(report.markdown, _markdown(tables, results, report))
    return report


def _markdown(tables: Sequence[Table], results: Sequence[RunResult], report: Report) -> str:
    """All tables, then the plots."""
    synthetic = any(r.data.synthetic for r in results)
    lines = ["# Results", ""]
    if synthetic:
        lines += [
            "**Synthetic data:** these numbers come from drawn faces, not recordings of people.",
            "",
        ]
    lines += [
        "Cells are mean ± sample standard deviation over seeds. Columns and rows marked *paper* or "
        "*published* repeat the paper's printed numbers on its own data and extractor; "
        f"its Multimodality is {MULTIMODALITY.values['multimodality']} ({MULTIMODALITY.dataset}).",
        "Bold is the best of our variants; rows of real motion and baselines do not compete.",
        "",
    ]
    lines += [f"{table.markdown()}" for table in tables]
    for group in comparable_groups(results):
        findings = [claims.check(claim, group) for claim in claims.claims_for(group)]
        if findings:
            lines.append(claims.markdown(findings))
    if report.plots:
        lines += ["## Plots", ""]
        base = report.markdown.parent
        lines += [f"![{p.stem}]({p.relative_to(base).as_posix()})" for p in report.plots]
    if report.left_out:
        lines += ["", *(f"Left out: {reason}" for reason in report.left_out)]
    return "\n".join(lines).rstrip() + "\n"


def _all_plots(results: Sequence[RunResult], folder: Path, report: Report) -> None:
    """Every plot of every comparable group."""
    groups = comparable_groups(results)
    for number, group in enumerate(groups):
        prefix = "" if len(groups) == 1 else f"{number}_{_slug(group[0].stage)}_"
        made: list[Path | None] = []
        for space in _snd_spaces(group):
            tag = _slug(space) or "motion"
            plain = [r for r in group if guidance_of(r.variant) is None]
            metric = str(MetricName("snd", "", space))
            if plain:
                bars = folder / f"{prefix}snd_{tag}.png"
                made.append(draw.plot_bars(plain, metric, bars, ("floor", "shuffled", "mean")))
            made.append(draw.plot_guidance(group, space, folder / f"{prefix}guidance_{tag}.png"))
        made += _sample_plots(group, folder, prefix, report)
        report.plots += [path for path in made if path is not None]


def _sample_plots(
    group: Sequence[RunResult], folder: Path, prefix: str, report: Report
) -> list[Path | None]:
    """Plots that need motion, from one seed (the lowest) of each variant that kept samples."""
    samples: dict[str, MotionSamples] = {}
    for result in sorted(group, key=lambda r: r.seed):
        file = None if result.path is None else result.path.with_name(SAMPLES_NAME)
        if file is None or not file.is_file() or result.variant in samples:
            continue
        if guidance_of(result.variant) is None:
            samples[result.variant] = MotionSamples.read(file)
    if not samples:
        report.left_out.append(
            f"traces, spectra and t-SNE of {group[0].stage}: no {SAMPLES_NAME} beside its metrics"
        )
        return []
    return [
        draw.plot_traces(_few(samples), folder / f"{prefix}traces.png"),
        draw.plot_spectra(samples, folder / f"{prefix}spectra.png"),
        draw.plot_tsne(samples, ("rotation",), "poses", folder / f"{prefix}tsne_poses.png"),
        draw.plot_tsne(
            samples, ("expression",), "expressions", folder / f"{prefix}tsne_expressions.png"
        ),
    ]


def _few(samples: dict[str, MotionSamples], count: int = 3) -> dict[str, MotionSamples]:
    """The first variants: more lines in one trace cannot be told apart."""
    return dict(list(samples.items())[:count])


def _snd_spaces(group: Sequence[RunResult]) -> list[str]:
    """Spaces that hold an SND, in order of appearance."""
    parsed = (MetricName.parse(name) for result in group for name in result.metrics)
    return list(dict.fromkeys(p.space for p in parsed if p.base == "snd"))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _write_text(path: Path, text: str) -> None:
    """Write through a temporary name."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
