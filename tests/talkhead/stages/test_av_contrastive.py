import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.batch import WindowBatch
from talkhead.networks.batch_norm import share_batch_norm
from talkhead.stages.av_contrastive import AVContrastiveStage
from tests.ranks import run_ranks

VIDEOS, WINDOWS = 2, 4
AUDIO = {"dim": 16, "widths": [4, 4, 8, 8], "counts": [1, 1, 1, 1], "attention_dim": 8}
MOTION = {"dim": 24, "width_mult": 0.1}
HEAD = {"dim": 24, "out_dim": 16, "hidden": 16}


def stage(**options: Any) -> AVContrastiveStage:
    torch.manual_seed(0)
    made = AVContrastiveStage(
        motion_encoder=dict(MOTION),
        image_size=32,
        windows=WINDOWS,
        audio_encoder=dict(AUDIO),
        contrastive_head=dict(HEAD),
        **options,
    )
    return made.double().train()


def batch(rows: slice = slice(None)) -> WindowBatch:
    random = torch.Generator().manual_seed(1)
    shape = (2 * VIDEOS, WINDOWS)
    frames = torch.randint(0, 256, (*shape, 3, 32, 32), dtype=torch.uint8, generator=random)
    return WindowBatch(
        frames=frames[rows],
        mel=torch.rand(*shape, 1, 80, 20, generator=random).double()[rows],
        frame_index=torch.arange(WINDOWS).expand(shape)[rows],
        identity=frames[rows, :0],
        landmarks=torch.zeros(*shape, 478, 3)[rows],
    )


def loss_and_gradients(part: AVContrastiveStage, data: WindowBatch) -> dict[str, Tensor]:
    part.motion_encoder.float()  # pictures become float32
    part.contrastive_head.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    loss = part.losses(data)["contrastive"]
    loss.backward()
    grads = {n: p.grad.clone() for n, p in part.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **grads}


def one_rank(rank: int, ranks: int, negatives: str) -> dict[str, Tensor]:
    part = stage(negatives=negatives)
    share_batch_norm(part.audio_encoder)
    return loss_and_gradients(part, batch(slice(rank * VIDEOS, (rank + 1) * VIDEOS)))


def within_video(rank: int, ranks: int) -> dict[str, Tensor]:
    return one_rank(rank, ranks, "video")


def within_batch(rank: int, ranks: int) -> dict[str, Tensor]:
    return one_rank(rank, ranks, "batch")


@pytest.mark.parametrize(("work", "negatives"), [(within_video, "video"), (within_batch, "batch")])
def test_two_ranks_have_the_loss_and_gradients_of_one_doubled_batch(
    tmp_path: Path, work: Any, negatives: str
) -> None:
    parts = run_ranks(work, tmp_path)
    whole = loss_and_gradients(stage(negatives=negatives), batch())
    assert any(float(v.abs().max()) > 1e-6 for k, v in whole.items() if "audio_encoder" in k)
    for name, value in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean(0)  # what DDP leaves on each rank
        torch.testing.assert_close(mean, value, rtol=1e-6, atol=1e-9, msg=name)


def test_chance_is_the_logarithm_of_the_number_of_windows() -> None:
    made = stage(temperature=False)
    with torch.no_grad():
        for parameter in made.audio_encoder.parameters():
            parameter.zero_()
    loss = float(made.double().info_nce(torch.ones(1, 4, 16), torch.ones(1, 4, 16)))
    assert loss == pytest.approx(math.log(4))


def test_only_the_audio_side_and_the_head_learn_by_default() -> None:
    trained = {n.split(".")[0] for n, p in stage().named_parameters() if p.requires_grad}
    assert trained == {"audio_encoder", "contrastive_head", "info_nce"}
    tuned = {
        n.split(".")[0]
        for n, p in stage(train_motion_encoder=True).named_parameters()
        if p.requires_grad
    }
    assert "motion_encoder" in tuned
