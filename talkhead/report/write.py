"""Write a whole report: tables, CSV and every plot that the runs allow; or some templates of the papers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.errors import ConfigError, DataError, MissingDependencyError
from talkhead.report import claims
from talkhead.report import plots as draw
from talkhead.report.build import build_tables, comparable_groups
from talkhead.report.contact_sheet import SHEET_FRAMES, Picture, contact_sheet, video_frames
from talkhead.report.published import MULTIMODALITY, guidance_of, published_rows
from talkhead.report.results import MetricName, RunResult, find_results
from talkhead.report.samples import FILE_NAME as SAMPLES_NAME
from talkhead.report.samples import MotionSamples, kept_samples
from talkhead.report.tables import Table, write_csv
from talkhead.report.template_curves import draw_curves, kept_curves
from talkhead.report.template_figures import DrawnFigure
from talkhead.report.template_figures import draw as draw_figure
from talkhead.report.template_tables import FilledTable, fill
from talkhead.report.templates import Template, chosen
from talkhead.report.tsne import plot_tsne
from talkhead.text_files import write_text_atomic


@dataclass
class Report:
    """Files of a written report.

    Attributes:
        markdown: ``table.md``.
        csv: ``table.csv``.
        plots: PNG files.
        sheets: PNG files, frames of a video each.
        left_out: What could not be drawn and why.
    """

    markdown: Path
    csv: Path
    plots: list[Path] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def write_report(
    folders: Iterable[Path | str],
    out: Path | str,
    *,
    plots: bool = True,
    videos: Mapping[str, Path] | None = None,
) -> Report:
    """Read all results below ``folders`` and write the report into ``out``.

    Without matplotlib the tables are written all the same and ``left_out`` says what is missing.

    Args:
        folders: Where ``metrics.json`` files are looked for.
        out: Folder to write.
        plots: Draw plots and contact sheets as well.
        videos: Name -> video shown as a contact sheet, besides the newest sample of each run.

    Raises:
        DataError: See :func:`talkhead.report.results.find_results` and
            :func:`talkhead.report.build.comparable_groups`.
    """
    target = Path(out)
    results = find_results(folders)
    tables = build_tables(results)
    report = Report(target / "table.md", target / "table.csv")
    named = _named_frames(videos or {}, report) if plots else {}
    target.mkdir(parents=True, exist_ok=True)
    if plots:
        try:
            _all_plots(results, target / "plots", report)
        except MissingDependencyError as error:
            report.left_out.append(str(error))
        _all_sheets(results, named, target / "sheets", report)
    write_text_atomic(report.csv, write_csv(tables))
    write_text_atomic(report.markdown, _markdown(tables, results, report))
    return report


@dataclass
class TemplateFiles:
    """What :func:`write_templates` wrote, and which figures it could not draw and why."""

    files: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def write_templates(
    folders: Sequence[Path | str],
    out: Path | str,
    patterns: Iterable[str],
    *,
    spaces: Collection[str] = (),
    plots: bool = True,
    videos: Mapping[str, Path] | None = None,
) -> TemplateFiles:
    """Fill templates of the papers; each becomes ``OUT/<paper>/<table>.md`` and ``.csv``.

    Args:
        folders: Where ``metrics.json`` files are looked for; none shows what is published.
        out: Folder to write.
        patterns: Names of templates, or shell patterns such as ``ms_sync/*``.
        spaces: See :func:`talkhead.report.template_tables.fill`.
        plots: Draw the figures among them; they are left out otherwise.
        videos: Variant -> video whose frames figure 6 of paper 1 shows.

    Raises:
        ConfigError: No template of a name, or no result in a space.
        DataError: No results below the folders, broken ones, or two for one variant and seed; a broken
            video.
    """
    target, written = Path(out), TemplateFiles()
    wanted = chosen(patterns)
    results = find_results(folders) if folders else []
    _check_before_writing(wanted, results, spaces, videos or {} if plots else {})
    for template in wanted:
        place = target / f"{template.name}.md"
        place.parent.mkdir(parents=True, exist_ok=True)
        filled: FilledTable | DrawnFigure
        if template.plot is None:
            filled = fill(template, results, spaces)
        elif not plots:
            written.left_out.append(f"{template.name}: plots are off")
            continue
        else:
            try:
                filled = _drawn(template, results, place.parent, videos)
            except MissingDependencyError as error:
                written.left_out.append(f"{template.name}: {error}")
                continue
            written.files += filled.pictures
        write_text_atomic(place, filled.markdown())
        write_text_atomic(place.with_suffix(".csv"), filled.csv())
        written.files += [place, place.with_suffix(".csv")]
    return written


def _drawn(
    template: Template,
    results: Sequence[RunResult],
    folder: Path,
    videos: Mapping[str, Path] | None,
) -> DrawnFigure:
    """A figure, out of what its kind of plot is made from."""
    if template.plot == "curves":
        return draw_curves(template, results, folder)
    return draw_figure(template, results, folder, videos)


def _check_before_writing(
    wanted: Sequence[Template],
    results: Sequence[RunResult],
    spaces: Collection[str],
    videos: Mapping[str, Path],
) -> None:
    """Refuse what the last of several templates would be refused for, before the first is written."""
    known = {MetricName.parse(name).space for result in results for name in result.metrics} - {""}
    for space in spaces:
        if space not in known:
            raise ConfigError(
                f"--space: no result was measured in '{space}'; there are "
                f"{', '.join(sorted(known)) or 'none'}."
            )
    for template in wanted:
        for group in comparable_groups(r for r in results if r.stage in template.stages):
            if template.plot == "curves":
                kept_curves(group)
    if any(template.plot == "frames" for template in wanted):
        for path in videos.values():
            with contextlib.suppress(MissingDependencyError):  # the figure is left out for it
                video_frames(path, 1)


def _markdown(tables: Sequence[Table], results: Sequence[RunResult], report: Report) -> str:
    """All tables, then the plots."""
    (paper,) = published_rows(MULTIMODALITY)
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
        f"its Multimodality is {paper.values['multimodality']} ({paper.dataset}).",
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
    if report.sheets:
        lines += ["", "## Contact sheets", ""]
        base = report.markdown.parent
        lines += [
            f"{p.stem}: ![{p.stem}]({p.relative_to(base).as_posix()})\n" for p in report.sheets
        ]
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


def _named_frames(videos: Mapping[str, Path], report: Report) -> dict[str, Picture]:
    """Frames of the videos that were named; none without PyAV.

    Raises:
        DataError: One of them is broken.
    """
    try:
        return {name: video_frames(path, SHEET_FRAMES) for name, path in videos.items()}
    except MissingDependencyError as error:
        report.left_out.append(str(error))
        return {}


def _all_sheets(
    results: Sequence[RunResult], named: Mapping[str, Picture], folder: Path, report: Report
) -> None:
    """Frames of the newest sample video of each run, and of the videos that were named.

    A broken video of a run is left out.
    """
    sources: list[tuple[str, Path | Picture]] = [*_run_videos(results).items(), *named.items()]
    for name, source in sources:
        try:
            report.sheets.append(contact_sheet(source, folder / f"{_slug(name)}.png"))
        except MissingDependencyError as error:
            report.left_out.append(str(error))
            return
        except DataError as error:
            report.left_out.append(str(error))


def _run_videos(results: Sequence[RunResult]) -> dict[str, Path]:
    """Newest video in the ``samples`` folder beside each run's metrics."""
    found = {}
    for result in results:
        here = [] if result.path is None else sorted(result.path.parent.glob("samples/*.mp4"))
        if here:
            found[f"{result.variant}_seed{result.seed}"] = here[-1]
    return found


def _sample_plots(
    group: Sequence[RunResult], folder: Path, prefix: str, report: Report
) -> list[Path | None]:
    """Plots that need motion, from one seed (the lowest) of each variant that kept samples."""
    samples = kept_samples(r for r in group if guidance_of(r.variant) is None)
    if not samples:
        report.left_out.append(
            f"traces, spectra and t-SNE of {group[0].stage}: no {SAMPLES_NAME} beside its metrics"
        )
        return []
    return [
        draw.plot_traces(_few(samples), folder / f"{prefix}traces.png"),
        draw.plot_spectra(samples, folder / f"{prefix}spectra.png"),
        plot_tsne(samples, ("rotation",), "poses", folder / f"{prefix}tsne_poses.png"),
        plot_tsne(
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
