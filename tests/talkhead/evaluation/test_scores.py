from __future__ import annotations

import math

import pytest
import torch

from talkhead.evaluation.measure import Side
from talkhead.evaluation.scores import (
    Pooled,
    cut,
    halves,
    rigid_sync,
    scores_against,
    scores_alone,
    scores_floor,
    scores_shuffled,
    sync,
)
from talkhead.evaluation.spaces import FaceModelSpace, MeshSpace
from talkhead.geometry.points68 import MESH_INDEX
from talkhead.metrics.fid_fm import fid_fm
from tests.oracles.frechet import frechet_sqrtm
from tests.talkhead.evaluation.faces import side

CLIPS = {f"clip{i}": side(60 + 10 * i, seed=i) for i in range(3)}
SPACE = MeshSpace.of_clips(list(CLIPS), CLIPS.__getitem__)
SPACES = [SPACE]


def test_a_clip_against_itself() -> None:
    scores = scores_against(CLIPS["clip0"], CLIPS["clip0"], SPACES)
    perfect = dict.fromkeys(scores, 0.0) | {"csim[who]": 1.0}
    assert scores == pytest.approx(perfect, abs=1e-6)
    assert len(scores) == 17


def test_descriptors_of_the_fitted_clips_are_standardised() -> None:
    rows = torch.cat([SPACE.encode(clip) for clip in CLIPS.values()]).double()
    mean, std = SPACE.standard
    torch.testing.assert_close(rows.mean(0), mean)
    torch.testing.assert_close(rows.std(0), std)
    assert SPACE.source == "fitted on these 3 real clips"


def test_a_mouth_pushed_down_costs_its_way_in_pixels_at_256() -> None:
    real = CLIPS["clip0"]
    ours = Side(real.landmarks.clone(), real.tracked, real.silent)
    moved = sorted(set(MESH_INDEX[48:58]))  # half of the 20 mouth points, which others do not share
    ours.landmarks[:, moved, 1] += 0.01
    scores = scores_against(ours, real, SPACES)
    # Off their common mean all 20 points are 0.005 crop widths away.
    assert scores["lmd_mouth[px256]"] == pytest.approx(256 * 0.005, rel=1e-4)
    assert scores["blink_distance"] == 0.0
    assert scores["mouth_distance"] > 0.0


def test_readings_are_compared_frame_by_frame_where_both_faces_are_seen() -> None:
    real = CLIPS["clip0"]
    ours = Side(real.landmarks, real.tracked.clone(), real.silent)
    ours.readings["gaze"] = real.readings["gaze"] + torch.tensor([0.0, 0.5, 0.3, -0.4])
    ours.tracked[50:] = False
    ours.readings["gaze"][50:] = math.nan
    scores = scores_against(ours, real, SPACES)
    assert scores["gaze_reading_distance[gaze]"] == pytest.approx(0.5)
    assert scores["lid_reading_distance[gaze]"] == pytest.approx(0.5)
    longer = scores_against(CLIPS["clip1"], real, SPACES)
    apart = CLIPS["clip1"].readings["gaze"][:60] - real.readings["gaze"]
    by_hand = apart[:, 2:].double().norm(dim=-1).mean().item()
    assert longer["gaze_reading_distance[gaze]"] == pytest.approx(by_hand, rel=1e-6)
    assert not any("reading" in name for name in scores_against(cut(ours, 0, 60), real, SPACES))


def test_lost_frames_do_not_count() -> None:
    real = CLIPS["clip0"]
    noise = 0.003 * torch.randn(real.landmarks.shape, generator=torch.Generator().manual_seed(5))
    ours = Side(real.landmarks + noise, real.tracked.clone(), real.silent)
    ours.tracked[50:] = False
    ours.landmarks[50:] += 0.4 * torch.rand(10, 478, 3)
    kept = [
        scores_against(cut(ours, 0, 50), cut(real, 0, 50), SPACES),
        {k: v for k, v in scores_against(ours, real, SPACES).items() if "csim" not in k},
    ]
    frame_by_frame = [
        k for k in kept[0] if "fid" not in k and "snd" not in k and "expression" not in k
    ]
    assert {k: kept[1][k] for k in frame_by_frame} == pytest.approx(
        {k: kept[0][k] for k in frame_by_frame}, rel=1e-6
    )
    assert scores_alone(ours, SPACES)["found"] == pytest.approx(50 / 60)


