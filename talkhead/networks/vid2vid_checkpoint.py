"""The published weights of face-vid2vid (unofficial, SPADE decoder), from a local file."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

from talkhead.errors import ConfigError
from talkhead.networks.fomm_checkpoint import renamed
from talkhead.networks.motion_extractor import MotionExtractor
from talkhead.networks.pretrained import fill, read_weights, tensors_of
from talkhead.networks.volume_renderer import VolumeRenderer

WHAT = "face-vid2vid with a SPADE decoder (ControlTalk's renderer, vox-256-beta)"
PARTS = ("kp_detector", "he_estimator", "generator")

DETECTOR_KEYS = (
    ("predictor.down_blocks.down", "detector.downs."),
    ("predictor.conv.", "detector.lift."),
    ("predictor.up_blocks.up", "detector.ups."),
    ("kp.", "detector.heat."),
    ("down.", "detector.down."),
)
"""Beginnings of names in the file's ``kp_detector`` and here."""
ESTIMATOR_KEYS = (
    ("conv1.", "estimator.conv."),
    ("norm1.", "estimator.norm."),
    *(
        pair
        for stage in range(4)
        for pair in (
            (f"conv{stage + 2}.", f"estimator.stages.{stage}.conv."),
            (f"norm{stage + 2}.", f"estimator.stages.{stage}.norm."),
        )
    ),
    ("block1.b1_", "estimator.stages.0.blocks."),
    ("block2.", "estimator.stages.1.blocks.0."),
    ("block4.", "estimator.stages.2.blocks.0."),
    ("block6.", "estimator.stages.3.blocks.0."),
    *(
        (f"block{block}.b{block}_{i}.", f"estimator.stages.{stage}.blocks.{i + 1}.")
        for stage, block, count in ((1, 3, 3), (2, 5, 5), (3, 7, 2))
        for i in range(count)
    ),
    # The file's layers for yaw and roll have each other's names: its yaw comes from fc_roll.
    ("fc_roll.", "estimator.angles.yaw."),
    ("fc_pitch.", "estimator.angles.pitch."),
    ("fc_yaw.", "estimator.angles.roll."),
    ("fc_t.", "estimator.translation."),
    ("fc_exp.", "estimator.expression."),
)
"""Likewise of ``he_estimator``."""
RENDERER_KEYS = (
    ("dense_motion_network.hourglass.encoder.down_blocks.", "motion.hourglass.encoder."),
    ("dense_motion_network.hourglass.decoder.up_blocks.", "motion.hourglass.decoder."),
    ("dense_motion_network.hourglass.decoder.", "motion.hourglass.mix."),
    ("dense_motion_network.", "motion."),
    ("first.", "first."),
    ("down_blocks.", "downs."),
    ("second.", "lift."),
    ("resblocks_3d.3dr", "residuals."),
    ("third.conv.", "flatten_conv."),
    ("third.norm.", "flatten_norm."),
    ("fourth.", "mix."),
    ("decoder.fc.", "decoder.first."),
    ("decoder.G_middle_", "decoder.middle."),
    ("decoder.up_", "decoder.ups."),
    ("decoder.conv_img.", "decoder.final."),
)
"""Likewise of ``generator``."""
SPADE_KEYS = (
    (".conv_0.", ".conv1."),
    (".conv_1.", ".conv2."),
    (".conv_s.", ".conv_skip."),
    (".norm_0.", ".norm1."),
    (".norm_1.", ".norm2."),
    (".norm_s.", ".norm_skip."),
    (".mlp_shared.0.", ".shared."),
    (".mlp_gamma.", ".gamma."),
    (".mlp_beta.", ".beta."),
    (".weight_orig", ".parametrizations.weight.original"),
    (".weight_u", ".parametrizations.weight.0._u"),
    (".weight_v", ".parametrizations.weight.0._v"),
)
"""What is called otherwise inside the decoder's blocks; the last three are torch's older spectral norm."""


def load_face_vid2vid(
    path: str, sha256: str | None = None, *, align_corners: bool = False
) -> tuple[MotionExtractor, VolumeRenderer]:
    """Extractor and renderer with published weights.

    ``kp_detector``, ``he_estimator`` and ``generator`` are read; discriminators and optimiser states of a
    file are left aside. Both networks remember the file's digest as ``provenance``, and the extractor that
    its angles are Hopenet's (:mod:`talkhead.geometry.head_angles`).

    Args:
        path: The file. Its decoder may have any number of middle blocks (two or six are in use).
        sha256: Digest it must have (a prefix of at least 8 digits is enough); None takes any, as its
            authors publish none.
        align_corners: How the renderer samples. The released code says False, although its keypoints live
            on a corner-aligned grid.

    Returns:
        Networks in training mode, with gradients, as any freshly built ones.

    Raises:
        ConfigError: The file is missing, has another digest, holds code, or is not of these networks.
    """
    loaded, digest = read_weights(path, sha256, WHAT)
    held = loaded if isinstance(loaded, dict) else {}
    missing = [name for name in PARTS if name not in held]
    if missing:
        offered = ", ".join(sorted(map(str, held)))[:200] or "nothing by name"
        raise ConfigError(
            f"{path}: expected the parts {', '.join(PARTS)} of {WHAT}, got {offered}; pass the file as its "
            "authors publish it."
        )
    detector, estimator, generator = (
        tensors_of(held[name], path, f"{name} of {WHAT}") for name in PARTS
    )
    if any(name.startswith("resblocks_2d.") for name in generator):
        raise ConfigError(
            f"{path}: expected a generator with a SPADE decoder, got one with plain residual blocks; pass "
            "ControlTalk's file, or face-vid2vid's of the SPADE variant."
        )
    provenance = f"file:{digest}"
    extractor = MotionExtractor(convention="hopenet", provenance=provenance)
    renderer = VolumeRenderer(
        middle_blocks=_middle_blocks(generator), align_corners=align_corners, provenance=provenance
    )
    fill(extractor, extractor_tensors(detector, estimator, path), path, f"motion of {WHAT}")
    fill(renderer, renderer_tensors(generator, path), path, f"generator of {WHAT}")
    return extractor, renderer


def extractor_tensors(
    detector: dict[str, Tensor], estimator: dict[str, Tensor], path: str
) -> dict[str, Tensor]:
    """Tensors of ``kp_detector`` and ``he_estimator`` under the names they have here.

    Raises:
        ConfigError: An entry that the network has no place for.
    """
    return renamed(detector, DETECTOR_KEYS, path, f"kp_detector of {WHAT}", WHAT) | renamed(
        estimator, ESTIMATOR_KEYS, path, f"he_estimator of {WHAT}", WHAT
    )


def renderer_tensors(generator: dict[str, Tensor], path: str) -> dict[str, Tensor]:
    """Tensors of ``generator`` under the names they have here.

    Raises:
        ConfigError: An entry that the network has no place for.
    """
    ours = {}
    found = renamed(generator, RENDERER_KEYS, path, f"generator of {WHAT}", WHAT)
    for name, tensor in found.items():
        if name.startswith(("decoder.middle.", "decoder.ups.")):
            for published, own in SPADE_KEYS:
                name = name.replace(published, own)
        ours[name] = tensor
    return ours


def _middle_blocks(names: Iterable[str]) -> int:
    """Number of middle blocks of the decoder."""
    found = (re.match(r"decoder\.G_middle_(\d+)\.", name) for name in names)
    return len({match[1] for match in found if match})
