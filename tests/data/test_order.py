import numpy as np
import pytest

from xkd.data.order import Order, among_all, among_shards

SHARDS = np.repeat([7, 2, 4, 9, 1, 5, 0], [3, 5, 4, 4, 6, 2, 4])  # of 28 clips, in no order of their numbers


def listed(order: Order, epoch: int = 0, first: int = 0) -> list[int]:
    order.epoch, order.first = epoch, first
    return [index for batch in order for _, index in batch]


@pytest.mark.parametrize("shuffled", [among_all(28), among_shards(SHARDS, 2)])
def test_an_epoch_has_every_clip_once_and_ranks_share_its_batches(shuffled):
    whole = listed(Order(28, 4, 3, shuffled), epoch=1)
    assert sorted(whole) == list(range(28))
    shares = [Order(28, 4, 3, shuffled, (rank, 2)) for rank in range(2)]
    for order in shares:
        order.epoch = 1
    assert [index for parts in zip(*shares, strict=True) for part in parts for _, index in part] == whole
    assert listed(Order(28, 4, 3, shuffled), epoch=1, first=5) == whole[20:], "a run that goes on in an epoch"
    assert listed(Order(28, 4, 3, shuffled), epoch=2) != whole != listed(Order(28, 4, 4, shuffled), epoch=1)


@pytest.mark.parametrize("window", [1, 2, 7])
def test_a_window_reads_its_shards_before_the_next(window):
    order = SHARDS[listed(Order(28, 1, 0, among_shards(SHARDS, window)))]
    visits = [shard for number, shard in enumerate(order) if number == 0 or shard != order[number - 1]]
    for shard in set(SHARDS):
        between = order[np.flatnonzero(order == shard)[0] : np.flatnonzero(order == shard)[-1]]
        assert len(set(between) - {shard}) < window, "one shard is open no longer than those of its window"
    assert (len(visits) == 7) == (window == 1), "clips of one window are mixed"


def test_the_last_clips_wait_for_another_epoch_where_they_fill_no_batch():
    order = Order(10, 4, 0, among_all(10))
    assert len(order) == 2
    assert len(listed(order)) == 8
    assert listed(Order(10, 4, begin=3)) == list(range(3, 10)), "an order that is not shuffled keeps them"
