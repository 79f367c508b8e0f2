"""``talkhead report DIR… --out DIR``: scored runs to tables and plots."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from talkhead.report.write import write_report


def main(argv: Sequence[str]) -> int:
    """Find every metrics.json below the folders and write table.md, table.csv and plots.

    Returns:
        0.

    Raises:
        DataError: No results, broken results, or two results for one variant and seed.
    """
    parser = argparse.ArgumentParser(
        prog="talkhead report",
        description="Tables (markdown, CSV) and plots from every metrics.json below the folders, "
        "with the papers' published numbers beside ours.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders with runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for table.md, plots/ …")
    parser.add_argument("--no-plots", action="store_true", help="tables only")
    options = parser.parse_args(list(argv))
    report = write_report(options.folders, options.out, plots=not options.no_plots)
    for path in (report.markdown, report.csv, *report.plots):
        print(path)
    for reason in report.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    return 0
