from __future__ import annotations

import pytest

from talkhead.report.units import unit_of


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("av_offset_200ms[syncer]", "frames of 40 ms"),
        ("gt/av_offset_std_1600ms[syncer]", "frames of 320 ms"),
        ("rigid_offset_in_ms_800ms[rigid_syncer]", "ms"),
        ("av_confidence_400ms[syncer]", "≥ 0"),
        ("rigid_confidence_400ms[rigid_syncer]", "cosine"),
        ("shuffled/av_cosine_1600ms[syncer]", "cosine"),
        ("pair_accuracy_800ms", "share"),
        ("drift_0[keypoints]", "px at 256"),
        ("gt/drift_1200[keypoints]", "px at 256"),
        ("lmd_frontal[warped]", "px at 256"),
        ("lmd_mouth[inter_ocular]", "eye distances"),
        ("snd[deep3d]", "coefficients²"),
        ("unadapted/video_sync_offset[sync_expert]", "frames of 40 ms"),
        ("portrait_mouth_opening_alpha_0.25[retracked:renderer]", "eye distances"),
        ("video_outside_change_alpha_1", "0…2"),
        ("portrait_outside_edit", "0…2"),
        ("filmed/portrait_opening_follows[retracked:renderer]", "correlation"),
        ("loss_without_gan", ""),
        ("drift", ""),
    ],
)
def test_units(name: str, unit: str) -> None:
    assert unit_of(name) == unit
