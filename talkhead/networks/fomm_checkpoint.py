"""The published weights of the First Order Motion Model, from a local file."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from talkhead.errors import ConfigError
from talkhead.networks.keypoint_detector import KeypointDetector
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.networks.pretrained import fill, read_weights, tensors_of

WHAT = "the First Order Motion Model (vox-adv-cpk.pth.tar or vox-cpk.pth.tar)"

DETECTOR_KEYS = (
    ("predictor.encoder.down_blocks.", "hourglass.encoder."),
    ("predictor.decoder.up_blocks.", "hourglass.decoder."),
    ("kp.", "heat."),
    ("jacobian.", "jacobian."),
    ("down.", "down."),
)
"""Beginnings of names in the file's ``kp_detector`` and here."""
RENDERER_KEYS = (
    ("dense_motion_network.hourglass.encoder.down_blocks.", "motion.hourglass.encoder."),
    ("dense_motion_network.hourglass.decoder.up_blocks.", "motion.hourglass.decoder."),
    ("dense_motion_network.mask.", "motion.mask."),
    ("dense_motion_network.occlusion.", "motion.occlusion."),
    ("dense_motion_network.down.", "down."),
    ("first.", "first."),
    ("down_blocks.", "downs."),
    ("bottleneck.r", "residuals."),
    ("up_blocks.", "ups."),
    ("final.", "final."),
)
"""Likewise of ``generator``. What follows the beginning is the same in both."""


def load_fomm(
    path: str, sha256: str | None = None, *, align_corners: bool = True
) -> tuple[KeypointDetector, KeypointRenderer]:
    """Detector and renderer with the published weights of vox-adv-256 or vox-256.

    Only ``kp_detector`` and ``generator`` are read; discriminators and optimiser states of a file are
    left aside. Both networks remember the file's digest as ``provenance``.

    Args:
        path: The file.
        sha256: Digest it must have (a prefix of at least 8 digits is enough); None takes any, as its
            authors publish none.
        align_corners: True renders as the weights were trained, on torch 1.0; False as the released
            code does on a torch since 1.3, whose sampling has another default.

    Returns:
        Networks in training mode, with gradients, as any freshly built ones.

    Raises:
        ConfigError: The file is missing, has another digest, holds code, or is not of these networks.
    """
    loaded, digest = read_weights(path, sha256, WHAT)
    parts = loaded if isinstance(loaded, dict) else {}
    missing = [name for name in ("kp_detector", "generator") if name not in parts]
    if missing:
        offered = ", ".join(sorted(map(str, parts)))[:200] or "nothing by name"
        raise ConfigError(
            f"{path}: expected the parts kp_detector and generator of {WHAT}, got {offered}; pass the "
            "file as its authors publish it."
        )
    provenance = f"file:{digest}"
    detector = KeypointDetector(provenance=provenance)
    renderer = KeypointRenderer(align_corners=align_corners, provenance=provenance)
    for part, module, keys in (
        ("kp_detector", detector, DETECTOR_KEYS),
        ("generator", renderer, RENDERER_KEYS),
    ):
        what = f"{part} of {WHAT}"
        fill(module, renamed(tensors_of(parts[part], path, what), keys, path, what), path, what)
    return detector, renderer


def renamed(
    tensors: dict[str, Tensor],
    keys: Sequence[tuple[str, str]],
    path: str,
    what: str,
    wanted: str = "vox-adv-256 or vox-256",
) -> dict[str, Tensor]:
    """Tensors of one part of a file under the names they have here.

    Args:
        tensors: Entries by their published names.
        keys: Beginnings of names there and here, such as :data:`DETECTOR_KEYS`; the first that fits counts.
        path: The file, for messages.
        what: What the part is, for messages.
        wanted: What the file should be of, for messages.

    Raises:
        ConfigError: An entry that the network has no place for.
    """
    ours = {}
    for name, tensor in tensors.items():
        found = [pair for pair in keys if name.startswith(pair[0])]
        if not found:
            raise ConfigError(
                f"{path} does not fit {what}: it holds {name}, which this network has no place for; "
                f"pass the file of {wanted}."
            )
        published, own = found[0]
        ours[own + name.removeprefix(published)] = tensor
    return ours
