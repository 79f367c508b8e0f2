"""Slow referees of the prior network: torch's own encoder, and a roll-out without a cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkhead.networks.prior import PriorNetwork
from talkhead.networks.transformer import PostNormBlock


def torch_layer(block: PostNormBlock, width: int, feedforward: int) -> nn.TransformerEncoderLayer:
    """torch's post-norm layer with the weights of ours."""
    layer = nn.TransformerEncoderLayer(
        width, block.heads, feedforward, 0.0, "gelu", batch_first=True, norm_first=False
    )
    first, last = block.feedforward[0], block.feedforward[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    names = {
        "self_attn.in_proj_weight": block.attention_in.weight,
        "self_attn.in_proj_bias": block.attention_in.bias,
        "self_attn.out_proj.weight": block.attention_out.weight,
        "self_attn.out_proj.bias": block.attention_out.bias,
        "linear1.weight": first.weight,
        "linear1.bias": first.bias,
        "linear2.weight": last.weight,
        "linear2.bias": last.bias,
        "norm1.weight": block.attention_norm.weight,
        "norm1.bias": block.attention_norm.bias,
        "norm2.weight": block.feedforward_norm.weight,
        "norm2.bias": block.feedforward_norm.bias,
    }
    layer.load_state_dict({k: v.detach().clone() for k, v in names.items()}, strict=True)
    return layer


@torch.no_grad()
def naive_roll_out(
    network: PriorNetwork,
    audio: Tensor,
    first: Tensor | None = None,
    codes: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """One full pass over the whole prefix for every frame."""
    rows, frames = audio.shape[:2]
    fed = torch.zeros(rows, 1, network.code_dim) if first is None else first[:, None]
    flags = torch.ones(rows, frames, dtype=torch.bool)
    flags[:, 0] = first is not None
    out = []
    for i in range(frames):
        answer = network(fed, None, audio[:, : i + 1], given=flags[:, : i + 1])[:, -1]
        if codes is not None and kept is not None:
            answer = torch.where(kept[:, i, None], codes[:, i], answer)
        out.append(answer)
        fed = torch.cat([fed, answer[:, None]], 1)
    return torch.stack(out, 1)
