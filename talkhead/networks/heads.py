"""Small heads that turn motion and audio features into contrastive, non-lip and lip codes.

Source: paper 1, supplement I.2 gives sizes only (512x512, 512->42, 512->470; 42 + 470 = 512); the
layers are PC-AVS' embedding layers (reference-facts 3.1).
"""

from __future__ import annotations

from torch import Tensor, nn

from talkhead.networks.component import Component


class ContrastiveHead(Component):
    """MLP_cl: motion code ``f_v`` to the space shared with the sound, ``f_cl``."""

    def __init__(self, dim: int = 512, out_dim: int = 512, hidden: int = 512) -> None:
        """Linear, ReLU, linear.

        Args:
            dim: Size of ``f_v``.
            out_dim: Size of ``f_cl``, that of the audio feature.
            hidden: Width between the two layers.
        """
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out_dim))

    def forward(self, f_v: Tensor) -> Tensor:
        """``(n, dim)`` to ``(n, out_dim)``."""
        out: Tensor = self.mlp(f_v)
        return out


class NonLipHead(Component):
    """MLP_ol and MLP_nl: motion code ``f_v`` to ``f_ol`` (for the orthogonal loss) to ``f_nl``."""

    def __init__(self, dim: int = 512, code_dim: int = 42, hidden: int = 512) -> None:
        """MLP_ol is linear, ReLU, linear; MLP_nl is ReLU, linear.

        Args:
            dim: Size of ``f_v`` and of ``f_ol``.
            code_dim: Size of ``f_nl``.
            hidden: Width inside MLP_ol.
        """
        super().__init__()
        self.mlp_ol = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.mlp_nl = nn.Sequential(nn.ReLU(), nn.Linear(dim, code_dim))

    def orthogonal(self, f_v: Tensor) -> Tensor:
        """``f_ol`` of motion codes: ``(n, dim)`` to ``(n, dim)``."""
        out: Tensor = self.mlp_ol(f_v)
        return out

    def compress(self, f_ol: Tensor) -> Tensor:
        """``f_nl`` of the output of :meth:`orthogonal`: ``(n, dim)`` to ``(n, code_dim)``."""
        out: Tensor = self.mlp_nl(f_ol)
        return out

    def forward(self, f_v: Tensor) -> Tensor:
        """``f_nl`` of motion codes: ``(n, dim)`` to ``(n, code_dim)``."""
        return self.compress(self.orthogonal(f_v))


class LipHead(Component):
    """MLP_a2l: audio feature ``f_a`` (or ``f_cl``, of the same space) to the lip code ``f_l``."""

    def __init__(self, dim: int = 512, code_dim: int = 470) -> None:
        """ReLU, linear.

        Args:
            dim: Size of ``f_a``.
            code_dim: Size of ``f_l``.
        """
        super().__init__()
        self.mlp = nn.Sequential(nn.ReLU(), nn.Linear(dim, code_dim))

    def forward(self, f_a: Tensor) -> Tensor:
        """``(n, dim)`` to ``(n, code_dim)``."""
        out: Tensor = self.mlp(f_a)
        return out
