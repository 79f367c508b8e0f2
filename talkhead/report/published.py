"""Numbers as printed by paper 1, for the columns beside ours.

TH-PAD, "Talking Head Generation with Probabilistic Audio-to-Visual Diffusion Priors". All are
published values on real data, never re-computed here. They use 67 coefficients of a 3-D face model
without standardisation, so absolute values do not compare with ours; orderings do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = "TH-PAD, published"


@dataclass(frozen=True)
class PublishedRow:
    """One row of one table.

    Attributes:
        method: Row name in the paper.
        dataset: What it was measured on.
        values: Base metric name (as in ``metrics.json``, without brackets) -> value.
    """

    method: str
    dataset: str
    values: Mapping[str, float]


def _rows(dataset: str, keys: str, lines: str) -> tuple[PublishedRow, ...]:
    """Rows written as ``method | number number …``; ``-`` where the paper prints a dash."""
    names = keys.split()
    out = []
    for line in lines.strip().splitlines():
        method, _, numbers = line.partition("|")
        values = dict(zip(names, numbers.split(), strict=True))
        kept = {k: float(v) for k, v in values.items() if v != "-"}
        out.append(PublishedRow(method.strip(), dataset, kept))
    return tuple(out)


TABLE_1 = _rows(
    "VoxCeleb2",
    "sync_confidence_training fid sync_confidence sync_nlse",
    """
    Wav2Lip | 7.80 22.3 9.23 0.18
    EAMM | 1.76 26.1 4.75 1.70
    PC-AVS | 7.35 14.4 8.21 0.12
    MakeItTalk | 7.35 19.5 2.03 0.72
    Audio2head | 7.35 101 6.42 0.13
    Ours + AR | 7.35 24.3 7.23 0.02
    Ours + Diff. | 7.35 14.2 7.34 0.00
    """,
) + _rows(
    "VoxCeleb1",
    "sync_confidence_training fid sync_confidence sync_nlse",
    """
    Wav2Lip | 7.80 44.7 8.80 0.13
    EAMM | 1.76 42.6 2.78 0.58
    PC-AVS | 7.35 35.4 8.42 0.15
    MakeItTalk | 7.35 40.2 2.16 0.71
    Audio2head | 7.35 104 6.65 0.10
    Ours + AR | 7.35 49.7 7.05 0.04
    Ours + Diff. | 7.35 35.0 7.31 0.01
    """,
)
"""Synchronisation and picture quality, self-reenactment."""

TABLE_2 = _rows(
    "VoxCeleb2",
    "var fid_fm fid_dfm snd",
    """
    GT | 1.98 - - -
    MakeItTalk | 0.67 4.70 1.74 6.44
    Audio2head | 0.89 5.94 1.30 7.24
    Ours + AR | 3.07 5.43 2.22 7.65
    Ours + Diff. | 1.57 3.60 1.08 4.68
    w/o L_vel | 2.09 4.02 1.27 5.29
    training w/o editing | 3.09 6.76 2.00 8.76
    """,
) + _rows(
    "VoxCeleb1",
    "var fid_fm fid_dfm snd",
    """
    GT | 1.88 - - -
    MakeItTalk | 0.80 4.27 1.07 5.34
    Audio2head | 0.76 5.03 1.01 6.04
    Ours + AR | 2.92 6.21 1.68 7.89
    Ours + Diff. | 1.66 3.98 0.87 4.85
    w/o L_vel | 2.28 4.65 1.11 5.76
    training w/o editing | 3.06 6.96 1.70 8.66
    """,
)
"""Variance and naturalness of generated non-lip motion, self-reenactment."""

TABLE_4 = _rows(
    "VoxCeleb2",
    "sync_confidence sync_nlse blink_distance gaze_distance expression_distance pose_distance",
    """
    GT | 7.35 - - - - -
    w/o L_ol | 2.84 0.61 0.0074 0.1960 0.0568 0.0021
    w/o MB | 7.69 0.05 0.0112 0.0315 0.0875 0.0293
    Ours | 7.48 0.03 0.0067 0.0163 0.0558 0.0019
    """,
)
"""Disentanglement of lip and non-lip. The first two columns are lip only, the rest non-lip only."""

TABLE_I = _rows(
    "VoxCeleb2",
    "var fid_fm fid_dfm snd",
    """
    s = 0.0 | 1.60 3.98 1.16 5.14
    s = 1.0 | 1.58 3.78 1.14 4.92
    s = 2.5 | 1.57 3.60 1.08 4.68
    s = 5.0 | 1.85 4.16 1.20 5.36
    s = 10.0 | 2.42 6.10 1.67 7.77
    """,
)
"""Guidance factors (supplement)."""

MULTIMODALITY = PublishedRow("Ours + Diff.", "VoxCeleb2", {"multimodality": 2.31})
"""Supplement I; the number of runs behind it is not given."""

VARIANT_METHODS: Mapping[str, str] = {
    "ar": "Ours + AR",
    "motion_ar": "Ours + AR",
    "diffusion": "Ours + Diff.",
    "motion_diffusion": "Ours + Diff.",
    "no_velocity": "w/o L_vel",
    "no_editing": "training w/o editing",
    "no_orthogonal": "w/o L_ol",
    "no_bank": "w/o MB",
    "no_memory_bank": "w/o MB",
    "lip_disentangle": "Ours",
    "full": "Ours",
    "full_still_first": "Ours",
}
"""Our variant names -> the paper's row."""

_GUIDANCE = re.compile(r"^guidance[_-]?(\d+(?:[._]\d+)?)$")


def guidance_of(variant: str) -> float | None:
    """Guidance factor in a variant's name: ``guidance_2.5`` and ``guidance_2_5`` give 2.5."""
    match = _GUIDANCE.match(variant)
    return None if match is None else float(match[1].replace("_", "."))


def published_for(
    table: tuple[PublishedRow, ...], variant: str, dataset: str = "VoxCeleb2"
) -> PublishedRow | None:
    """The paper's row for one of our variants, or None."""
    guidance = guidance_of(variant)
    method = (
        f"s = {guidance:.1f}" if guidance is not None else VARIANT_METHODS.get(variant, variant)
    )
    for row in table:
        if row.dataset == dataset and row.method == method:
            return row
    return None
