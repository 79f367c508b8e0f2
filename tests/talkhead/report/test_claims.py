from __future__ import annotations

import math

import pytest

from talkhead.report.claims import Claim, Side, check, claims_for, markdown
from talkhead.report.results import RunResult
from tests.talkhead.report.factory import result

CLAIM = Claim("b is larger", "table 2", Side("a", "snd[code]"), Side("b", "snd[code]"))


def runs(**values: list[float]) -> list[RunResult]:
    return [
        result(variant, seed, {"snd[code]": value})
        for variant, column in values.items()
        for seed, value in enumerate(column)
    ]


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        ([4.0, 5.0, 6.0], "reproduced"),  # always 3 more
        ([0.0, 1.0, 2.0], "reversed"),
        ([2.0, 2.0, 5.0], "within the spread"),  # 1 more, 0 more, 2 more: 1 +- 1
        ([1.0, 1.0, 3.1], "within the spread"),
    ],
)
def test_verdicts_over_three_seeds(b: list[float], verdict: str) -> None:
    assert check(CLAIM, runs(a=[1.0, 2.0, 3.0], b=b)).verdict == verdict


def test_numbers_by_hand() -> None:
    found = check(CLAIM, runs(a=[1.0, 2.0, 3.0], b=[2.0, 2.0, 5.0]))
    assert (found.less, found.more, found.spread, found.seeds) == (2.0, 3.0, 1.0, 3)


def test_one_seed_has_no_spread_and_unpaired_seeds_do_not_count() -> None:
    one = check(CLAIM, runs(a=[1.0], b=[1.1, 0.0]))
    assert (one.verdict, one.seeds) == ("reproduced", 1)
    assert math.isnan(one.spread)
    assert check(CLAIM, runs(a=[1.0])).verdict == "not measurable here"
    nan = check(CLAIM, runs(a=[1.0], b=[math.nan]))
    assert nan.verdict == "not measurable here"


def test_bounds_have_every_seed() -> None:
    below = Claim("small", "3.3", Side("a", "snd[code]"), 1.2)
    assert check(below, runs(a=[1.0, 1.1])).verdict == "reproduced"
    assert check(below, runs(a=[1.4, 1.5])).verdict == "reversed"
    above = Claim("large", "3.3", 1.2, Side("a", "snd[code]"))
    assert check(above, runs(a=[1.4, 1.5])).verdict == "reproduced"


def test_claims_are_chosen_by_stage_and_variants() -> None:
    assert claims_for(runs(diffusion=[1.0])) == []  # nothing to compare with
    priors = claims_for(runs(diffusion=[1.0], ar=[2.0]))
    assert {claim.source for claim in priors} >= {"table 2", "figure V"}
    assert not any("guidance_10" in str(claim.more) for claim in priors)
    seams = claims_for(runs(v=[1.0], v_no_editing=[2.0]))
    assert [claim.text.endswith(", v predicted") for claim in seams] == [True] * 3
    split = [
        result(variant, stage="lip_disentangle", metrics={"leakage_lip_from_nonlip": 0.1})
        for variant in ("full", "no_bank")
    ]
    assert {claim.source for claim in claims_for(split)} == {"table 4", "4.3", "3.1"}


def test_claims_of_the_two_streams() -> None:
    metrics = {"lmd_face[px256]": 2.0, "rhythm_with_prosody[truth]": 0.6,
               "pose_with_prosody[truth]": 0.1}  # fmt: skip
    streams = [
        result("shallow_diffusion", stage="shallow_diffusion", metrics=metrics),
        result("without_diffusion", stage="shallow_diffusion", metrics={"lmd_face[px256]": 3.0}),
    ]
    found = {claim.text: check(claim, streams).verdict for claim in claims_for(streams)}
    assert found["Without diffusion the face is farther from the real one"] == "reproduced"
    assert found["Prosody moves the rhythmic stream more than the pose stream"] == "reproduced"
    assert found["The pose stream has more of the slow posture"] == "not measurable here"
    assert len(found) == 5


def test_table_says_what_was_compared() -> None:
    text = markdown([check(CLAIM, runs(a=[1.0, 2.0], b=[3.0, 5.0])), check(CLAIM, runs(a=[1.0]))])
    assert "| a: snd[code] = 1.5 | b: snd[code] = 4 | 2.5 ± 0.707 | 2 | reproduced |" in text
    assert "| a: snd[code] | b: snd[code] | - | 0 | not measurable here |" in text
