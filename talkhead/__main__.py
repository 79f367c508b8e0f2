"""The one program of the suite: ``talkhead COMMAND …``, also ``python -m talkhead COMMAND …``.

Only a table and the exits live here. Commands are imported when they are called, so that ``--help``
answers at once and a machine without one command's libraries can use the others.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from talkhead import __version__
from talkhead.error_chain import causes
from talkhead.errors import TalkheadError

LIGHTNING_COMMANDS = {
    "fit": "train a stage: --config experiments/runs/10_reenactment.yaml --trainer.x … --model.x …",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split and write metrics.json",
    "predict": "write a stage's outputs for the prediction split",
}
COMMANDS = {
    "corpus": (
        "talkhead.commands.corpus",
        "write the embedded raw corpus: mp4 with sound, truth files",
    ),
    "prepare": (
        "talkhead.commands.prepare",
        "raw media to shards, index, splits and quality report",
    ),
    "data": ("talkhead.commands.data", "show and check a prepared set"),
    "ablate": (
        "talkhead.commands.ablate",
        "run a named set of variants, resume what is unfinished, report",
    ),
    "report": ("talkhead.commands.report", "metrics.json files to tables and plots"),
    "evaluate": (
        "talkhead.commands.evaluate",
        "score generated mp4 files against the real ones of the same names",
    ),
    "generate": ("talkhead.commands.generate", "portrait and speech to a talking video"),
    "doctor": (
        "talkhead.commands.doctor",
        "what this machine has, and what is missing for which command",
    ),
    "demo": ("talkhead.demo", "the whole pipeline in small size: corpus to table and video"),
}
USAGE_ERROR = 2
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> None:
    """Run one command; returns on success, else leaves through ``SystemExit`` with its code.

    Args:
        argv: Arguments after the program's name, ``sys.argv[1:]`` when None.

    Raises:
        SystemExit: 0 after help and version, 2 for usage errors and everything a user can cause,
            130 after an interrupt, or the command's own code.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(help_text())
        raise SystemExit(0 if args else USAGE_ERROR)
    if args[0] == "--version":
        print(f"talkhead {__version__}")
        raise SystemExit(0)
    try:
        code = dispatch(args)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:  # torch wraps a full disk into a RuntimeError
        message = readable(error, args)
        if message is None or os.environ.get("TALKHEAD_DEBUG") == "1":
            raise
        _fail(f"error: {message}", USAGE_ERROR)
    if code:
        raise SystemExit(code)


def dispatch(args: Sequence[str]) -> int:
    """Import and run the command named by the first argument; its exit code."""
    name, rest = args[0], list(args[1:])
    if name in LIGHTNING_COMMANDS:
        importlib.import_module("talkhead.cli").main(list(args))
        return 0
    if name in COMMANDS:
        return int(importlib.import_module(COMMANDS[name][0]).main(rest) or 0)
    close = difflib.get_close_matches(name, [*LIGHTNING_COMMANDS, *COMMANDS], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "see talkhead --help."
    _fail(f"error: unknown command '{name}'; {hint}", USAGE_ERROR)
    return USAGE_ERROR


def help_text() -> str:
    """Every command with one line each."""
    lines = ["usage: talkhead COMMAND [options]", "", "training and testing (LightningCLI):"]
    lines += [f"  {name:<10} {line}" for name, line in LIGHTNING_COMMANDS.items()]
    lines += ["", "data, reports and videos:"]
    lines += [f"  {name:<10} {line}" for name, (_, line) in COMMANDS.items()]
    lines += [
        "",
        "talkhead COMMAND --help lists a command's options; talkhead --version prints the version.",
        "TALKHEAD_DEBUG=1 shows tracebacks instead of one-line errors.",
    ]
    return "\n".join(lines)


def readable(error: BaseException, args: Sequence[str]) -> str | None:
    """The message for an error a user can cause or mend; None for anything else."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return _disk_full(cause, args)
    if isinstance(error, TalkheadError):
        return str(error)
    if isinstance(
        error,
        FileNotFoundError
        | FileExistsError
        | PermissionError
        | NotADirectoryError
        | IsADirectoryError,
    ):
        return f"{error.filename or 'a file'}: {error.strerror or error}; check the path and its rights."
    return None


def _disk_full(error: OSError, args: Sequence[str]) -> str:
    """Which disk is full, and how full."""
    place = Path(error.filename) if error.filename else _output_folder(args)
    while not place.exists() and place != place.parent:
        place = place.parent
    usage = shutil.disk_usage(place)
    return (
        f"no space left while writing to {error.filename or _output_folder(args)}: "
        f"{usage.free / 2**20:.0f} MiB free of {usage.total / 2**20:.0f} MiB now, with the unfinished "
        "file removed. Free some space or choose another folder; unfinished work resumes where it stopped."
    )


def _output_folder(args: Sequence[str]) -> Path:
    """The folder a command was asked to write to; errors of ``write()`` do not name their file."""
    for i, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if option in ("--out", "--trainer.default_root_dir"):
            if equals:
                return Path(value)
            if i + 1 < len(args):
                return Path(args[i + 1])
    return Path.cwd()


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
