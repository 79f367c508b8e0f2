from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from talkhead.audit.advice import RIDGE, Advice, Thresholds, advise, set_facts
from talkhead.audit.duplicates import Match
from talkhead.audit.measure import Measures
from talkhead.audit.table import COLUMNS, summary, table_row, table_text
from talkhead.errors import ConfigError
from tests.talkhead.audit.make_clips import measures, row, sync

LIMITS = Thresholds()


def told(
    rows: Sequence[Any],
    measured: Sequence[Measures],
    *,
    matches: Sequence[Match] = (),
    judge: str = "syncnet",
    noted: Mapping[str, Sequence[str]] | None = None,
) -> list[Advice]:
    facts = set_facts(rows, measured, judge, LIMITS)
    return advise(rows, measured, matches, facts, LIMITS, noted or {})


def advice_on(changed: dict[str, Any], row_values: dict[str, Any] | None = None) -> Advice:
    """Advice on one clip among four without fault."""
    rows = [row(f"c{i}") for i in range(4)] + [row("odd", **(row_values or {}))]
    good = [measures(f"c{i}") for i in range(4)]
    *others, last = told(rows, [*good, measures("odd", **changed)])
    assert [one.recommendation for one in others] == ["keep"] * 4
    return last


def test_a_good_clip_is_kept() -> None:
    assert advice_on({}) == Advice("keep", 0, (), "", ())


@pytest.mark.parametrize(
    ("changed", "row_values", "fault", "words"),
    [
        ({"silence_share": 0.9}, {}, "silent", "90% silence"),
        ({}, {"tracked_share": 0.92}, "low_track", "92% of the frames"),
        ({"face_px": 40.0}, {}, "small_face", "40 px wide"),
        ({"profile_share": 0.6}, {}, "profile", "60% of the frames"),
        ({"sharpness": 0.1}, {}, "blurred", "0.20 of the set's"),
        ({"sync": sync(3, 0.5)}, {}, "no_sync", "fit at no offset"),
    ],
)
def test_faults(
    changed: dict[str, Any], row_values: dict[str, Any], fault: str, words: str
) -> None:
    found = advice_on(changed, row_values)
    assert (found.recommendation, found.faults) == ("drop", (fault,))
    assert words in found.reason


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        ({"loudness_lufs": -50.0}, "quiet"),
        ({"clipped_share": 0.01}, "clipped"),
        ({"sync": sync(5, 1.0)}, "offset_unclear"),
        ({"sync": sync(14, 9.0)}, "offset_unclear"),
        ({"sync": sync(5, agreement=0.25)}, "offset_drifts"),
        ({"sync": None}, "offset_unknown"),
    ],
)
def test_what_is_only_marked(changed: dict[str, Any], flag: str) -> None:
    found = advice_on(changed)
    assert (found.recommendation, found.shift_frames, found.flags) == ("keep", 0, (flag,))


@pytest.mark.parametrize(("offset", "fixed"), [(-7, True), (-2, True), (1, False), (3, True)])
def test_offsets_beyond_a_frame_are_fixed(offset: int, fixed: bool) -> None:
    found = advice_on({"sync": sync(offset)})
    assert found.recommendation == ("fix" if fixed else "keep")
    assert found.shift_frames == (offset if fixed else 0)
    assert (("leads" if offset < 0 else "lags") in found.reason) is fixed


def test_a_shift_is_against_the_raw_sound() -> None:
    """What a set was already delayed by is kept, and what is left comes on top."""
    assert advice_on({"sync": sync(0)}, {"audio_shift_frames": 3}).shift_frames == 3
    found = advice_on({"sync": sync(-5)}, {"audio_shift_frames": 3})
    assert (found.recommendation, found.shift_frames) == ("fix", -2)


def test_a_judge_that_hears_nothing_drops_nothing() -> None:
    """No sync by a judge to whom most of the set is noise says nothing about the clip."""
    rows = [row(f"c{i}") for i in range(5)]
    deaf = [measures(f"c{i}", sync=sync(4, 0.8)) for i in range(4)]
    advice = told(rows, [*deaf, measures("c4", sync=sync(4, 0.1))])
    assert [one.recommendation for one in advice] == ["keep"] * 5
    assert all(one.flags == ("offset_unclear",) for one in advice)


def test_chance_is_a_quantile_over_the_set() -> None:
    rows = [row(f"c{i}") for i in range(101)]
    measured = [measures(f"c{i}", sync=sync(2, confidence=3.0, chance=i / 100)) for i in range(101)]
    facts = set_facts(rows, measured, "syncnet", LIMITS)
    assert facts.chance == pytest.approx(0.99)
    assert facts.typical_chance == pytest.approx(0.5)
    assert (facts.clear_share, facts.median_offset, facts.judged) == (1.0, 2.0, 101)
    assert facts.median_share == 1.0


