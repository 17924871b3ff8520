"""The memory of batches that wait."""

from types import SimpleNamespace

import pandas as pd
import pytest
from clip_fakes import FakeClips, recipe

from xkd.data import loader, queue
from xkd.data.views import ClipViews, EvalViews, TrainViews
from xkd.modalities.base import clip_generator
from xkd.settings import Training


@pytest.fixture
def ten_clips(monkeypatch):
    store = FakeClips(10)
    rows = pd.DataFrame({"label": store.labels})
    monkeypatch.setattr(loader, "open_rows", lambda *_: store)
    monkeypatch.setattr(loader.manifest, "read_manifest", lambda _: SimpleNamespace(rows=rows))


@pytest.fixture
def shared_memory(monkeypatch):
    """Sets the free bytes of /dev/shm."""

    def of(free: float) -> None:
        monkeypatch.setattr(queue.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    return of


def training(workers: int, **choice) -> Training:
    return Training(batch_size=4, workers=workers, **choice)


def test_a_queue_never_exceeds_its_memory_and_wastes_no_worker():
    for asked in (1, 2, 8):
        for memory in range(0, 40):
            found = queue.bounded(asked, 1, memory)
            assert found.workers == min(asked, max(memory - 1, 0))
            assert found.batches <= max(memory, 1)
            assert found.ahead == 4 or not found.workers or found.batches + found.workers > memory
    assert queue.bounded(8, 1, 1e9) == (8, 4)


@pytest.mark.parametrize("augment", ["cpu", "device"])
@pytest.mark.parametrize("modalities", [("video", "audio"), ("audio",)])
def test_the_bytes_of_training_clips_are_known_in_advance(augment, modalities):
    asked = recipe(audio_local={"resized_crop": True}, training=training(0, augment=augment))
    views = TrainViews(asked, modalities)
    cuts = views.cut(views.open(FakeClips(1), [0]), [clip_generator(0, 0, "a")])
    made = cuts.views if views.on_device else views.finish(*cuts)
    assert queue.clip_bytes(views, asked.logmel) == bytes_of(made)


def test_the_bytes_of_several_clips_and_crops_are_known_in_advance():
    views = EvalViews(recipe({"frames": 4}, audio_global={"frames": 48}), clips=3, crops=2)
    made = views.batch(views.open(FakeClips(1, columns=60), [0]))
    assert [len(made[m]) for m in ("video", "audio")] == [6, 3]
    assert queue.clip_bytes(views, recipe().logmel) == bytes_of(made)


def test_the_bytes_of_samples_for_encoders_of_others_are_known_in_advance():
    peers = {"audio": {"adapter": "torchaudio"}}
    asked = recipe(audio_global={"frames": 48}, training=Training(mode="none", peers=peers))
    views = EvalViews(asked, ("audio",), clips=3)
    made = views.batch(views.open(FakeClips(1, columns=60), [0]))
    assert queue.clip_bytes(views, asked.logmel) == bytes_of(made)


def bytes_of(made: ClipViews) -> int:
    return sum(view.nbytes for views in made.values() for view in views)


def test_fewer_loader_processes_start_where_their_batches_do_not_fit(shared_memory, monkeypatch, capfd):
    shared_memory(1e12)
    assert queue.fitted(8, queue_gb=32, batch_bytes=5.6e9) == (4, 1)
    assert "4 of 8 loader processes start: a batch takes 5.6 GB, training.queue_gb is 32" in capfd.readouterr().err
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert queue.fitted(8, queue_gb=32, batch_bytes=5.6e9) == (1, 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    capfd.readouterr()
    queue.fitted(8, queue_gb=32, batch_bytes=5.6e9)
    assert capfd.readouterr().err == "", "one process speaks for all"


@pytest.mark.usefixtures("ten_clips")
def test_a_container_without_shared_memory_loads_in_the_training_process(shared_memory, monkeypatch, capfd):
    shared_memory(64e3)
    batches = list(loader.train_loader(recipe(training=training(2)), "m", seed=0))
    assert len(batches) == 2
    said = capfd.readouterr().err
    assert "0 of 2 loader processes start" in said
    assert "docker run --shm-size" in said