def test_a_clip_hardly_tracked_has_no_scores_but_its_share() -> None:
    lost = Side(CLIPS["clip0"].landmarks, torch.arange(60) < 5, None)
    alone = scores_alone(lost, SPACES)
    assert alone.pop("found") == pytest.approx(5 / 60)
    assert all(math.isnan(value) for value in alone.values())
    assert scores_against(lost, CLIPS["clip0"], SPACES) == {}


def test_silence_is_heard_and_short_clips_have_no_sync() -> None:
    clip = CLIPS["clip0"]
    assert scores_alone(clip, SPACES)["silence_motion"] > 0
    deaf = Side(clip.landmarks, clip.tracked, None)
    assert math.isnan(scores_alone(deaf, SPACES)["silence_motion"])
    short = sync(torch.zeros(24, 3), torch.zeros(24, 3), "judge")
    assert len(short) == 4
    assert all(math.isnan(value) for value in short.values())


def test_sync_finds_a_known_shift_with_its_sign() -> None:
    visual = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    late = torch.cat([torch.zeros(3, 8), visual])[:80]  # sound comes three frames late
    scores = sync(visual, late, "judge")
    assert scores["sync_signed_offset[judge]"] == -3.0
    assert scores["sync_offset[judge]"] == 3.0
    assert scores["sync_confidence[judge]"] > 0.5


def test_rigid_sync_finds_a_known_shift_in_either_direction() -> None:
    points = torch.randn(2, 76, 8, generator=torch.Generator().manual_seed(0))
    audio = points.clone()
    audio[0] = points[0].roll(3, 0)
    audio[1] = points[1].roll(-5, 0)
    scores = rigid_sync({"200": points}, {"200": audio})
    assert scores["rigid_offset_200ms[rigid_syncer]"] == 4.0  # of 3 late and 5 early
    assert scores["rigid_confidence_200ms[rigid_syncer]"] > 0.5
    assert rigid_sync({}, {}) == {}


def test_another_clip_in_its_place_is_worse_than_itself() -> None:
    scores = scores_shuffled(CLIPS["clip0"], CLIPS["clip2"], SPACES)
    assert scores["lmd_mouth[px256]"] > 0
    assert scores["csim[who]"] < 0.9
    right = scores_alone(CLIPS["clip0"], SPACES)
    assert scores["sync_confidence[judge]"] < 0.5 * right["sync_confidence[judge]"]
    assert right["sync_offset[judge]"] == right["rigid_offset_200ms[rigid_syncer]"] == 0.0
    name = "rigid_confidence_200ms[rigid_syncer]"
    assert scores[name] < 0.5 * right[name]


def test_the_floor_compares_halves() -> None:
    clip = CLIPS["clip1"]
    scores = scores_floor(clip, SPACES)
    motion = SPACE.encode(clip)
    expected = float(fid_fm(motion[:35], motion[35:], standard=SPACE.standard))
    assert scores["fid_fm[descriptor]"] == pytest.approx(expected)
    assert scores["snd[descriptor]"] == pytest.approx(
        scores["fid_fm[descriptor]"] + scores["fid_dfm[descriptor]"]
    )
    rows = clip.identity["who"].double()
    alike = torch.nn.functional.cosine_similarity(rows[:35], rows[35:]).mean()
    assert scores["csim[who]"] == pytest.approx(float(alike))
    second, first = halves(clip)
    assert torch.equal(second.landmarks, clip.landmarks[35:])
    assert torch.equal(first.inception["inception"], clip.inception["inception"][:35])


