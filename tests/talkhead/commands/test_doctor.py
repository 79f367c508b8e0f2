"""The report names what is missing and whom that affects, and never fails."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from talkhead.commands import doctor


def test_report_on_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert doctor.main([f"--folder={tmp_path / 'not' / 'yet'}"]) == 0
    said = capsys.readouterr().out
    for expected in ("torch", "H.264 and AAC", "bundled face mesh", "GiB free", "login"):
        assert expected in said
    assert "ok      H.264 and AAC" in said


def test_missing_libraries_are_named_with_their_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = doctor.speech()
    assert found[0].ok is False
    assert "talkhead[corpus]" in found[0].detail
    assert "affects corpus, demo" in doctor.summary(found)
    assert doctor.libraries()[1].ok is None  # a choice, not a need


def test_nothing_missing_is_said_plainly() -> None:
    assert "Everything" in doctor.summary([doctor.Finding("disk", True, "9 GiB")])


def test_a_full_disk_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "FREE_DISK_GIB", 1e9)
    (finding,) = doctor.disk(tmp_path)
    assert finding.ok is False
    assert "fit" in finding.needed_by
