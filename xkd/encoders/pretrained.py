"""`load_encoder`: from raw frames or a raw waveform to features, preprocessing included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xkd.encoders import folder, hub
from xkd.encoders.config import EncoderConfig
from xkd.encoders.parcel import within
from xkd.encoders.sending import Shareable, check_no_run
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.models.encoder import Encoder
from xkd.models.head import ProjectionHead

CHANGED = ", changed since"


class PretrainedEncoder(nn.Module, Shareable):
    """An encoder and the preprocessing that it was trained with, for use as it is or as a part of another network.

    It is frozen until `requires_grad_()`. Preprocessing is float32 under autocast, too.

    Attributes:
        config: what it is and what it was trained on.
        encoder: the network, (B, 3, T, H, W) or (B, 1, bands, columns) to tokens.
        head: the projection head that it was trained with, if it was loaded.
        card: the model card that it was loaded with.
    """

    def __init__(
        self, encoder: Encoder, config: EncoderConfig, head: ProjectionHead | None = None, card: str | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.modality = encoder, config, MODALITIES[config.modality]
        self.head, self.card = head, card
        self.feeder = self.modality.feeder(config.input, self._whole_patches)

    def forward(self, clip: Tensor | np.ndarray, sample_rate: int | None = None) -> Tensor:
        """Computes features of one clip, or of a batch of clips of one length.

        Best given as long a clip as one view of training (`config.input.seconds`); other lengths work, their
        positions are interpolated. What does not fill a last patch in time is left out.

        Args:
            clip: video: uint8 frames (T, H, W, 3) or (B, T, H, W, 3) at `config.input.fps`, any size;
                audio: mono samples in [-1, 1], (S,) or (B, S).
            sample_rate: audio only: samples per second of `clip`; it is resampled where needed.

        Returns:
            (D,) or (B, D) float32: mean of the patch tokens after the final norm (method section 4). They have
            gradients where parameters or samples require them.

        Raises:
            UserError: other shape or type, no sample rate, less than one patch in time, or features not finite
                (not looked for in training mode and where there are gradients, since a GPU would be waited for).
        """
        clip = torch.as_tensor(clip)
        features = self._finite(self.encoder.features(self._view_of(clip, sample_rate)))
        return features[0] if clip.ndim == self.modality.clip_axes else features

    def tokens(self, clip: Tensor | np.ndarray, sample_rate: int | None = None) -> Tensor:
        """Computes the tokens after the final norm, (B, 1 + N, D), CLS first; a single clip is a batch of one.

        Patches are in the order of `config.patch`, their last axis changing fastest. For arguments and errors see
        `forward`.
        """
        tokens_BSD: Tensor = self.encoder(self._view_of(torch.as_tensor(clip), sample_rate))
        return self._finite(tokens_BSD)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Returns features of tokens, as `forward` does, or logits where a head was loaded: (B, D) or (B, out).

        Args:
            x: tokens (B, 1 + N, D), or features (B, D).
            pre_logits: features even where a head was loaded.
        """
        features = self.encoder.pooled(x) if x.ndim == 3 else x
        return features if self.head is None or pre_logits else self.head(features)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        subfolder: str = "",
        head: bool = False,
        **download: Any,
    ) -> PretrainedEncoder:
        """Loads an encoder of the hub, or one in a folder as `load_encoder` does.

        Args:
            name_or_folder: owner/name on the hub, or a folder; a folder comes first.
            revision: branch, tag or commit on the hub.
            subfolder: where the encoder is, such as encoders/video_student where a run was pushed.
            head: with the projection head that it was trained with.
            download: token, cache_dir, force_download and local_files_only of the hub's library.

        Raises:
            UserError: as of `load_encoder`; neither a folder nor a repository, or one that cannot be reached.
        """
        names = [folder.WEIGHTS, folder.CONFIG, folder.CARD, *([folder.HEAD] if head else [])]
        patterns = [within(subfolder, name) for name in names]
        return load_encoder(hub.folder_of(name_or_folder, revision, patterns, **download) / subfolder, head)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes a folder with the encoder and, if it was loaded, its head, for `from_pretrained` and `load_encoder`.

        Weights that are as they were loaded keep their card. Others get one without figures, and an origin that says
        so. The decoder of a student, which only images of what it fills in need, is not written.

        Raises:
            UserError: the folder is that of a run.
        """
        place, loaded = Path(save_directory), self.config.sha256.get(folder.WEIGHTS)
        check_no_run(place)
        folder.save(self.encoder, self.config.model_copy(update={"decoder": None}), place, self.head)
        saved = folder.read_config(place)
        if loaded == saved.sha256[folder.WEIGHTS]:
            folder.describe(saved, place, self.card)
        elif loaded:
            changed = f"{saved.origin.removesuffix(CHANGED)}{CHANGED}"
            folder.describe(saved.model_copy(update={"origin": changed}), place)

    def view(self, batch: Tensor, sample_rate: int | None = None) -> Tensor:
        """Converts frames (B, T, H, W, 3) or samples (B, S) to the network's input.

        It is (B, 3, T', size, size) or (B, 1, bands, columns).

        Raises:
            UserError: another shape or type, no sample rate, or less than one patch in time.
        """
        device = next(self.encoder.parameters()).device
        with torch.autocast(device.type, enabled=False):
            view: Tensor = self.feeder(batch, device, sample_rate)
        return view

    def _view_of(self, clip: Tensor, sample_rate: int | None) -> Tensor:
        return self.view(clip[None] if clip.ndim == self.modality.clip_axes else clip, sample_rate)

    def _finite(self, outputs: Tensor) -> Tensor:
        if self.training or outputs.requires_grad:
            return outputs
        odd = (~outputs.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        if odd:
            raise UserError(
                f"the {self.modality.name} encoder makes features that are not finite of clip {odd[0]} of "
                f"{len(outputs)}: such values in the clip, or weights that overflow"
            )
        return outputs

    def _whole_patches(self, length: int) -> int:
        patch = self.config.patch[self.modality.time_axis]
        if length < patch:
            raise UserError(f"{length} {self.modality.unit} are fewer than one patch of {patch}")
        return length - length % patch


def load_encoder(path: str | Path, head: bool = False) -> PretrainedEncoder:
    """Loads the encoder in a folder that `pretrain` or `import-weights` wrote; on the CPU, move it with `.to`.

    Args:
        head: with the projection head that it was trained with.

    Raises:
        UserError: no encoder or head there, or files that do not fit together.
    """
    place = Path(path)
    encoder, config = folder.load(place)
    projection = folder.load_head(place) if head else None
    if head and projection is None:
        raise UserError(f"{place}: no {folder.HEAD} there; load this encoder without its head")
    readme = place / folder.CARD
    card = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else None
    return PretrainedEncoder(encoder, config, projection, card).eval()
