"""Public weights from a local file: checked, tensors only, and never silently random."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError

RANDOM = "random"
"""Provenance of a network that no file was given for."""


def load_pretrained(
    module: nn.Module,
    path: str | None,
    sha256: str | None,
    what: str,
    *,
    ignore: Sequence[str] = (),
    strip: str = "",
) -> str:
    """Fill a backbone from a file of public weights, or say that it stays random.

    Args:
        module: Backbone whose parameter names are those of the file.
        path: File with a state dict; None leaves the module as it is.
        sha256: Expected SHA-256 of the file (a prefix of at least 8 digits is enough), None to
            accept any.
        what: Name of the network and of its usual file, for messages.
        ignore: Prefixes of entries in the file that this backbone has no place for, such as a
            classifier.
        strip: Prefix taken off the remaining entries.

    Returns:
        Provenance: ``"random"`` or ``"file:<sha256>"``.

    Raises:
        ConfigError: The file is missing, has another digest, holds code, or does not fit.
    """
    if path is None:
        if sha256 is not None:
            raise ConfigError(
                f"{what}: a digest was given without weights_path; give both or none."
            )
        return RANDOM
    loaded, digest = read_weights(path, sha256, what)
    nested = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    tensors = tensors_of(nested, path, what)
    kept = {k.removeprefix(strip): v for k, v in tensors.items() if not k.startswith(tuple(ignore))}
    fill(module, kept, path, what)
    return f"file:{digest}"


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: str, what: str) -> None:
    """Load tensors of a file into the network they are of.

    Args:
        module: Network whose state names are those of ``tensors``, all of them.
        tensors: Entries by name; only counters of batch norms may be missing.
        path: File they came from, for messages.
        what: Name of the network, for messages.

    Raises:
        ConfigError: A name or a shape does not fit.
    """
    own = module.state_dict()
    # Files from before BatchNorm counted its batches lack these counters, which carry no weights.
    counters = {
        k: v for k, v in own.items() if k.endswith("num_batches_tracked") and k not in tensors
    }
    try:
        module.load_state_dict({**tensors, **counters}, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(
            f"{path} does not fit {what}: {' '.join(lines[1:3])[:300]} Expected the weights of "
            "exactly this network; pass its file, or change the options to the published size."
        ) from error


def read_weights(path: str, sha256: str | None, what: str) -> tuple[object, str]:
    """What a file of weights holds, tensors and plain values only, and the file's digest.

    Args:
        path: File as ``torch.save`` writes it.
        sha256: Expected SHA-256 (a prefix of at least 8 digits is enough), None to accept any.
        what: Name of the network, for messages.

    Returns:
        The object, tensors on the CPU, and 64 hexadecimal digits.

    Raises:
        ConfigError: The file is missing, has another digest or holds code.
    """
    if not Path(path).is_file():
        raise ConfigError(
            f"expected the weights of {what} at {path}, found no file; download it once "
            "by hand and pass its path, or set weights_path to null to start from random weights."
        )
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and (len(sha256) < 8 or not digest.startswith(sha256.lower())):
        raise ConfigError(
            f"{path}: expected SHA-256 {sha256}, got {digest}; the file is damaged or another "
            f"version. Download {what} again or correct the digest (at least 8 digits)."
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{path} cannot be read as a file of tensors; it is truncated or holds code. "
            f"Expected a state dict of {what}."
        ) from error
    return loaded, digest


def tensors_of(loaded: object, path: str, what: str) -> dict[str, Tensor]:
    """A state dict read from a file, or an error that names the file.

    Raises:
        ConfigError: Anything but names to tensors.
    """
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ConfigError(f"{path}: expected a state dict of {what} (names to tensors).")
    return loaded
