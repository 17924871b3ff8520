import numpy as np
import pytest

from xkd.data.order import Order, among_all, among_windows

PLACES = np.random.default_rng(1).permutation(28).astype(np.uint64)


def listed(order: Order, epoch: int = 0, first: int = 0) -> list[int]:
    order.epoch, order.first = epoch, first
    return [index for batch in order for _, index in batch]


@pytest.mark.parametrize("shuffled", [among_all(28), among_windows(PLACES, 16)])
def test_an_epoch_has_every_clip_once_and_ranks_share_its_batches(shuffled):
    whole = listed(Order(28, 4, 3, shuffled), epoch=1)
    assert sorted(whole) == list(range(28))
    shares = [Order(28, 4, 3, shuffled, (rank, 2)) for rank in range(2)]
    for order in shares:
        order.epoch = 1
    assert [index for parts in zip(*shares, strict=True) for part in parts for _, index in part] == whole
    assert listed(Order(28, 4, 3, shuffled), epoch=1, first=5) == whole[20:], "a run that goes on in an epoch"
    assert listed(Order(28, 4, 3, shuffled), epoch=2) != whole != listed(Order(28, 4, 4, shuffled), epoch=1)


def test_a_window_reads_few_stretches_of_the_shards():
    """Of 512 clips in windows of 64, each of eight stretches of eight clips that follow each other in the shards."""
    places = np.random.default_rng(0).permutation(512).astype(np.uint64)
    orders = [listed(Order(512, 1, 0, among_windows(places, 64)), epoch) for epoch in range(2)]
    windows = [[sorted(places[order[first : first + 64]]) for first in range(0, 512, 64)] for order in orders]
    for window in windows[0] + windows[1]:
        stretches = np.array(window).reshape(8, 8)
        assert (np.diff(stretches) == 1).all()
        assert (stretches[:, 0] % 8 == 0).all()
    assert sorted(windows[0]) != sorted(windows[1]), "other stretches meet in the next epoch"
    assert [places[index] for index in orders[0][:64]] != windows[0][0], "clips of a window are mixed"


def test_a_window_of_all_clips_is_one():
    order = listed(Order(28, 1, 0, among_windows(PLACES, 1000)))
    assert sorted(order) == list(range(28)) != order


def test_the_last_clips_wait_for_another_epoch_where_they_fill_no_batch():
    order = Order(10, 4, 0, among_all(10))
    assert len(order) == 2
    assert len(listed(order)) == 8
    assert listed(Order(10, 4, chosen=range(3, 10))) == list(range(3, 10)), "an order that is not shuffled keeps them"
