from __future__ import annotations

from pathlib import Path

import pytest

from talkhead.audit.orders import read_orders
from talkhead.errors import DataError

HEADER = "id,recommendation,shift_frames,reason\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "audit.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_orders(tmp_path: Path) -> None:
    text = HEADER + 'a,keep,0,\nb,fix,-3,late\nc,keep,2,\nd,drop,0,"90% silence, far"\ne,drop,1,\n'
    found = read_orders(written(tmp_path, "\ufeff" + text))
    assert found.shifts == {"b": -3, "c": 2, "e": 1}
    assert found.drops == {"d": "90% silence, far", "e": "the audit says drop"}
    assert len(found.digest) == 16
    assert read_orders(written(tmp_path, text + "f,keep,0,\n")).digest != found.digest


def test_the_reason_may_be_missing(tmp_path: Path) -> None:
    found = read_orders(written(tmp_path, "shift_frames,id,recommendation\n4,a,fix\n"))
    assert found.shifts == {"a": 4}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got no clip"),
        ("id,shift_frames\na,3\n", "expected the columns id, recommendation, shift_frames"),
        (HEADER + "a,fix,2.5,\n", "line 2: expected shift_frames in whole frames, got '2.5'"),
        (HEADER + "a,fix\n", "whole frames, got None"),
        (HEADER + "a,fix,900,\n", "at most 250, got 900"),
        (HEADER + "a,shift,3,\n", "one of keep, fix, drop, got 'a' with 'shift'"),
        (HEADER + "a,fix,3,\na,keep,0,\n", "line 3: expected each clip once"),
    ],
)
def test_tables_that_are_no_audit(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        read_orders(written(tmp_path, text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the audit"):
        read_orders(tmp_path / "absent.csv")
