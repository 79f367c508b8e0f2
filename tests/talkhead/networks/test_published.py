from __future__ import annotations

from talkhead.networks.published import PublishedComponent


class Part(PublishedComponent):
    def __init__(self, provenance: str = "random") -> None:
        super().__init__()
        self.provenance = provenance


def test_training_is_noted_once_and_only_of_files() -> None:
    part = Part("file:0123")
    for _ in range(2):
        part.note_training()
        assert part.provenance == "trained from file:0123"
        assert part.spec == {"provenance": "trained from file:0123"}
    fresh = Part()
    fresh.note_training()
    assert fresh.spec == {"provenance": "random"}
