import itertools
import multiprocessing
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from clip_fakes import FakeClips, Texts, recipe

from xkd.data import loader, order
from xkd.errors import UserError
from xkd.modalities import colours
from xkd.recipe import Recipe
from xkd.settings import Training


@pytest.fixture(autouse=True)
def clips(monkeypatch):
    """Ten clips; the manifest knows one label that the opened split does not hold, and is read once for each loader."""
    store = FakeClips(10)
    rows = pd.DataFrame({"label": [*store.labels, "3"]})
    monkeypatch.setattr(loader, "open_rows", lambda whole, split, fold: store if split != "empty" else FakeClips(0))
    monkeypatch.setattr(loader.manifest, "read_manifest", lambda path: SimpleNamespace(rows=rows))
    return store


def augmented(workers: int = 0, batch_size: int = 4, augment: str = "cpu") -> Recipe:
    return recipe(
        {"jitter": (0.4, 0.4, 0, 0)},
        audio_global={"volume": 0.2},
        training=Training(batch_size=batch_size, workers=workers, augment=augment),
    )


def by_clip(batches) -> dict[str, list[torch.Tensor]]:
    return {clip: [view[i] for view in all_views(batch)] for batch in batches for i, clip in enumerate(batch.ids)}


def all_views(batch) -> list[torch.Tensor]:
    return [view for views in batch.views.values() for view in views]


def assert_same_views(one: dict, other: dict, atol: float = 0) -> None:
    common = one.keys() & other.keys()
    assert common
    for clip in common:
        for a, b in zip(one[clip], other[clip], strict=True):
            torch.testing.assert_close(a, b, atol=atol, rtol=0)


def test_batches_are_stacked_with_their_labels(clips):
    batches = list(loader.train_loader(augmented(), "m", seed=0))
    assert len(batches) == len(loader.train_loader(augmented(), "m", seed=0)) == 2
    for batch in batches:
        assert [tuple(view.shape) for view in batch.views["video"]] == [(4, 3, 8, 32, 32), (4, 3, 2, 24, 24)]
        assert [tuple(view.shape) for view in batch.views["audio"]] == [(4, 1, 40, 96), (4, 1, 40, 24)]
        assert all(view.is_contiguous() for view in all_views(batch))
        assert batch.labels.tolist() == [int(clips.labels[clips.ids.index(clip)]) for clip in batch.ids]


def test_classes_are_the_sorted_labels_of_the_whole_manifest():
    assert loader.train_loader(augmented(), "m", seed=0).classes == ["0", "1", "2", "3"]


def test_clips_of_several_labels_have_a_number_for_each_class(clips, monkeypatch):
    clips.labels = Texts("b;a" if number % 2 else "c" for number in range(10))
    rows = pd.DataFrame({"label": [*clips.labels, "d"]})
    monkeypatch.setattr(loader.manifest, "read_manifest", lambda path: SimpleNamespace(rows=rows))
    batches = loader.train_loader(augmented(), "m", seed=0)
    assert batches.classes == ["a", "b", "c", "d"]
    has = {"b;a": [1, 1, 0, 0], "c": [0, 0, 1, 0]}
    for batch in batches:
        assert batch.labels.tolist() == [has[clips.labels[clips.ids.index(clip)]] for clip in batch.ids]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_manifest_is_read_once(monkeypatch, workers):
    read, reads = loader.manifest.read_manifest, []
    monkeypatch.setattr(loader.manifest, "read_manifest", lambda path: reads.append(path) or read(path))
    assert len(list(loader.train_loader(augmented(workers), "m", seed=0))) == 2
    assert reads == ["m"]


def test_only_the_modalities_asked_for_are_in_a_batch():
    batch = next(iter(loader.train_loader(augmented(), "m", seed=0, modalities=("audio",), local_views=False)))
    assert list(batch.views) == ["audio"]
    assert len(batch.views["audio"]) == 1


@pytest.mark.parametrize("augment", ["cpu", "device"])
def test_views_do_not_depend_on_workers_or_batch_size(augment):
    runs = []
    for workers, batch_size in ((0, 4), (1, 4), (2, 4), (0, 5)):
        batches = loader.train_loader(augmented(workers, batch_size, augment), "m", seed=3)
        batches.set_epoch(7)
        runs.append(list(batches))
    for run in runs[1:3]:
        assert [batch.ids for batch in runs[0]] == [batch.ids for batch in run]
        assert_same_views(by_clip(runs[0]), by_clip(run))
    assert_same_views(by_clip(runs[0]), by_clip(runs[3]))


