"""The adapter of ControlTalk: one linear layer from expression and speech to a change of expression."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component

KEYPOINTS = 15
"""Implicit 3-D keypoints of the renderer."""
AUDIO_DIM = 1024
"""Width of the lip-sync expert's audio embedding."""
FULL_SIZE = KEYPOINTS * 3 * (KEYPOINTS * 3 + AUDIO_DIM) + KEYPOINTS * 3
"""Numbers that learn in the published size: 48 150."""


class Audio2Exp(Component):
    r"""``delta = W [exp, a] + b`` with ``W = 0`` and ``b = 0`` at the start (the zero module).

    The audio embedding ``a`` comes from the frozen audio branch of the lip-sync expert; this layer is all
    that ControlTalk trains. Starting from zero, the first edited expression is the expression itself.

    Source: ControlTalk section 3.2, equations 2 and 3; reference-facts 7.4. Deviates: the released code
        flattens the expression coordinate by coordinate and the change point by point; here both go point
        by point, which a free linear layer cannot tell apart.
    """

    def __init__(
        self, keypoints: int = KEYPOINTS, audio_dim: int = AUDIO_DIM, zero_module: bool = True
    ) -> None:
        """Build the layer.

        Args:
            keypoints: Number of 3-D keypoints.
            audio_dim: Width of the audio embedding.
            zero_module: Start at zero; off, the layer starts as any other linear layer (the ablation
                "without zero module").

        Raises:
            ConfigError: A size below 1.
        """
        super().__init__()
        if keypoints < 1 or audio_dim < 1:
            raise ConfigError(
                f"audio2exp: expected at least 1 keypoint and 1 audio number, got {keypoints} and "
                f"{audio_dim}."
            )
        self.keypoints, self.audio_dim = keypoints, audio_dim
        self.linear = nn.Linear(3 * keypoints + audio_dim, 3 * keypoints)
        if zero_module:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, expression: Tensor, audio: Tensor) -> Tensor:
        """How speech changes an expression.

        Args:
            expression: Offsets of the keypoints ``(n, K, 3)``.
            audio: Embeddings ``(n, A)`` of the speech around each frame.

        Returns:
            Change of the expression, ``(n, K, 3)``.

        Raises:
            ShapeError: Other shapes.
        """
        wanted = ((len(expression), self.keypoints, 3), (len(expression), self.audio_dim))
        if (tuple(expression.shape), tuple(audio.shape)) != wanted:
            raise ShapeError(
                f"expected expression (n, {self.keypoints}, 3) and audio (n, {self.audio_dim}), got "
                f"{tuple(expression.shape)} and {tuple(audio.shape)}; flatten clips first and take both "
                "from the renderer and expert that the adapter was trained with."
            )
        delta: Tensor = self.linear(torch.cat([expression.flatten(1), audio], dim=1))
        return delta.view_as(expression)

    def edited(
        self,
        expression: Tensor,
        audio: Tensor,
        alpha: float,
        *,
        silence: Tensor | None = None,
        silence_alpha: float | Tensor = 1.0,
    ) -> Tensor:
        r"""Expression as speech has it: ``exp' = exp + alpha delta(exp, a)``.

        With ``silence``, the layer first hears silence, which takes the mouth to rest, and then the speech
        on what came of it: ``exp_0 = exp + alpha_0 delta(exp, a_silence)``,
        ``exp' = exp_0 + alpha delta(exp_0, a)``.

        Args:
            expression: ``(n, K, 3)``, not changed.
            audio: ``(n, A)``.
            alpha: How far the mouth opens; 0 leaves the (silenced) expression as it is.
            silence: Embedding of silence, ``(A,)`` or ``(n, A)``; None leaves that pass out.
            silence_alpha: ``alpha_0``, a number, or one for each row ``(n,)``.

        Returns:
            ``(n, K, 3)``.

        Raises:
            ShapeError: As :meth:`forward`.

        Source: ControlTalk equation 3 and figure 2; reference-facts 7.5.
        """
        if silence is not None:
            quiet = self(expression, silence.expand(len(expression), -1))
            scale = torch.as_tensor(silence_alpha, dtype=quiet.dtype, device=quiet.device)
            expression = expression + scale.reshape(-1, 1, 1) * quiet
        made: Tensor = expression + alpha * self(expression, audio)
        return made