def test_offsets_all_over_the_place_have_no_common_one() -> None:
    offsets = [-9, -5, 1, 2, 8, 9, 12]
    rows = [row(f"c{i}") for i in range(7)]
    measured = [measures(f"c{i}", sync=sync(k)) for i, k in enumerate(offsets)]
    facts = set_facts(rows, measured, "syncnet", LIMITS)
    assert facts.median_offset == 2.0
    assert facts.median_share == pytest.approx(2 / 7)


def test_without_a_network_the_estimates_of_prepare_count() -> None:
    rows = [
        row("far", offset_frames=4, offset_confidence=0.3),
        row("near", offset_frames=-2, offset_confidence=0.3),
        row("unclear", offset_frames=9, offset_confidence=0.1),
        row("silent"),
    ]
    measured = [measures(r.id, sync=None) for r in rows]
    advice = told(rows, measured, judge=RIDGE)
    assert [(a.recommendation, a.shift_frames) for a in advice] == [
        ("fix", 4), ("keep", 0), ("keep", 0), ("keep", 0),
    ]  # fmt: skip
    assert [a.flags for a in advice] == [(), (), ("offset_unclear",), ("offset_unknown",)]


def pair(kind: Any, overlap_s: float, splits: tuple[str, str] = ("train", "train")) -> list[Advice]:
    rows = [row("a", split=splits[0]), row("b", split=splits[1])]
    match = Match(0, 1, kind, overlap_s, 0.1, 0.0)
    return told(rows, [measures("a"), measures("b")], matches=[match])


def test_of_two_copies_one_stays() -> None:
    first, second = pair("near", 8.0)
    assert (first.recommendation, second.recommendation) == ("keep", "drop")
    assert (second.duplicate_of, second.duplicate_kind) == ("a", "near")
    assert second.reason == "near duplicate of a"


def test_a_copy_goes_from_training_and_not_from_the_test() -> None:
    first, second = pair("exact", 8.0, ("train", "test"))
    assert (first.recommendation, second.recommendation) == ("drop", "keep")


@pytest.mark.parametrize(
    ("kind", "overlap_s", "flag"), [("sound", 8.0, "same_sound"), ("near", 2.0, "overlap")]
)
def test_half_copies_are_marked(kind: str, overlap_s: float, flag: str) -> None:
    first, second = pair(kind, overlap_s)
    assert (first.flags, second.flags) == ((), (flag,))
    assert (second.recommendation, second.duplicate_of) == ("keep", "a")


def test_of_three_overlapping_cuts_the_middle_one_goes() -> None:
    rows = [row(name) for name in "abc"]
    chain = [Match(0, 1, "near", 4.0, 0.1, 0.0), Match(1, 2, "near", 4.0, 0.1, 0.0)]
    advice = told(rows, [measures(name) for name in "abc"], matches=chain)
    assert [one.recommendation for one in advice] == ["keep", "drop", "keep"]


def test_what_prepare_noted_comes_along() -> None:
    rows = [row("a"), row("b")]
    noted = {"b": ["several_faces", "offset", "offset_fixed+3"]}
    advice = told(rows, [measures("a"), measures("b")], noted=noted)
    assert advice[1].flags == ("several_faces",)


def test_thresholds_can_be_changed() -> None:
    limits = Thresholds.parse(["min_face_px=64", "min_shift=3"])
    assert (limits.min_face_px, limits.min_shift, limits.max_silence) == (64.0, 3, 0.8)
    for wrong, words in (
        ("face=3", "min_face_px"),
        ("min_shift=two", "expected a number"),
        ("chance_quantile=7", "within 0 to 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            Thresholds.parse([wrong])


def test_table_and_summary() -> None:
    rows = [row("a"), row("b", audio_shift_frames=1), row("c", frames=750)]
    measured = [
        measures("a"),
        measures("b", sync=sync(-3)),
        measures("c", silence_share=0.95, loudness_lufs=None, sync=None),
    ]
    facts = set_facts(rows, measured, "syncnet", LIMITS)
    advice = advise(rows, measured, [], facts, LIMITS, {})
    lines = [table_row(*parts, facts) for parts in zip(rows, measured, advice, strict=True)]
    assert [(x["shift_frames"], x["applied_shift_frames"]) for x in lines] == [
        (0, 0), (-2, 1), (0, 0),
    ]  # fmt: skip
    assert (lines[1]["offset_frames"], lines[1]["yaw_high_deg"]) == (-3, 10.0)
    assert "offset_frames" not in lines[2]
    text = table_text(lines).splitlines()
    assert text[0].split(",") == list(COLUMNS)
    assert text[3].startswith(
        "c,speaker of c,train,c.mp4,30.0,drop,0,95% silence,offset_unknown,,,"
    )
    found = summary(rows, advice, facts)
    assert json.loads(json.dumps(found)) == found
    assert found["recommendations"] == {
        "keep": {"clips": 1, "minutes": 0.13},
        "fix": {"clips": 1, "minutes": 0.13},
        "drop": {"clips": 1, "minutes": 0.5},
    }
    assert found["drop_reasons"] == {"silent": 1}
    # What is fixed now, not what is to be done to the raw sound.
    assert found["fixes"] == {"-3": 1}
    assert found["sync"]["judged"] == 2
