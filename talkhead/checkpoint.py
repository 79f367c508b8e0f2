"""Hand-over of trained components from stage to stage; the only code that knows the checkpoint block.

A stage's checkpoint is an ordinary Lightning checkpoint with one more key, ``"talkhead"``::

    {"format": 1, "stage": "av_contrastive", "components": {name: {"class", "spec", "digest"}},
     "audio": {...}, "video": {...}, "data": {...}, "sources": {name: {"path", "stage", "digest"}},
     "batches_seen": 1200, "seed": 0}

The architecture of a component comes from the checkpoint, never from the next stage's YAML, and its
weights are the ``state_dict`` entries below ``"<name>."``.
"""

from __future__ import annotations

import importlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from talkhead.errors import StageLinkError
from talkhead.networks.component import Component, tensors_digest

BLOCK = "talkhead"
FORMAT = 1
Source = str | dict[str, Any]
M = TypeVar("M", bound=Component)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint file as a dictionary of tensors and plain values, on the CPU.

    Raises:
        StageLinkError: The file is missing, truncated, or holds anything but tensors and plain values.
    """
    file = Path(path)
    if not file.is_file():
        raise StageLinkError(
            f"expected a checkpoint, found no file at {file}; train the stage that writes it first, "
            "or correct the path."
        )
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise StageLinkError(
            f"{file} cannot be read as a checkpoint ({_first_line(error)}); it is truncated, corrupt or "
            "holds code. Use another checkpoint of that run or train the stage again."
        ) from error
    if not isinstance(loaded, dict) or "state_dict" not in loaded:
        raise StageLinkError(
            f"{file} holds no state_dict; expected a checkpoint written by talkhead fit."
        )
    return loaded


def read_block(checkpoint: Mapping[str, Any], where: str | os.PathLike[str]) -> dict[str, Any]:
    """The talkhead block of a loaded checkpoint.

    Raises:
        StageLinkError: No block, or a format this version does not know.
    """
    block = checkpoint.get(BLOCK)
    if not isinstance(block, dict):
        raise StageLinkError(
            f"{where} was not written by a talkhead stage; expected a '{BLOCK}' block."
        )
    if block.get("format") != FORMAT:
        raise StageLinkError(
            f"{where} has checkpoint format {block.get('format')}, this version reads {FORMAT}; "
            "see CHANGELOG for the version that wrote it, or train the stage again."
        )
    return block


def read_component(
    path: str | os.PathLike[str], name: str
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """One component's entry, weights and origin.

    Args:
        path: Checkpoint of an earlier stage.
        name: Component name, as in that stage's ``exports``.

    Returns:
        Entry ``{"class", "spec", "digest"}``, weights by parameter name, and
        ``{"path", "stage", "digest", "audio", "video"}``.

    Raises:
        StageLinkError: The checkpoint does not offer the component; the message lists what it offers.
    """
    checkpoint = read_checkpoint(path)
    block = read_block(checkpoint, path)
    offered = block["components"]
    if name not in offered:
        raise StageLinkError(
            f"{path} (stage {block['stage']}) offers {', '.join(sorted(offered)) or 'nothing'}; "
            f"expected it to hold '{name}'. Pass the checkpoint of a stage that exports it."
        )
    weights = _below(checkpoint["state_dict"], name)
    entry = offered[name]
    origin = {
        "path": str(path),
        "stage": block["stage"],
        "digest": entry["digest"],
        "audio": block["audio"],
        "video": block["video"],
    }
    return entry, weights, origin


def resolve(cls: type[M], source: Source, name: str) -> M:
    """A frozen component, in eval mode.

    Args:
        cls: Its class.
        source: Path of an earlier stage's checkpoint, or the flat spec kept in our own checkpoint (the
            weights then follow from our own ``state_dict``).
        name: Component name.

    Raises:
        StageLinkError: Missing file or component, another class, or weights that do not fit.
    """
    if isinstance(source, dict):
        module = cls(**source)
    else:
        entry, weights, origin = read_component(source, name)
        check_class(cls, entry["class"], f"{source}: '{name}'")
        module = cls(**entry["spec"])
        try:
            module.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise StageLinkError(
                f"{source}: the weights of '{name}' do not fit its spec ({_first_line(error)}); "
                "the file is damaged or was edited. Use another checkpoint."
            ) from error
        module.origin = origin
    return module.eval().requires_grad_(False)


def load_component(path: str | os.PathLike[str], name: str) -> Component:
    """A frozen component of whatever class the checkpoint names (a talkhead class only).

    Raises:
        StageLinkError: As :func:`resolve`, or the named class is not one of talkhead's components.
    """
    entry, _, _ = read_component(path, name)
    module_name, _, class_name = entry["class"].rpartition(".")
    if not module_name.startswith("talkhead."):
        raise StageLinkError(
            f"{path}: '{name}' names the class {entry['class']}, not one of talkhead's."
        )
    cls = getattr(importlib.import_module(module_name), class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise StageLinkError(
            f"{path}: '{name}' names {entry['class']}, which is no talkhead component."
        )
    return resolve(cls, str(path), name)


def check_class(cls: type[nn.Module], found: str, where: str) -> None:
    """Refuse a component of another class.

    Raises:
        StageLinkError: ``found`` is not ``cls``.
    """
    expected = class_path(cls)
    if found != expected:
        raise StageLinkError(
            f"{where} is a {found}, expected a {expected}; pass the right checkpoint."
        )


def class_path(cls: type) -> str:
    """Import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def component_entry(module: Component, name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a checkpoint records of a component besides its weights.

    Args:
        module: The component.
        name: Its name in the stage.
        state: The checkpoint's ``state_dict``; with weight averaging it holds other values than the
            living module.
    """
    return {
        "class": class_path(type(module)),
        "spec": dict(module.spec),
        "digest": tensors_digest(module.spec, _below(state, name) or module.state_dict()),
        "provenance": str(getattr(module, "provenance", "trained")),
    }


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries below ``"<name>."``, without that prefix."""
    prefix = f"{name}."
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:160]
