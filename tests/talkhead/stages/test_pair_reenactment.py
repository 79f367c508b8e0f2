"""What the base adds by itself; the rest is tested with the stages that stand on it."""

from __future__ import annotations

from typing import Any

from talkhead.networks.keypoint_picture_discriminator import KeypointPictureDiscriminator
from talkhead.stages.pair_reenactment import forget_file


def test_a_published_file_is_forgotten_for_the_specs_of_what_it_filled() -> None:
    part = KeypointPictureDiscriminator(keypoints=0, width=4, blocks=2)
    saved: dict[str, Any] = {"x_weights": "file.pth", "x_sha256": "0123", "part": None, "lr": 1.0}
    forget_file(saved, "x", {"part": part})
    assert saved == {"x_weights": None, "x_sha256": None, "part": part.spec, "lr": 1.0}


def test_without_a_file_nothing_changes() -> None:
    saved: dict[str, Any] = {"x_weights": None, "part": {"width": 4}}
    forget_file(saved, "x", {"part": KeypointPictureDiscriminator(keypoints=0)})
    assert saved == {"x_weights": None, "part": {"width": 4}}
