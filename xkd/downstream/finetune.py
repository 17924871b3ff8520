"""Full finetuning: encoder and a linear head on its mean token, trained with labels (paper section 4)."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.downstream.features import device
from xkd.errors import UserError
from xkd.progress import track
from xkd.settings import Finetune
from xkd.training.schedules import cosine

WARMUP = 0.05  # share of the steps with a rising learning rate (paper: 5 of 100 epochs)


class Classifier(nn.Module):
    """An encoder (its own copy) and a linear head on the mean of its patch tokens.

    Args:
        encoder: `xkd.models.Encoder`; left as it is.
        classes: outputs of the head.
        seed: of the head's starting weights.
    """

    def __init__(self, encoder: nn.Module, classes: int, seed: int) -> None:
        super().__init__()
        # A copy also separates encoders that share blocks: each modality is tuned alone.
        self.encoder = deepcopy(encoder).requires_grad_(True)
        self.head = nn.Linear(encoder.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of views (B, ...)."""
        return self.head(self.encoder.features(x))


def finetune(encoders: dict[str, nn.Module], loader, settings: Finetune, seed: int) -> dict[str, Classifier]:
    """Trains one classifier per modality; the modalities share nothing but the pass over the data.

    Args:
        encoders: pretrained encoder per modality.
        loader: `xkd.data.loader.train_loader`; the first (global) view of each modality is learned from.
        settings: group `evaluate.finetune`.
        seed: of the heads' starting weights.

    Returns:
        Classifiers in evaluation mode; outputs in the order of `loader.classes`.

    Raises:
        UserError: the loss is no longer finite.
    """
    models = {m: Classifier(e, len(loader.classes), seed).to(device()).train() for m, e in encoders.items()}
    optimisers = {m: make_optimiser(model, settings) for m, model in models.items()}
    steps = settings.epochs * len(loader)
    schedule = iter(cosine(1.0, 0.0, steps, round(WARMUP * steps)))
    for epoch in track(range(settings.epochs), "finetuning"):
        loader.set_epoch(epoch)
        for batch in loader:
            target, rate = batch.labels.to(device()), float(next(schedule))
            for modality, model in models.items():
                view = getattr(batch, modality)[0].to(device())
                _step(model, optimisers[modality], view, target, rate, settings.label_smoothing)
    return {m: model.eval() for m, model in models.items()}


def make_optimiser(model: Classifier, settings: Finetune) -> torch.optim.AdamW:
    """AdamW whose learning rate falls by `layer_decay` per layer from the head down to the embedding.

    Head and final norm learn at the full rate, the last block at `layer_decay` of it, and so on; patch
    embedding, CLS token and positions come below the first block. Vectors are not decayed.
    """
    top = len(model.encoder.blocks) + 1
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in model.named_parameters():
        depth, decays = _depth(name, top), parameter.ndim > 1
        rate = settings.learning_rate * settings.layer_decay ** (top - depth)
        decay = settings.weight_decay if decays else 0.0
        new = {"params": [], "lr": rate, "peak": rate, "weight_decay": decay}
        groups.setdefault((depth, decays), new)["params"].append(parameter)
    return torch.optim.AdamW(list(groups.values()))


def _depth(name: str, top: int) -> int:
    """0 for what comes before the blocks, 1 for the first block, ..., `top` for final norm and head."""
    parts = name.split(".")
    if parts[1] == "blocks":
        return int(parts[2]) + 1
    return top if parts[0] == "head" or parts[1] == "norm" else 0


def _step(
    model: Classifier, optimiser: torch.optim.Optimizer, view: Tensor, target: Tensor, rate: float, smoothing: float
) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["peak"]
    loss = F.cross_entropy(model(view), target, label_smoothing=smoothing)
    if not torch.isfinite(loss):
        raise UserError("finetuning diverged (the loss is not finite); lower evaluate.finetune.learning_rate")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
