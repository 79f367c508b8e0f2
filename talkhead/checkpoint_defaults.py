"""What a checkpoint knows about its own configuration, merged below what the user typed.

LightningCLI lets the hyper-parameters in ``--ckpt_path`` override the command line
(Lightning-AI/pytorch-lightning issues 21455 and 21408) and cannot start without ``--model``. Here
the checkpoint supplies *defaults*: class and values come from it unless a config file or the
command line names others, so ``talkhead test --ckpt_path x.ckpt`` is complete and a typed value
always wins.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from talkhead.checkpoint import class_path, read_block, read_checkpoint
from talkhead.errors import StageLinkError
from talkhead.stages.base import Stage

SUBCOMMANDS = ("fit", "validate", "test", "predict")
LIGHTNING_KEYWORDS = ("best", "last", "hpc")
"""Words Lightning resolves itself once the trainer exists."""


@dataclass(frozen=True)
class CheckpointDefaults:
    """Configuration found in a checkpoint.

    Attributes:
        path: The checkpoint file.
        stage: Name of the stage that wrote it.
        model_class: Import path of the stage class, None when no known stage has that name.
        model_args: Its constructor arguments; consumed components are given by their specs.
        data: ``{"class_path", "init_args"}`` of the datamodule, None when it was not recorded.
        wandb_id: Id of the W&B run that wrote it, None without one.
    """

    path: str
    stage: str
    model_class: str | None
    model_args: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] | None = None
    wandb_id: str | None = None


def read_defaults(path: str) -> CheckpointDefaults:
    """Read a checkpoint's own configuration.

    Raises:
        StageLinkError: The file is missing, truncated, or was not written by a talkhead stage.
    """
    checkpoint = read_checkpoint(path)
    stage = str(read_block(checkpoint, path)["stage"])
    args = dict(checkpoint.get("hyper_parameters", {}))
    known = {class_path(cls): cls for cls in _all_stages(Stage)}
    recorded = args.get("_class_path")
    by_name = [name for name, cls in known.items() if cls.stage_name() == stage]
    model_class = recorded if recorded in known else (by_name[0] if len(by_name) == 1 else None)
    data = dict(checkpoint.get("datamodule_hyper_parameters", {}))
    data_class = data.get("_class_path")
    return CheckpointDefaults(
        path=str(path),
        stage=stage,
        model_class=model_class,
        model_args=_without_private(args),
        data={"class_path": data_class, "init_args": _without_private(data)}
        if data_class
        else None,
        wandb_id=checkpoint.get("callbacks", {}).get("RunManifest", {}).get("wandb_id"),
    )


def default_arguments(
    defaults: CheckpointDefaults, subcommand: str, data_class: str | None = None
) -> list[str]:
    """Command-line arguments that put the checkpoint's values below everything typed after them.

    Args:
        defaults: What the checkpoint knows.
        subcommand: A fit takes its data from the command line only.
        data_class: Import path of the datamodule used where the checkpoint recorded none.

    Returns:
        ``--model=…`` and ``--data=…``, to be put before the typed arguments.
    """
    arguments: list[str] = []
    if defaults.model_class is not None:
        model = {"class_path": defaults.model_class, "init_args": defaults.model_args}
        arguments.append(f"--model={json.dumps(model)}")
    data = defaults.data or ({"class_path": data_class} if data_class else None)
    if data is not None and subcommand != "fit":
        arguments.append(f"--data={json.dumps(data)}")
    return arguments


def typed_checkpoint(args: Sequence[str]) -> str | None:
    """The checkpoint named on the command line or in a config file; the last one counts.

    Raises:
        StageLinkError: The path names no file.
    """
    path: str | None = None
    for option, value in options(args):
        if option == "--ckpt_path":
            path = value
        elif option in ("--config", "-c"):
            path = load_yaml(value).get("ckpt_path") or path
    if path is None or path in (*LIGHTNING_KEYWORDS, "null", "") or path.startswith("registry"):
        return None
    if not Path(path).is_file():
        raise StageLinkError(
            f"--ckpt_path: expected a checkpoint file, found none at {path}; "
            f"correct the path, or use one of {', '.join(LIGHTNING_KEYWORDS)}."
        )
    return path


def check_stage(defaults: CheckpointDefaults, model_class: str) -> None:
    """Refuse a checkpoint of another stage than the one configured.

    Raises:
        StageLinkError: The checkpoint belongs to another stage.
    """
    if defaults.model_class is not None and defaults.model_class != model_class:
        raise StageLinkError(
            f"{defaults.path} was written by stage {defaults.stage} ({defaults.model_class}), but the "
            f"configuration names {model_class}; pass a checkpoint of that stage, or leave --model out "
            "to take the class from the checkpoint."
        )


def differences(
    used: Mapping[str, Any], defaults: CheckpointDefaults
) -> list[tuple[str, Any, Any]]:
    """Arguments whose used value is not the checkpoint's: ``(name, checkpoint's, used)``."""
    return [
        (name, defaults.model_args[name], used[name])
        for name in sorted(set(used) & set(defaults.model_args))
        if used[name] != defaults.model_args[name]
    ]


def difference_table(rows: Sequence[tuple[str, Any, Any]], path: str) -> str:
    """The differences as lines of text."""
    width = max(len(name) for name, _, _ in rows)
    lines = [f"differs from checkpoint {path}:"]
    return "\n".join(lines + [f"  {n:<{width}}  {old!r} -> {new!r} (used)" for n, old, new in rows])


def options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Long options with their values, written as ``--a=b`` or ``--a b``."""
    for i, arg in enumerate(args):
        if not arg.startswith("-"):
            continue
        option, equals, value = arg.partition("=")
        if equals:
            yield option, value
        elif i + 1 < len(args):
            yield option, args[i + 1]


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A YAML file's mapping; empty when it cannot be read, since the parser reports that better."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _all_stages(cls: type[Stage]) -> Iterator[type[Stage]]:
    """Every imported subclass of a stage class."""
    for sub in cls.__subclasses__():
        yield sub
        yield from _all_stages(sub)


def _without_private(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if not name.startswith("_")}