def test_pooled_distances_by_scipy_in_any_order() -> None:
    found = []
    for order in ([0, 1], [1, 0]):
        pooled = Pooled(SPACES)
        pairs = [(CLIPS["clip0"], CLIPS["clip1"]), (CLIPS["clip1"], CLIPS["clip2"])]
        for i in order:
            pooled.add(*pairs[i])
        found.append(pooled.compute())
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    ours = torch.cat([CLIPS[n].inception["inception"] for n in ("clip0", "clip1")])
    theirs = torch.cat([CLIPS[n].inception["inception"] for n in ("clip1", "clip2")])
    expected = frechet_sqrtm(ours.double().numpy(), theirs.double().numpy())
    assert found[0]["fid[inception]"] == pytest.approx(expected, rel=1e-6)
    people = [
        torch.cat([CLIPS[n].identity["who"] for n in names]).double().numpy()
        for names in (("clip0", "clip1"), ("clip1", "clip2"))
    ]
    assert found[0]["frechet[who]"] == pytest.approx(frechet_sqrtm(*people), rel=1e-6)
    assert "fid[who]" not in found[0]
    motion = [
        torch.cat(
            [
                (SPACE.encode(CLIPS[n]).double() - SPACE.standard[0]) / SPACE.standard[1]
                for n in names
            ]
        )
        for names in (("clip0", "clip1"), ("clip1", "clip2"))
    ]
    expected = frechet_sqrtm(motion[0].numpy(), motion[1].numpy())
    assert found[0]["fid_fm_pooled[descriptor]"] == pytest.approx(expected, rel=1e-3)
    assert found[0]["snd_pooled[descriptor]"] == pytest.approx(
        found[0]["fid_fm_pooled[descriptor]"] + found[0]["fid_dfm_pooled[descriptor]"]
    )


def with_track(frames: int, seed: int, base: Side | None = None) -> Side:
    """A clip with 3 angles and 64 expression coefficients a frame."""
    clip = base or side(frames, seed=seed)
    clip.coefficients = torch.randn(frames, 67, generator=torch.Generator().manual_seed(100 + seed))
    return clip


def test_face_model_coefficients_are_scored_as_they_come() -> None:
    real, ours = with_track(90, seed=0), with_track(90, seed=1)
    assert real.coefficients is not None
    assert ours.coefficients is not None
    ours.tracked[:80] = False  # the mesh lost the face; the face model did not
    spaces = [FaceModelSpace()]
    x, y = ours.coefficients.double(), real.coefficients.double()
    alone = scores_alone(ours, spaces)
    assert alone["var[deep3d]"] == pytest.approx(x.var(0).mean().item())
    scores = scores_against(ours, real, spaces)
    angles, expression = (x - y)[:, :3], (x - y)[:, 3:]
    assert scores["pose_distance[deep3d]"] == pytest.approx(angles.norm(dim=1).mean().item())
    expected = expression.norm(dim=1).mean().item()
    assert scores["expression_distance[deep3d]"] == pytest.approx(expected)
    still = frechet_sqrtm(x.numpy(), y.numpy())
    moving = frechet_sqrtm(x.diff(dim=0).numpy(), y.diff(dim=0).numpy())
    assert scores["fid_fm[deep3d]"] == pytest.approx(still, rel=1e-5)
    assert scores["fid_dfm[deep3d]"] == pytest.approx(moving, rel=1e-5)
    assert scores["snd[deep3d]"] == pytest.approx(still + moving, rel=1e-5)
    pooled = Pooled(spaces)
    pooled.add(ours, real)
    assert pooled.compute()["fid_fm_pooled[deep3d]"] == pytest.approx(still, rel=1e-5)
    halved = frechet_sqrtm(y[:45].numpy(), y[45:].numpy())
    assert scores_floor(real, spaces)["fid_fm[deep3d]"] == pytest.approx(halved, rel=1e-4)
    second, _ = halves(real)
    assert second.coefficients is not None
    assert torch.equal(second.coefficients, real.coefficients[45:])


def test_a_clip_against_itself_in_the_face_model() -> None:
    clip = with_track(90, seed=2)
    scores = scores_against(clip, clip, [FaceModelSpace()])
    ours = {name: value for name, value in scores.items() if "[deep3d]" in name}
    assert len(ours) == 5
    assert ours == pytest.approx(dict.fromkeys(ours, 0.0), abs=1e-6)


def test_without_a_track_on_either_side_the_face_model_says_nothing() -> None:
    spaces, plain = [FaceModelSpace()], side(60, seed=5)
    tracked = with_track(60, seed=3)
    assert not any("deep3d" in name for name in scores_alone(plain, spaces))
    for pair in ((plain, tracked), (tracked, plain)):
        assert not any("deep3d" in name for name in scores_against(*pair, spaces))
    assert not any("deep3d" in name for name in scores_floor(plain, spaces))
    pooled = Pooled(spaces)
    pooled.add(plain, tracked)
    assert not any("deep3d" in name for name in pooled.compute())
