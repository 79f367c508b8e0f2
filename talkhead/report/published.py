"""Numbers as printed by paper 1, for the columns beside ours.

TH-PAD, "Talking Head Generation with Probabilistic Audio-to-Visual Diffusion Priors". All are
published values on real data, never re-computed here. They use 67 coefficients of a 3-D face model
without standardisation, so absolute values do not compare with ours; orderings do. The numbers
themselves are in :mod:`talkhead.report.templates`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from talkhead.report.templates import template

TABLE_1 = "diffusion_prior/table1"
TABLE_2 = "diffusion_prior/table2"
TABLE_4 = "diffusion_prior/table4"
TABLE_I = "diffusion_prior/tableI"
MULTIMODALITY = "diffusion_prior/multimodality"


@dataclass(frozen=True)
class PublishedRow:
    """One row of one table.

    Attributes:
        method: Row name in the paper.
        dataset: What it was measured on.
        values: Column id of the template (a base metric name without brackets) -> value.
    """

    method: str
    dataset: str
    values: Mapping[str, float]


@cache
def published_rows(table: str) -> tuple[PublishedRow, ...]:
    """All rows of a template, data set after data set; printed dashes are left out.

    Raises:
        ConfigError: No such template.
    """
    known = template(table)
    rows = []
    for dataset, lines in known.published.items():
        for method in lines:
            numbers = known.numbers(dataset, method)
            values = {k: n.value for k, n in numbers.items() if not math.isnan(n.value)}
            rows.append(PublishedRow(method, dataset, values))
    return tuple(rows)


def published_for(table: str, variant: str, dataset: str = "VoxCeleb2") -> PublishedRow | None:
    """The paper's row for one of our variants, or None."""
    bound = template(table).row_of(variant)
    for row in published_rows(table):
        if bound is not None and (row.dataset, row.method) == (dataset, bound.method):
            return row
    return None


_GUIDANCE = re.compile(r"^guidance[_-]?(\d+(?:[._]\d+)?)$")


def guidance_of(variant: str) -> float | None:
    """Guidance factor in a variant's name: ``guidance_2.5`` and ``guidance_2_5`` give 2.5."""
    match = _GUIDANCE.match(variant)
    return None if match is None else float(match[1].replace("_", "."))
