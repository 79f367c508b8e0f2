from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from talkhead.errors import DataError
from talkhead.evaluation.pairs import file_sha256, match_pairs

GEN, REF = Path("gen"), Path("ref")


def _files(folder: Path, *names: str) -> list[Path]:
    return [folder / name for name in names]


def test_pairs_by_path_whatever_the_ending() -> None:
    pairs, alone = match_pairs(
        GEN, REF, _files(GEN, "b.mp4", "a/x.mp4"), _files(REF, "a/x.mov", "b.mp4")
    )
    assert [(p.name, p.generated, p.reference) for p in pairs] == [
        ("a/x", GEN / "a/x.mp4", REF / "a/x.mov"),
        ("b", GEN / "b.mp4", REF / "b.mp4"),
    ]
    assert alone == []


def test_files_without_a_partner_are_listed_or_left_out() -> None:
    ours, theirs = _files(GEN, "a.mp4", "b.mp4"), _files(REF, "b.mp4", "c.mp4", "d.mp4")
    with pytest.raises(
        DataError, match=r"a only in gen; c only in ref; d only in ref.*--allow-missing"
    ):
        match_pairs(GEN, REF, ours, theirs)
    pairs, alone = match_pairs(GEN, REF, ours, theirs, allow_missing=True)
    assert [p.name for p in pairs] == ["b"]
    assert alone == ["a only in gen", "c only in ref", "d only in ref"]
    many = _files(REF, *(f"{i}.mp4" for i in range(20)))
    with pytest.raises(DataError, match=r"only in ref and 12 more"):
        match_pairs(GEN, REF, _files(GEN, "0.mp4"), [*many, REF / "x.mp4"])


def test_no_pair_and_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match=r"gen \(1 found\) and ref \(0 found\), got no pair"):
        match_pairs(GEN, REF, _files(GEN, "a.mp4"), [], allow_missing=True)
    with pytest.raises(DataError, match=r"one video named a in gen, got a.mp4 and a.mov"):
        match_pairs(GEN, REF, _files(GEN, "a.mp4", "a.mov"), _files(REF, "a.mp4"))


def test_file_digest(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"talk")
    assert file_sha256(tmp_path / "x") == hashlib.sha256(b"talk").hexdigest()
    with pytest.raises(DataError, match="cannot read"):
        file_sha256(tmp_path / "y")
