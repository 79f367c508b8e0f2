from __future__ import annotations

from pathlib import Path

import pytest

from talkhead.commands.prepare import job_from_args, main
from talkhead.errors import ConfigError, DataError


def test_defaults_come_from_the_settings() -> None:
    from datamodules.prepare.finish import FinishOptions
    from datamodules.prepare.options import ClipOptions

    job = job_from_args(["--dataset", "folder", "--raw", "raw", "--out", "set"])
    assert job.clip == ClipOptions()
    assert job.finish == FinishOptions()
    assert (job.root, job.out, job.layout) == (Path("raw"), Path("set"), "folder")
    assert job.workers >= 1


def test_options_arrive() -> None:
    words = (
        "--raw raw --out set --dataset mead --views front,down --size 96 --min-fps 15 --allow-silent",
        "--fix-offset --expression 8 --workers 3 --limit 5 --shard 1/4 --name lab",
    )
    job = job_from_args(" ".join(words).split())
    assert job.views == ("front", "down")
    assert (job.clip.size, job.clip.min_fps, job.clip.require_audio) == (96, 15.0, False)
    assert (job.finish.fix_offset, job.finish.n_expression) == (True, 8)
    assert (job.fix_from, job.drop_from) == (None, None)
    assert (job.workers, job.limit, job.shard, job.name) == (3, 5, (1, 4), "lab")


def test_audits_arrive() -> None:
    words = ["--dataset", "folder", "--raw", "raw", "--out", "set"]
    job = job_from_args([*words, "--fix-offset", "audit.csv", "--drop", "b.csv"])
    assert (job.fix_from, job.drop_from) == (Path("audit.csv"), Path("b.csv"))
    assert not job.finish.fix_offset


def test_bad_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0/4"):
        job_from_args(["--dataset", "folder", "--raw", "raw", "--out", "set", "--shard", "half"])
    with pytest.raises(ConfigError, match="--size"):
        job_from_args(["--dataset", "folder", "--raw", "raw", "--out", "set", "--size", "4"])
    with pytest.raises(DataError, match="no folder"):
        main(
            [
                "--dataset",
                "folder",
                "--raw",
                str(tmp_path / "absent"),
                "--out",
                str(tmp_path / "set"),
            ]
        )
    with pytest.raises(SystemExit):
        main(["--raw", "raw"])
