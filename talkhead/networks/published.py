"""Networks whose first weights may come from a published file."""

from __future__ import annotations

from talkhead.networks.component import Component
from talkhead.networks.pretrained import RANDOM


class PublishedComponent(Component):
    """A component that remembers the file its first weights came from.

    A subclass has an argument ``provenance``, kept in its spec, and sets :attr:`provenance` to it:
    ``"random"``, ``"file:<sha256>"`` or ``"trained from file:<sha256>"``.
    """

    provenance: str = RANDOM

    def note_training(self) -> None:
        """Weights from a file are about to change: :attr:`provenance` says so from now on."""
        if self.provenance.startswith("file:"):
            self.provenance = f"trained from {self.provenance}"
            self.amend_spec(provenance=self.provenance)
