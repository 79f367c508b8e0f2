"""The dispatcher: help, unknown commands, and one readable line for what a user can mend."""

from __future__ import annotations

import errno
import importlib
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from talkhead import __version__
from talkhead.__main__ import COMMANDS, LIGHTNING_COMMANDS, main, readable
from talkhead.errors import DataError


def leave(args: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(args)
    assert isinstance(left.value.code, int)
    return left.value.code


def test_help_is_fast_and_light() -> None:
    code = (
        "import sys\n"
        "from talkhead.__main__ import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as left:\n    assert left.code == 0\n"
        "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)\n"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 5.0  # well below a second on an idle machine
    lines = done.stdout.splitlines()
    for name in [*LIGHTNING_COMMANDS, *COMMANDS]:
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1


def test_version_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["--version"]) == 0
    assert capsys.readouterr().out == f"talkhead {__version__}\n"
    assert leave([]) == 2


def test_unknown_commands_get_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["prepair"]) == 2
    assert "did you mean prepare" in capsys.readouterr().err
    assert leave(["xyzzy"]) == 2
    assert "talkhead --help" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(COMMANDS[name][0])
    with pytest.raises(SystemExit) as left:
        module.main(["--help"])
    assert left.value.code == 0
    assert "usage:" in capsys.readouterr().out


def raising(error: BaseException) -> Any:
    def command(argv: list[str]) -> int:
        raise error

    return SimpleNamespace(main=command)


def test_errors_become_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails_with(error: BaseException) -> tuple[int, str]:
        monkeypatch.setattr(importlib, "import_module", lambda name: raising(error))
        code = leave(["data", f"--out={tmp_path}"])
        return code, capsys.readouterr().err

    assert fails_with(DataError("clip 7 has no sound; leave it out.")) == (
        2,
        "error: clip 7 has no sound; leave it out.\n",
    )
    assert fails_with(KeyboardInterrupt()) == (130, "interrupted\n")
    code, message = fails_with(OSError(errno.ENOSPC, "No space left on device"))
    assert code == 2
    assert str(tmp_path) in message
    assert "MiB free" in message
    code, message = fails_with(FileNotFoundError(errno.ENOENT, "No such file", "a.wav"))
    assert (code, message.startswith("error: a.wav: No such file")) == (2, True)
    code, message = fails_with(FileExistsError(errno.EEXIST, "File exists", "report"))
    assert (code, message.startswith("error: report: File exists")) == (2, True)


def test_a_full_disk_shows_through_other_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x.bin"))
    wrapped = DataError("cannot write shard 3")
    wrapped.__cause__ = full
    message = readable(wrapped, [])
    assert message is not None
    assert "x.bin" in message
    zip_writer = RuntimeError("unexpected pos 116096 vs 115992")
    zip_writer.__context__ = full
    monkeypatch.setattr(importlib, "import_module", lambda name: raising(zip_writer))
    assert leave(["data"]) == 2
    assert "no space left" in capsys.readouterr().err
    assert readable(OSError(errno.EIO, "Input/output error"), []) is None


def test_debug_shows_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKHEAD_DEBUG", "1")
    monkeypatch.setattr(importlib, "import_module", lambda name: raising(DataError("broken")))
    with pytest.raises(DataError, match="broken"):
        main(["data"])


def test_errors_of_our_own_making_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["data"])


def test_exit_codes_of_commands_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib, "import_module", lambda name: SimpleNamespace(main=lambda argv: len(argv))
    )
    main(["report"])
    assert leave(["report", "a", "b", "c"]) == 3
