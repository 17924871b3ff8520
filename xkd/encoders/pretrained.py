"""`load_encoder`: from raw pictures or a raw waveform to features, preprocessing included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xkd.modalities.logmel import LogMelSpectrogram
from xkd.encoders import folder
from xkd.encoders.config import EncoderConfig
from xkd.errors import UserError
from xkd.models.vit import Encoder


class PretrainedEncoder(nn.Module):
    """A frozen encoder and the preprocessing that it was trained with.

    Attributes:
        config: what it is and what it was trained on.
        encoder: the network, (B, 3, T, H, W) or (B, 1, bands, columns) to tokens.
    """

    def __init__(self, encoder: Encoder, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        if config.modality == "audio":
            self.logmel = LogMelSpectrogram(config.audio.logmel, config.audio.sample_rate)

    @torch.inference_mode()
    def forward(self, clip: Tensor | np.ndarray, sample_rate: int | None = None) -> Tensor:
        """Features of one clip, or of a batch of clips of one length.

        Best given as long a clip as one view of training (`config.input.seconds`); other lengths work, their
        positions are interpolated. What does not fill a last patch in time is left out.

        Args:
            clip: video: uint8 pictures (T, H, W, 3) or (B, T, H, W, 3) at `config.input.fps`, any size;
                audio: mono samples in [-1, 1], (S,) or (B, S).
            sample_rate: audio only: samples per second of `clip`; it is resampled where needed.

        Returns:
            (D,) or (B, D) float32: mean of the patch tokens after the final norm (method section 4).

        Raises:
            UserError: another shape or type, no sample rate, less than one patch in time, or features that are not finite.
        """
        clip = torch.as_tensor(clip)
        single = clip.ndim == (4 if self.config.modality == "video" else 1)
        batch = clip[None] if single else clip
        view = self.video_view(batch) if self.config.modality == "video" else self.audio_view(batch, sample_rate)
        features = self.encoder.features(view)
        odd = (~features.isfinite().all(1)).nonzero().flatten().tolist()
        if odd:
            raise UserError(
                f"the {self.config.modality} encoder makes features that are not finite of clip {odd[0]} of {len(features)}: "
                "such values in the clip, or weights that overflow"
            )
        return features[0] if single else features

    def video_view(self, batch: Tensor) -> Tensor:
        """Pictures (B, T, H, W, 3) to the network's input (B, 3, T', size, size)."""
        from torchvision.transforms.v2 import functional as tv

        if batch.ndim != 5 or batch.shape[-1] != 3 or batch.dtype != torch.uint8:
            raise UserError(
                f"a video encoder takes uint8 pictures (T, H, W, 3), not {batch.dtype} {tuple(batch.shape[1:])}"
            )
        settings = self.config.video
        pictures = batch[:, : self._whole_patches(batch.shape[1], axis=0)].permute(0, 1, 4, 2, 3)
        pictures = pictures.to(self.encoder.cls_token.device)
        if min(pictures.shape[-2:]) != settings.short_side:
            pictures = tv.resize(pictures.flatten(0, 1), [settings.short_side], antialias=True).unflatten(
                0, pictures.shape[:2]
            )
        pictures = tv.center_crop(pictures, [settings.size, settings.size]).float().div_(255)
        mean, std = (torch.tensor(v, device=pictures.device).view(3, 1, 1) for v in (settings.mean, settings.std))
        view: Tensor = ((pictures - mean) / std).transpose(1, 2)
        return view

    def audio_view(self, batch: Tensor, sample_rate: int | None) -> Tensor:
        """Samples (B, S) to the network's input (B, 1, bands, columns)."""
        from torchaudio.functional import resample

        if batch.ndim != 2 or not batch.is_floating_point():
            raise UserError(
                f"an audio encoder takes mono samples (S,) as floats in [-1, 1], not {batch.dtype} "
                f"{tuple(batch.shape[1:])}"
            )
        if not sample_rate:
            raise UserError("an audio encoder needs the sample rate: encoder(waveform, sample_rate)")
        settings = self.config.audio
        samples = resample(batch.float(), sample_rate, settings.sample_rate).to(self.encoder.cls_token.device)
        if samples.shape[-1] <= settings.logmel.n_fft // 2:
            raise UserError(
                f"{samples.shape[-1] / settings.sample_rate:.3f} s of sound are too short for a spectrogram"
            )
        logmel: Tensor = self.logmel(samples)
        return logmel[..., : self._whole_patches(logmel.shape[-1], axis=1)]

    def _whole_patches(self, length: int, axis: int) -> int:
        patch = self.config.patch[axis]
        if length < patch:
            unit = "pictures" if self.config.modality == "video" else "log-mel columns"
            raise UserError(f"{length} {unit} are fewer than one patch of {patch}")
        return length - length % patch


def load_encoder(path: str | Path) -> PretrainedEncoder:
    """The encoder in a folder that `pretrain` or `import-weights` wrote; on the CPU, move it with `.to`.

    Raises:
        UserError: no encoder there, or files that do not fit together.
    """
    return PretrainedEncoder(*folder.load(Path(path))).eval()
