"""Encoders of other libraries as peers; each library is imported only where a row asks for it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xkd import registry
from xkd.encoders.peer import Peer
from xkd.errors import UserError
from xkd.settings import PeerSettings

FRAMES_AT_ONCE = 64


@registry.peers.register("timm")
class TimmImages(Peer):
    """An image model of timm: the mean over frames of its pooled features before the classifier."""

    modalities = ("video",)
    mean: Tensor
    std: Tensor

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__(settings)
        timm = _library("timm")
        file = {"file": settings.weights} if settings.weights else None
        self.network = timm.create_model(settings.model, pretrained=True, num_classes=0, pretrained_cfg_overlay=file)
        fed = timm.data.resolve_model_data_config(self.network)
        self.size, self.interpolation = fed["input_size"][-2:], fed["interpolation"]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(fed[name]).view(-1, 1, 1), persistent=False)
        self.library = f"timm {timm.__version__}"
        self.licence = self.network.pretrained_cfg.get("license") or ""

    def forward(self, clips: Tensor, rate: float) -> Tensor:
        frames = clips.flatten(0, 1).permute(0, 3, 1, 2)
        found = torch.cat([self.network(self._fed(part)) for part in frames.split(FRAMES_AT_ONCE)])
        return found.view(*clips.shape[:2], -1).mean(1)

    def _fed(self, frames: Tensor) -> Tensor:
        """Resizes and normalises uint8 frames (N, 3, H, W) as the model's own configuration says."""
        mode = "bilinear" if self.interpolation == "bilinear" else "bicubic"
        resized = F.interpolate(frames.float() / 255, self.size, mode=mode, antialias=True)
        return (resized.clamp(0, 1) - self.mean) / self.std


@registry.peers.register("torchaudio")
class TorchaudioWaves(Peer):
    """A wav2vec 2.0, HuBERT or WavLM of torchaudio's pipelines: the mean over time of its last layer."""

    modalities = ("audio",)

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__(settings)
        import torchaudio
        from torchaudio import pipelines

        known = [name for name in dir(pipelines) if isinstance(getattr(pipelines, name), pipelines.Wav2Vec2Bundle)]
        if settings.model not in known:
            raise UserError(f"no model '{settings.model}'{registry.suggest(settings.model, known)}")
        bundle = getattr(pipelines, settings.model)
        reading: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
        if settings.weights:  # a file that is there is not downloaded
            reading |= {"model_dir": str(Path(settings.weights).parent), "file_name": Path(settings.weights).name}
        self.network, self.rate = bundle.get_model(dl_kwargs=reading), round(bundle.sample_rate)
        self.library = f"torchaudio {torchaudio.__version__}"

    def forward(self, clips: Tensor, rate: float) -> Tensor:
        layers, _ = self.network.extract_features(_resampled(clips, rate, self.rate))
        mean: Tensor = layers[-1].mean(1)
        return mean


@registry.peers.register("transformers")
class TransformersWaves(Peer):
    """A model of waveforms of transformers, with its own preprocessing: the mean over time of its last layer."""

    modalities = ("audio",)

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__(settings)
        transformers = _library("transformers")
        place = settings.weights or settings.model
        # By default, transformers asks whether to run code in the folder of a model.
        self.prepare = transformers.AutoFeatureExtractor.from_pretrained(place, trust_remote_code=False)
        self.network = transformers.AutoModel.from_pretrained(place, trust_remote_code=False)
        self.library = f"transformers {transformers.__version__}"

    def forward(self, clips: Tensor, rate: float) -> Tensor:
        wanted = self.prepare.sampling_rate
        samples = list(_resampled(clips, rate, wanted).cpu().numpy())
        fed = self.prepare(samples, sampling_rate=wanted, return_tensors="pt").to(clips.device)
        mean: Tensor = self.network(**fed).last_hidden_state.mean(1)
        return mean


def _resampled(samples: Tensor, rate: float, wanted: int) -> Tensor:
    from torchaudio.functional import resample

    resampled: Tensor = resample(samples, round(rate), wanted)
    return resampled


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed; pip install 'xkd[peers]'") from None
