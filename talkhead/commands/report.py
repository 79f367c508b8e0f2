"""``talkhead report DIR… --out DIR``: scored runs to tables, plots and contact sheets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from talkhead.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Report everything below the folders, or fill templates of the papers with it.

    Returns:
        0.

    Raises:
        ConfigError: No folder and no template, an unknown template, or a video that is no file.
        DataError: No results, broken results, or two results for one variant and seed.
    """
    options = _parser().parse_args(list(argv))
    if options.list_templates:
        _list_templates()
        return 0
    if options.out is None:
        raise ConfigError("--out: expected a folder for the report; give --out DIR.")
    if options.space and not options.template:
        raise ConfigError("--space chooses among the columns of templates; add --template NAME.")
    videos = _videos(options.video)
    plots = not options.no_plots
    if options.template:
        from talkhead.report.write import write_templates

        written = write_templates(
            options.folders,
            options.out,
            options.template,
            spaces=options.space,
            plots=plots,
            videos=videos,
        )
        _tell(written.files, written.left_out)
        return 0
    if not options.folders:
        raise ConfigError("expected folders with runs, or --template NAME; see --list-templates.")
    from talkhead.report.write import write_report

    report = write_report(options.folders, options.out, plots=plots, videos=videos)
    _tell([report.markdown, report.csv, *report.plots, *report.sheets], report.left_out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="talkhead report",
        description="Tables (markdown, CSV), plots and contact sheets from every metrics.json below the "
        "folders, with the papers' published numbers beside ours; with --template a single table or "
        "figure of a paper, what no run measured shown as missing.",
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="folders with runs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for everything written")
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="NAME",
        help="fill this table or figure, or all that match a pattern such as 'ms_sync/*'; repeatable",
    )
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="NAME",
        help="of metrics measured in several spaces, show this one in templates, such as readout for "
        "snd[readout]; repeatable",
    )
    parser.add_argument(
        "--list-templates", action="store_true", help="name every template with what fills it"
    )
    parser.add_argument(
        "--video",
        action="append",
        default=[],
        metavar="VARIANT=FILE",
        help="show frames of this video, as a contact sheet or in figure 6 of paper 1; repeatable",
    )
    parser.add_argument("--no-plots", action="store_true", help="tables only")
    return parser


def _list_templates() -> None:
    """Every template with its title, what makes our rows and what is still to be built."""
    from talkhead.report.templates import all_templates

    for name, template in all_templates().items():
        print(f"{name}: {template.printed}, {template.title}")
        for command in template.commands:
            print(f"    {command}")
        if template.needs:
            print(f"    our rows need {template.needs}")


def _videos(items: Sequence[str]) -> dict[str, Path]:
    videos: dict[str, Path] = {}
    for item in items:
        name, equals, value = item.partition("=")
        path = Path(value)
        if not (name and equals and path.is_file()):
            raise ConfigError(
                f"--video: expected VARIANT=FILE with an existing file, got '{item}'."
            )
        videos[name] = path
    return videos


def _tell(files: Sequence[Path], left_out: Sequence[str]) -> None:
    for path in files:
        print(path)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
