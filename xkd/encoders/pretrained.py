"""`load_encoder`: from raw frames or a raw waveform to features, preprocessing included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xkd.encoders import folder
from xkd.encoders.config import EncoderConfig
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.models.encoder import Encoder


class PretrainedEncoder(nn.Module):
    """A frozen encoder and the preprocessing that it was trained with.

    Attributes:
        config: what it is and what it was trained on.
        encoder: the network, (B, 3, T, H, W) or (B, 1, bands, columns) to tokens.
    """

    def __init__(self, encoder: Encoder, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder, self.config, self.modality = encoder, config, MODALITIES[config.modality]
        self.feeder = self.modality.feeder(config.input, self._whole_patches)

    @torch.inference_mode()
    def forward(self, clip: Tensor | np.ndarray, sample_rate: int | None = None) -> Tensor:
        """Computes features of one clip, or of a batch of clips of one length.

        Best given as long a clip as one view of training (`config.input.seconds`); other lengths work, their
        positions are interpolated. What does not fill a last patch in time is left out.

        Args:
            clip: video: uint8 frames (T, H, W, 3) or (B, T, H, W, 3) at `config.input.fps`, any size;
                audio: mono samples in [-1, 1], (S,) or (B, S).
            sample_rate: audio only: samples per second of `clip`; it is resampled where needed.

        Returns:
            (D,) or (B, D) float32: mean of the patch tokens after the final norm (method section 4).

        Raises:
            UserError: other shape or type, no sample rate, less than one patch in time, or features not finite.
        """
        clip = torch.as_tensor(clip)
        single = clip.ndim == self.modality.clip_axes
        features = self.encoder.features(self.view(clip[None] if single else clip, sample_rate))
        odd = (~features.isfinite().all(1)).nonzero().flatten().tolist()
        if odd:
            raise UserError(
                f"the {self.modality.name} encoder makes features that are not finite of clip {odd[0]} of "
                f"{len(features)}: such values in the clip, or weights that overflow"
            )
        return features[0] if single else features

    def view(self, batch: Tensor, sample_rate: int | None = None) -> Tensor:
        """Converts frames (B, T, H, W, 3) or samples (B, S) to the network's input.

        It is (B, 3, T', size, size) or (B, 1, bands, columns).

        Raises:
            UserError: another shape or type, no sample rate, or less than one patch in time.
        """
        view: Tensor = self.feeder(batch, next(self.encoder.parameters()).device, sample_rate)
        return view

    def _whole_patches(self, length: int) -> int:
        patch = self.config.patch[self.modality.time_axis]
        if length < patch:
            raise UserError(f"{length} {self.modality.unit} are fewer than one patch of {patch}")
        return length - length % patch


def load_encoder(path: str | Path) -> PretrainedEncoder:
    """Loads the encoder in a folder that `pretrain` or `import-weights` wrote; on the CPU, move it with `.to`.

    Raises:
        UserError: no encoder there, or files that do not fit together.
    """
    return PretrainedEncoder(*folder.load(Path(path))).eval()