@pytest.mark.parametrize("modalities", [("video", "audio"), ("audio",)])
def test_augmenting_on_the_device_gives_the_views_of_the_workers(clips, modalities, monkeypatch):
    """For every operation that the released settings use, in batches of other clips, and with a GPU's masks."""
    torch.manual_seed(0)
    clips._video = torch.randint(0, 256, (8, 3, 40, 54), dtype=torch.uint8)
    clips._audio = torch.randn(16000) * 0.2
    jitter = {"jitter": (0.4, 0.4, 0.4, 0.2), "flip": 0.5}
    changes = (
        {"crop_area": (0.2, 1), **jitter},
        {"crop_area": (0.08, 0.4), "grey": 0.4, "blur": 0.6, **jitter},
        {"volume": 0.1},
        {"volume": 0.2, "resized_crop": True},
    )
    seen = {}
    for where in ("cpu", "device"):
        monkeypatch.setattr(colours, "_any", colours._any if where == "cpu" else lambda chosen: True)
        training = Training(batch_size=5, augment=where)
        batches = loader.train_loader(recipe(*changes, training=training), "m", seed=3, modalities=modalities)
        seen[where] = []
        for epoch in range(4):
            batches.set_epoch(epoch)
            seen[where] += list(batches)
    for cpu, device in zip(seen["cpu"], seen["device"], strict=True):
        assert cpu.ids == device.ids
        assert list(cpu.views) == list(device.views) == list(modalities)
        for one, other in zip(all_views(cpu), all_views(device), strict=True):
            assert one.dtype == other.dtype == torch.float32
            assert other.is_contiguous()
            assert torch.equal(one, other)


def test_workers_hand_over_bytes_where_the_device_augments(clips):
    """A quarter of the bytes of float frames."""
    dataset = loader.train_loader(augmented(augment="device"), "m", seed=0)._loader.dataset
    cuts = dataset[[(0, 0), (0, 1)]]
    assert [view.dtype for view in cuts.views["video"]] == [torch.uint8] * 2
    assert [tuple(view.shape) for view in cuts.views["video"]] == [(2, 8, 3, 32, 32), (2, 2, 3, 24, 24)]


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_the_batches_of_one_process(workers):
    whole = loader.train_loader(augmented(batch_size=4), "m", seed=3)
    shares = [loader.train_loader(augmented(workers, 4), "m", seed=3, shard=(rank, 2)) for rank in range(2)]
    assert [len(share) for share in shares] == [len(whole)] * 2
    for epoch in (0, 1):
        for one in (whole, *shares):
            one.set_epoch(epoch)
        for batch, first, second in zip(whole, *shares, strict=True):
            assert batch.ids == first.ids + second.ids
            assert torch.equal(batch.labels, torch.cat([first.labels, second.labels]))
            assert_same_views(by_clip([batch]), by_clip([first]))
            assert_same_views(by_clip([batch]), by_clip([second]))


