"""Small stand-ins for the loader and an encoder, where a test is about what comes after them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from xkd import tracking
from xkd.downstream.finetune import finetuner

LABELS = np.array(["cat", "dog", "owl"])


def rows(clips: int, scans: int | None = None) -> pd.DataFrame:
    """Manifest rows; labels go round, and so do the scans that the pictures come from."""
    index = np.arange(clips)
    video_source = [f"scan{i % scans}" for i in index] if scans else [""] * clips
    return pd.DataFrame(
        {
            "id": [f"clip{i:04d}" for i in index],
            "label": LABELS[index % 3],
            "video_source": video_source,
            "audio_source": [""] * clips,
        }
    )


def clips_of_several_labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (300, 3) that tell which of x, y and z a clip has, labels such as "x;z", and the truth (300, 3)."""
    generator = np.random.default_rng(0)
    have = generator.random((300, 3)) < 0.4
    have[~have.any(1), 0] = True
    labels = np.array([";".join(np.array(["x", "y", "z"])[row]) for row in have])
    return have + 0.1 * generator.normal(size=have.shape), labels, have


class Loader:
    """Batches of views drawn once; `video[:, 0]` and `audio[:, 0]` hold the label's number plus noise."""

    def __init__(self, rows: pd.DataFrame, batch_size: int = 4, noise: float = 0.0) -> None:
        self.rows, self.batch_size, self.noise = rows, batch_size, noise
        self.classes = LABELS.tolist()
        self.epochs: list[int] = []
        self.first = 0

    def close(self):
        pass

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        self.epochs.append(epoch)
        self.first = first

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for start in range(0, len(self.rows), self.batch_size):
            part = self.rows.iloc[start : start + self.batch_size]
            labels = torch.tensor([self.classes.index(label) for label in part["label"]])
            one_hot = nn.functional.one_hot(labels, len(LABELS)).float()
            video, audio = (one_hot + self.noise * torch.randn(one_hot.shape, generator=generator) for _ in range(2))
            views = {"video": [video], "audio": [audio]}
            if start >= self.first * self.batch_size:
                yield SimpleNamespace(ids=part["id"].tolist(), labels=labels, views=views)


def finetuned(encoders, loader, settings, seed, **options):
    """Classifiers by modality after finetuning by the engine."""
    trainer = finetuner(encoders, loader, settings, seed, **options)
    for _ in trainer.epochs():
        pass
    return dict(trainer.learner.eval().models.items())


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(self.norm1(x))


class TinyEncoder(nn.Module):
    """The parameter names of `xkd.models.Encoder` over vectors of three values."""

    def __init__(self, width: int = 8, depth: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.width = width
        self.embed = nn.Linear(3, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 2, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @property
    def layers(self) -> list[nn.Module]:
        return [*self.blocks, self.norm]

    def features(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.positions[:, 1] + self.cls_token[:, 0]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Tracking:
    """Keeps what would be logged to MLflow, by experiment and key, or by the id of a run."""

    EVALUATION = tracking.EVALUATION

    def __init__(self):
        self.runs = {}

    def start(self, experiment, key, name, params, tags, digest):
        return Logged(self.runs.setdefault((experiment, key), {}))

    def attach(self, run_id, key):
        assert key.startswith("pretrain/")
        return Logged(self.runs.setdefault(run_id, {}))


class Logged:
    def __init__(self, values):
        self.values = values

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def log_metrics(self, values):
        self.values |= values

    def log_steps(self, rows, key):
        self.values.setdefault("curves", []).extend((row[key], row) for row in rows)

    def log_files(self, paths):
        assert all(path.is_file() for path in paths)
