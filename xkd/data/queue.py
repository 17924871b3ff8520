"""Bounds the memory of batches that wait for training or evaluation: loader processes, and batches ahead of each."""

from __future__ import annotations

import math
import os
import shutil
import sys
from typing import NamedTuple, cast

from xkd.data.views import EvalViews, TrainViews
from xkd.modalities import MODALITIES
from xkd.modalities.audio import SampleCutter
from xkd.settings import AudioView, LogMel, VideoView

SHARED_MEMORY = "/dev/shm"
USABLE = 0.9  # of what is free there: labels and other programs take some
MOST_AHEAD = 4  # batches that each loader process prepares
FLOAT_BYTES = 4


class Queue(NamedTuple):
    """How batches are loaded.

    Attributes:
        workers: loader processes; 0 loads in the training process.
        ahead: batches that each of them prepares.
    """

    workers: int
    ahead: int

    @property
    def batches(self) -> int:
        """The most batches in memory: those that wait or are being made, and the one in use."""
        return self.workers * self.ahead + 1


def bounded(workers: int, batch_bytes: float, memory_bytes: float) -> Queue:
    """Returns the queue of at most `workers` loader processes whose batches fit in memory.

    Args:
        workers: as many as the settings ask for.
        batch_bytes: of one batch of this process.
        memory_bytes: for the batches of this process.
    """
    waiting = max(int(memory_bytes // batch_bytes) - 1, 0)
    workers = min(workers, waiting)
    return Queue(workers, min(MOST_AHEAD, waiting // workers) if workers else 0)


def clip_bytes(views: TrainViews | EvalViews, logmel: LogMel) -> int:
    """Returns the bytes of all views of one clip, as they wait in the queue."""
    total = 0
    for modality, settings in views.settings.items():
        kind = MODALITIES[modality]
        if isinstance(views.cutters[modality], SampleCutter):
            shapes: list[tuple[int, ...]] = [(cast(AudioView, view).frames * logmel.hop,) for view in settings]
        else:
            shapes = [cast(VideoView | AudioView, view).shape(logmel) for view in settings]
        if isinstance(views, EvalViews):
            times, value_bytes = len(views.moments) * (len(views.places) if kind.cropped else 1), FLOAT_BYTES
        else:  # frames that the device augments wait as bytes
            times, value_bytes = 1, 1 if views.on_device and modality == "video" else FLOAT_BYTES
        total += times * value_bytes * kind.channels * sum(math.prod(shape) for shape in shapes)
    return total


def fitted(workers: int, queue_gb: float, batch_bytes: float) -> Queue:
    """Returns the queue that the settings and the shared memory of this machine allow; prints a line if it is smaller.

    Args:
        workers: training.workers.
        queue_gb: training.queue_gb, which the processes of `torchrun` on this machine share.
        batch_bytes: of one batch of this process.
    """
    if not workers:
        return Queue(0, 0)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    room = shutil.disk_usage(SHARED_MEMORY).free * USABLE if os.path.isdir(SHARED_MEMORY) else math.inf
    queue = bounded(workers, batch_bytes, min(queue_gb * 1e9, room) / processes)
    if queue.workers < workers and os.environ.get("LOCAL_RANK", "0") == "0":
        started = f"{queue.workers} of {workers} loader processes start"
        which = f" of each of {processes} training processes" if processes > 1 else ""
        limit = f"training.queue_gb is {queue_gb:g}"
        if room < queue_gb * 1e9:
            limit = f"{SHARED_MEMORY} has {room / 1e9:.2g} GB for them (docker run --shm-size 8g)"
        print(f"xkd: warning: {started}: a batch{which} takes {batch_bytes / 1e9:.2g} GB, {limit}", file=sys.stderr)
    return queue