def test_ranks_that_cannot_share_a_batch_are_a_user_error():
    with pytest.raises(UserError, match="4 clips cannot be shared equally by 3 processes"):
        loader.train_loader(augmented(batch_size=4), "m", seed=3, shard=(0, 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_at_any_batch(workers):
    batches = loader.train_loader(augmented(workers, 2), "m", seed=0)
    batches.set_epoch(1)
    whole = list(batches)
    batches.set_epoch(1, first=3)
    rest = list(batches)
    assert len(batches) == len(whole) == 5
    assert [batch.ids for batch in rest] == [batch.ids for batch in whole[3:]]
    assert_same_views(by_clip(rest), by_clip(whole))


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_in_any_order_are_those_of_a_new_loader(workers):
    """Workers make the batches of the epoch that follows; another one may be asked for, or a part may be read."""
    batches = loader.train_loader(augmented(workers, 2), "m", seed=0)
    for epoch, first, read in ((0, 0, 5), (1, 0, 2), (1, 2, 3), (2, 0, 1), (2, 0, 5), (3, 0, 5), (1, 0, 5), (5, 4, 1)):
        batches.set_epoch(epoch, first)
        got = list(itertools.islice(batches, read))
        new = loader.train_loader(augmented(0, 2), "m", seed=0)
        new.set_epoch(epoch, first)
        assert [batch.ids for batch in got] == [batch.ids for batch in itertools.islice(new, read)]
        new.set_epoch(epoch, first)
        assert_same_views(by_clip(got), by_clip(itertools.islice(new, read)))
    batches.close()


def test_workers_make_the_next_epoch_while_this_one_is_read(monkeypatch):
    asked = []
    monkeypatch.setattr(order.Order, "batches", _noting(order.Order.batches, asked))
    batches = loader.train_loader(augmented(2, 2), "m", seed=0)
    for _ in batches:
        pass
    assert asked[:2] == [0, 1]
    batches.close()


def _noting(function, asked):
    def noted(self, epoch, first=0):
        asked.append(epoch)
        return function(self, epoch, first)

    return noted


@pytest.mark.parametrize("workers", [0, 1])
def test_resuming_at_an_epoch_gives_what_that_epoch_gave(workers):
    through = loader.train_loader(augmented(workers), "m", seed=0)
    for epoch in range(3):
        through.set_epoch(epoch)
        last = list(through)
    resumed = loader.train_loader(augmented(workers), "m", seed=0)
    resumed.set_epoch(2)
    resumed = list(resumed)
    assert [batch.ids for batch in last] == [batch.ids for batch in resumed]
    assert_same_views(by_clip(last), by_clip(resumed))


@pytest.mark.parametrize("changed", ["epoch", "seed"])
def test_order_and_draws_change_with_epoch_and_seed(changed):
    first = loader.train_loader(augmented(batch_size=10), "m", seed=0)
    second = loader.train_loader(augmented(batch_size=10), "m", seed=1 if changed == "seed" else 0)
    second.set_epoch(1 if changed == "epoch" else 0)
    one, other = next(iter(first)), next(iter(second))
    assert sorted(one.ids) == sorted(other.ids)
    assert one.ids != other.ids
    views, changed_views = by_clip([one]), by_clip([other])
    assert all(not torch.equal(views[clip][0], changed_views[clip][0]) for clip in views)


def test_evaluation_gives_every_clip_once_in_manifest_order(clips):
    batches = list(loader.eval_loader(augmented(), "m", "test", batch_size=4))
    assert [clip for batch in batches for clip in batch.ids] == clips.ids
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [len(views) for views in batches[0].views.values()] == [1, 1]


def test_evaluation_is_not_augmented():
    once, again = (list(loader.eval_loader(augmented(), "m", "test", batch_size=size)) for size in (4, 3))
    assert_same_views(by_clip(once), by_clip(again))
    plain = list(loader.eval_loader(recipe(), "m", "test", batch_size=4))
    assert_same_views(by_clip(once), by_clip(plain))


def test_fewer_clips_than_a_batch_is_a_user_error():
    with pytest.raises(UserError, match=r"m: 10 usable train clips are fewer than one batch of 11; lower"):
        loader.train_loader(augmented(batch_size=11), "m", seed=0)


def test_an_empty_split_is_a_user_error():
    with pytest.raises(UserError, match=r"no usable clip in split 'empty'"):
        loader.eval_loader(augmented(), "m", "empty", batch_size=4)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_cannot_be_read_is_one_line(clips, monkeypatch, workers):
    def unreadable(index):
        raise UserError("clips/a.mp4: missing; prepare again")

    monkeypatch.setattr(clips, "video", unreadable)
    with pytest.raises(UserError) as error:
        list(loader.train_loader(augmented(workers), "m", seed=0))
    assert str(error.value) == "clips/a.mp4: missing; prepare again"


def test_moving_a_batch_moves_every_tensor():
    batch = next(iter(loader.train_loader(augmented(), "m", seed=0))).to("meta")
    assert all(tensor.device.type == "meta" for tensor in [batch.labels, *all_views(batch)])


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        ("unable to write to file </torch_7_12_0>: No space left on device (28)", "enlarge it"),
        ("unable to allocate shared memory(shm) for file </torch_7_12_0>: Success (0)", "enlarge it"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...", "enlarge it"),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "memory runs out"),
    ],
)
def test_full_shared_memory_says_what_to_change(monkeypatch, problem, word):
    def fails(_loader):
        raise RuntimeError(problem)

    one = loader.train_loader(augmented(), "", 0)
    monkeypatch.setattr(one, "_loader", type("Broken", (), {"__iter__": fails})())
    with pytest.raises(UserError, match=f"lower training.workers.*{word}|{word}.*lower training.workers"):
        next(iter(one))


def test_closing_ends_the_processes_and_the_next_iteration_starts_others(clips):
    before = set(multiprocessing.active_children())  # those of other tests may still be ending
    batches = loader.train_loader(augmented(2), "m", seed=0)
    reading = iter(batches)
    next(reading)
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    batches.close()
    assert not any(process.is_alive() for process in started)
    batches.set_epoch(0)
    assert len(list(batches)) == len(batches)
    batches.close()


def test_closing_a_loader_without_processes_does_nothing(clips):
    batches = loader.train_loader(augmented(0), "m", seed=0)
    next(iter(batches))
    batches.close()
    assert len(list(batches)) == len(batches)
