"""The order in which a GPU is given copies, augmentation and the work that waits for them; there need not be one."""

from contextlib import contextmanager

import torch

from xkd.data.feed import Feed
from xkd.data.loader import Batch


class Stream:
    device = "cpu"

    def __init__(self, events: list[str], name: str):
        self.events, self.name = events, name

    def wait_stream(self, other):
        self.events.append(f"{self.name} waits for {other.name}")


def test_a_gpu_copies_and_augments_beside_the_step(monkeypatch):
    events = []

    @contextmanager
    def on(stream):
        events.append(f"on {stream.name}")
        yield
        events.append("off")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: Stream(events, "copies"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(events, "steps"))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: events.append(f"kept for {stream.name}"))

    def finish(batch):
        events.append("augmented")
        return batch

    feed = Feed(finish)
    batch = feed(Batch(["a"], torch.zeros(1), {"video": [torch.zeros(1), torch.ones(1)], "audio": [torch.ones(1)]}))
    assert batch.ids == ["a"]
    assert events == ["on copies", "augmented", "off", "steps waits for copies", *["kept for steps"] * 4]
