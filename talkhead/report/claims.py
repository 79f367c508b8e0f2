"""What papers 1 and 2 claim about their variants, checked on our results one by one.

A claim compares two numbers, each a metric of a variant, or one number with a bound. It counts as
reproduced when the mean difference over the seeds has the paper's sign and exceeds its spread. The papers
print one number for each variant and no spread, so nothing is known of their own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from talkhead.report.results import RunResult

Verdict = Literal["reproduced", "within the spread", "reversed", "not measurable here"]


@dataclass(frozen=True)
class Side:
    """A metric, by its full name, of a variant."""

    variant: str
    metric: str

    def __str__(self) -> str:
        """``variant: metric``."""
        return f"{self.variant}: {self.metric}"


@dataclass(frozen=True)
class Claim:
    """``less`` is smaller than ``more``.

    Attributes:
        text: The claim in words.
        source: Where the paper makes it.
        less: The number said to be smaller.
        more: The number said to be larger, or a bound.
    """

    text: str
    source: str
    less: Side | float
    more: Side | float


@dataclass(frozen=True)
class Finding:
    """A claim with what our seeds say.

    Attributes:
        claim: The claim.
        verdict: ``within the spread`` has either sign, ``reversed`` the other one beyond the spread.
        less: Mean over seeds of the first number, NaN if not measured.
        more: The same of the second.
        spread: Sample standard deviation of the difference, paired by seed; NaN with one seed.
        seeds: Seeds that have both numbers.
    """

    claim: Claim
    verdict: Verdict
    less: float = math.nan
    more: float = math.nan
    spread: float = math.nan
    seeds: int = 0


def _motion(space: str) -> list[Claim]:
    """Claims of tables 2 and I in one space."""

    def snd(variant: str) -> Side:
        return Side(variant, f"snd[{space}]")

    def var(variant: str) -> Side:
        return Side(variant, f"var[{space}]")

    best, table_2, table_i = "guidance_2.5", "table 2", "table I"
    guidance = [
        Claim("Guidance 2.5 beats none (0)", table_i, snd(best), snd("guidance_0")),
        Claim("Guidance 2.5 beats plain sampling (1)", table_i, snd(best), snd("guidance_1")),
        Claim("Guidance 2.5 beats 5", table_i, snd(best), snd("guidance_5")),
        Claim("Guidance 5 beats 10", table_i, snd("guidance_5"), snd("guidance_10")),
    ]
    return [
        Claim("Diffusion is more natural than AR", table_2, snd("diffusion"), snd("ar")),
        Claim("The velocity loss helps", table_2, snd("diffusion"), snd("no_velocity")),
        Claim("Editing in training helps", table_2, snd("diffusion"), snd("no_editing")),
        Claim("AR varies more than diffusion", table_2, var("diffusion"), var("ar")),
        Claim("Without velocity loss more varies", table_2, var("diffusion"), var("no_velocity")),
        Claim("Without editing more varies", table_2, var("diffusion"), var("no_editing")),
        # The study of guidance renders nothing.
        *([] if space.startswith("retracked") else guidance),
    ]


SEAM = 1.2
"""A jump of at most this ratio is not told apart from ordinary motion."""


def _smooth(variant: str, without: str, network: str = "") -> list[Claim]:
    """Claims about seams of a prior trained with editing and of one trained without."""
    with_editing, jump = Side(variant, "edit_jump[code]"), Side(without, "edit_jump[code]")
    return [
        Claim(
            f"No jump where windows meet{network}", "3.3", Side(variant, "border_jump[code]"), SEAM
        ),
        Claim(
            f"No jump around edited frames, with editing in training{network}",
            "figure V",
            with_editing,
            SEAM,
        ),
        Claim(
            f"A jump around edited frames, without editing in training{network}",
            "figure 7",
            SEAM,
            jump,
        ),
    ]


_SMOOTH = [
    *_smooth("diffusion", "no_editing"),
    *_smooth("v", "v_no_editing", ", v predicted"),
]


def _driven(mode: str, score: str, variant: str = "full") -> Side:
    return Side(variant, f"{mode}/{score}[retracked:generator]")


_SPLIT = [
    Claim(
        "Without L_ol the lip code moves the lips less", "table 4",
        _driven("lip_only", "mouth_correlation", "no_orthogonal"),
        _driven("lip_only", "mouth_correlation"),
    ),
    Claim(
        "Without L_ol the non-lip code moves the lips more", "table 4",
        _driven("nonlip_only", "mouth_correlation"),
        _driven("nonlip_only", "mouth_correlation", "no_orthogonal"),
    ),
    *(
        Claim(
            f"Without the bank {symbol} is worse", "table 4",
            _driven("nonlip_only", f"{name}_distance"),
            _driven("nonlip_only", f"{name}_distance", "no_bank"),
        )
        for symbol, name in (
            ("B_d", "blink"), ("G_d", "gaze"), ("E_d", "expression"), ("P_d", "pose"),
        )
    ),
    Claim(
        "The non-lip code alone leaves the lips still", "4.3",
        _driven("nonlip_only", "mouth_motion"), _driven("both", "mouth_motion"),
    ),
    Claim(
        "The lip code alone leaves the head still", "4.3",
        _driven("lip_only", "head_motion"), _driven("both", "head_motion"),
    ),
    Claim(
        "L_ol takes lip motion out of the non-lip code", "3.1",
        Side("full", "leakage_lip_from_nonlip"), Side("no_orthogonal", "leakage_lip_from_nonlip"),
    ),
    Claim(
        "The bank takes lip motion out of the non-lip code", "3.1",
        Side("full", "leakage_lip_from_nonlip"), Side("no_bank", "leakage_lip_from_nonlip"),
    ),
]  # fmt: skip


_SHALLOW = "shallow_diffusion"
_STREAMS = [
    Claim(
        "Without diffusion the face is farther from the real one", "paper 2, 4.2",
        Side(_SHALLOW, "lmd_face[px256]"), Side("without_diffusion", "lmd_face[px256]"),
    ),
    Claim(
        "Without the pose stream the mouth follows the speech less", "paper 2, 4.2",
        Side(_SHALLOW, "lmd_mouth[px256]"), Side("without_pose", "lmd_mouth[px256]"),
    ),
    Claim(
        "A shallow start saves evaluations", "paper 2, 3.3",
        Side(_SHALLOW, "network_evaluations"), Side("full_chain", "network_evaluations"),
    ),
    Claim(
        "Prosody moves the rhythmic stream more than the pose stream", "paper 2, 3.2",
        Side(_SHALLOW, "pose_with_prosody[truth]"), Side(_SHALLOW, "rhythm_with_prosody[truth]"),
    ),
    Claim(
        "The pose stream has more of the slow posture", "paper 2, 3.1",
        Side(_SHALLOW, "rhythm_with_posture[truth]"), Side(_SHALLOW, "pose_with_posture[truth]"),
    ),
]  # fmt: skip


def claims_for(results: Sequence[RunResult]) -> list[Claim]:
    """The claims that concern these results: of the priors, the disentanglement or the two streams."""
    metrics = {name for result in results for name in result.metrics}
    variants = {result.variant for result in results}
    chosen: list[Claim] = []
    if any(result.stage.startswith("motion_") for result in results):
        spaces = [name[4:-1] for name in sorted(metrics) if name.startswith("snd[")]
        chosen += [claim for space in spaces for claim in _motion(space)] + _SMOOTH
    if any(result.stage == "lip_disentangle" for result in results):
        chosen += _SPLIT
    if any(result.stage == "shallow_diffusion" for result in results):
        chosen += _STREAMS
    return [claim for claim in chosen if variants & _named(claim)] if len(variants) > 1 else []


def _named(claim: Claim) -> set[str]:
    return {side.variant for side in (claim.less, claim.more) if isinstance(side, Side)}


def check(claim: Claim, results: Iterable[RunResult]) -> Finding:
    """Compare a claim with the results of all seeds; only seeds with both numbers count."""
    known = list(results)
    less, more = (_values(side, known) for side in (claim.less, claim.more))
    seeds = sorted(set(less) & set(more))
    if not seeds:
        return Finding(claim, "not measurable here")
    differences = [more[seed] - less[seed] for seed in seeds]
    mean = statistics.fmean(differences)
    spread = statistics.stdev(differences) if len(seeds) > 1 else math.nan
    verdict: Verdict = "reproduced" if mean > 0 else "reversed"
    if abs(mean) <= (0.0 if math.isnan(spread) else spread):
        verdict = "within the spread"
    return Finding(
        claim,
        verdict,
        statistics.fmean(less[seed] for seed in seeds),
        statistics.fmean(more[seed] for seed in seeds),
        spread,
        len(seeds),
    )


def _values(side: Side | float, results: Sequence[RunResult]) -> Mapping[int, float]:
    """Seed -> value; a bound has every seed."""
    if not isinstance(side, Side):
        return {result.seed: side for result in results}
    found = {
        r.seed: r.metrics.get(side.metric, math.nan) for r in results if r.variant == side.variant
    }
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


def markdown(findings: Sequence[Finding]) -> str:
    """The findings as a table."""
    lines = [
        "### Claims of the papers",
        "",
        "Reproduced: the mean difference over seeds has the paper's sign and exceeds its standard deviation "
        "(with one seed there is none to exceed).",
        "",
        "| claim | where | smaller | larger | difference | seeds | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for finding in findings:
        claim = finding.claim
        spread = "" if math.isnan(finding.spread) else f" ± {finding.spread:.3g}"
        apart = "-" if finding.seeds == 0 else f"{finding.more - finding.less:.3g}{spread}"
        sides = [_shown(claim.less, finding.less), _shown(claim.more, finding.more)]
        cells = [claim.text, claim.source, *sides, apart, str(finding.seeds), finding.verdict]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(side: Side | float, value: float) -> str:
    if not isinstance(side, Side):
        return f"{side:g}"
    return f"{side}" if math.isnan(value) else f"{side} = {value:.3g}"
