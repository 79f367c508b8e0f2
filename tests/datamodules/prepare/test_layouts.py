from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.prepare.layouts import hdtf_speaker, list_clips
from talkhead.errors import ConfigError, DataError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_folder_by_parent_and_stem(tmp_path: Path) -> None:
    root = _touch(tmp_path / "raw", "ann/b.mp4", "ann/a.MOV", "bob/x/c.mkv", "d.mp4", "ann/.e.mp4")
    clips = list_clips("folder", root).clips
    assert [(c.id, c.speaker) for c in clips] == [
        ("ann/a", "ann"),
        ("ann/b", "ann"),
        ("bob/x/c", "bob/x"),
        ("d", "raw"),
    ]
    assert [c.speaker for c in list_clips("folder", root, speaker_from="stem").clips] == list(
        "abcd"
    )


def test_links_to_folders_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    store, root = tmp_path / "store", tmp_path / "root"
    (store / "anna").mkdir(parents=True)
    (store / "anna" / "a.mp4").touch()
    root.mkdir()
    (root / "linked").symlink_to(store)
    (store / "back").symlink_to(root)
    assert [c.id for c in list_clips("folder", root).clips] == ["linked/anna/a"]


def test_folder_by_table(tmp_path: Path) -> None:
    root = _touch(tmp_path / "raw", "a.mp4", "sub/b.mp4", "c.mp4", "d.mp4")
    table = tmp_path / "who.csv"
    table.write_bytes(
        "\ufefffile,duration,speaker\na.mp4,1,ann\nb.mp4,2,bob\nraw/c.mp4,3,cat\n".encode()
    )
    listing = list_clips("folder", root, speaker_from=str(table))
    assert {c.id: c.speaker for c in listing.clips} == {"a": "ann", "sub/b": "bob", "c": "cat"}
    assert [(s.source, s.reason) for s in listing.skipped] == [("d.mp4", "no_speaker")]
    table.write_text("name,speaker\na,b\n")
    with pytest.raises(DataError, match="columns"):
        list_clips("folder", root, speaker_from=str(table))
    with pytest.raises(ConfigError, match="--speaker-from"):
        list_clips("folder", root, speaker_from="absent.csv")


def test_folder_table_may_fix_splits(tmp_path: Path) -> None:
    root = _touch(tmp_path / "raw", "a.mp4", "b.mp4", "c.mp4")
    table = tmp_path / "table.csv"
    table.write_text("file,speaker,split\na.mp4,ann,train\nb.mp4,bob,\nc.mp4,ann,train\n")
    clips = list_clips("folder", root, speaker_from=str(table)).clips
    assert [(c.speaker, c.official) for c in clips] == [
        ("ann", "train"), ("bob", None), ("ann", "train"),
    ]  # fmt: skip
    table.write_text("file,speaker,split\na.mp4,ann,train\nc.mp4,ann,test\n")
    with pytest.raises(DataError, match=r"speaker ann is in two splits \(train, test\)"):
        list_clips("folder", root, speaker_from=str(table))
    table.write_text("file,speaker,split\na.mp4,ann,training\n")
    with pytest.raises(DataError, match="expected a split of train, val, test or none"):
        list_clips("folder", root, speaker_from=str(table))


def test_embedded(tmp_path: Path) -> None:
    root = _touch(tmp_path, "s01/v02/clip.mp4", "s01/v02/clip.truth.npz", "stray.mp4")
    listing = list_clips("embedded", root)
    (clip,) = listing.clips
    assert (clip.id, clip.speaker, clip.video) == ("s01/v02/clip", "s01", "s01/v02")
    assert clip.whole
    assert clip.source == "s01/v02/clip.mp4"
    assert [s.reason for s in listing.skipped] == ["layout"]


def test_hdtf_cut_clips(tmp_path: Path) -> None:
    root = _touch(tmp_path, "RD_Radio1_0.mp4", "RD_Radio10_1.mp4", "WDA_JaneDoe2_0.mp4")
    clips = list_clips("hdtf", root).clips
    assert [(c.speaker, c.video) for c in clips] == [
        ("Radio10", "Radio10"),
        ("Radio1", "Radio1"),
        ("JaneDoe", "JaneDoe2"),
    ]


def test_hdtf_whole_videos_with_lists(tmp_path: Path) -> None:
    root = _touch(tmp_path, "JaneDoe2.mp4", "Radio24.mp4", "lists/x")
    # The published list begins with a byte order mark, right before the first name.
    (root / "lists/WDA_annotion_time.txt").write_bytes(
        "\ufeffJaneDoe2.mp4 00:20-01:35 02:00-02:30\n".encode()
    )
    (root / "lists/WDA_resolution.txt").write_text("JaneDoe2.mp4 720\n")
    (root / "lists/WDA_crop_wh.txt").write_text("JaneDoe2_0.mp4 360 180 72 144\n")
    listing = list_clips("hdtf", root)
    first, second = listing.clips
    assert (first.id, first.start_s, first.end_s) == ("JaneDoe2_0", 20.0, 95.0)
    assert (second.id, second.start_s, second.end_s) == ("JaneDoe2_1", 120.0, 150.0)
    # The list has x, w, y, h in pixels of 720 lines; a box is x, y, w, h in picture heights.
    assert first.box == pytest.approx((0.5, 0.1, 0.25, 0.2))
    assert second.box is None
    assert [(s.source, s.reason) for s in listing.skipped] == [("Radio24.mp4", "no_interval")]


def test_hdtf_numbers_are_videos_but_radio_numbers_are_guests() -> None:
    assert hdtf_speaker("JaneDoe12") == "JaneDoe"
    assert hdtf_speaker("Radio7") == "Radio7"


def test_mead(tmp_path: Path) -> None:
    root = _touch(
        tmp_path,
        "M003/video/front/angry/level_1/001.mp4",
        "M003/video/down/angry/level_1/001.mp4",
        "M003/audio/angry/level_1/001.m4a",
        "W021/video/1/front/happy/level_2/004.mp4",
        "W021/video/front/broken.mp4",
    )
    listing = list_clips("mead", root)
    first, second = listing.clips
    assert first.speaker == "M003"
    assert first.audio == root / "M003/audio/angry/level_1/001.m4a"
    assert (second.speaker, second.video) == ("W021", "W021/happy/level_2/004")
    assert second.audio == root / "W021/audio/happy/level_2/004.m4a"
    assert [s.reason for s in listing.skipped] == ["layout"]
    both = list_clips("mead", root, views=("front", "down")).clips
    assert len(both) == 3
    assert len({c.video for c in both}) == 2  # the views of one sentence are one recording


def test_voxceleb2(tmp_path: Path) -> None:
    root = _touch(
        tmp_path, "dev/mp4/id00012/abc/00001.mp4", "test/mp4/id00017/def/00002.mp4", "dev/x.mp4"
    )
    listing = list_clips("voxceleb2", root)
    assert [(c.speaker, c.video, c.official) for c in listing.clips] == [
        ("id00012", "id00012/abc", "dev"),
        ("id00017", "id00017/def", "test"),
    ]
    assert len(listing.skipped) == 1


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="layout"):
        list_clips("lrs9", tmp_path)
    with pytest.raises(DataError, match="no folder"):
        list_clips("folder", tmp_path / "absent")
    with pytest.raises(DataError, match="found no clip"):
        list_clips("folder", tmp_path)
    with pytest.raises(DataError, match="suffix"):
        list_clips("folder", _touch(tmp_path / "twice", "a.mp4", "a.mov"))
