"""Small encoders of both modalities, as folders."""

from pathlib import Path

import torch

from xkd.encoders import folder
from xkd.encoders.config import AudioInput, EncoderConfig, VideoInput
from xkd.models.head import ProjectionHead
from xkd.settings import LogMel

SIZES = {"owner": "student", "width": 24, "depth": 2, "heads": 2, "origin": "a test", "licence": "MIT"}
VIDEO = VideoInput(frames=8, fps=8, short_side=36, size=32)
SOUND = AudioInput(frames=96, sample_rate=16000, logmel=LogMel(n_fft=512, hop=160, n_mels=40))


def write_encoders(root: Path) -> Path:
    """Writes `video_student` and `audio_student`, with random weights and heads of 7 outputs, into `root/encoders`."""
    torch.manual_seed(0)
    for modality, patch, grid, fed in (("video", (2, 8, 8), (4, 4, 4), VIDEO), ("audio", (8, 8), (5, 12), SOUND)):
        config = EncoderConfig(modality=modality, patch=patch, grid=grid, input=fed, **SIZES)
        head = ProjectionHead(width=24, hidden=16, bottleneck=8, out=7)
        folder.save(folder.build(config), config, root / "encoders" / f"{modality}_student", head)
    return root
