import matplotlib.image
import numpy as np
import pytest
import torch
from tiny_runs import settings, trainer

from xkd.training.samples import save_samples


def views(chosen, clips=3):
    video, audio = chosen.views.video_global, chosen.views.audio_global
    draws = torch.Generator().manual_seed(0)
    colours = torch.randn(clips, 3, video.frames, video.size, video.size, generator=draws)
    return {
        "video": 0.3 * colours,  # inside the range of colours
        "audio": torch.randn(clips, 1, chosen.logmel.n_mels, audio.frames, generator=draws),
    }


def test_samples_show_what_was_hidden_and_keep_what_was_not(tmp_path):
    chosen = settings()
    save_samples(trainer(chosen).learner, views(chosen), tmp_path)
    samples = np.load(tmp_path / "samples.npz")
    for modality, ratio in (("video", chosen.objective.mask_video), ("audio", chosen.objective.mask_audio)):
        true, masked, predicted = (samples[f"{modality}_{kind}"] for kind in ("true", "masked", "predicted"))
        shown = (masked == true) & (true > true.min())  # silence hides a log-mel, so it says nothing there
        assert shown.mean() == pytest.approx(1 - ratio, abs=0.2)
        np.testing.assert_array_equal(predicted[shown], true[shown])
        assert (predicted[masked != true] != true[masked != true]).mean() > 0.9
        np.testing.assert_allclose(samples[f"weights_{modality}"].reshape(3, -1).mean(1), 1, rtol=1e-5)
    assert matplotlib.image.imread(tmp_path / "samples.png").std() > 0.05


def test_a_run_without_decoders_has_no_reconstructions(tmp_path):
    chosen = settings(mode="none")
    save_samples(trainer(chosen).learner, views(chosen), tmp_path)
    assert list(np.load(tmp_path / "samples.npz")) == []
    assert (tmp_path / "samples.png").stat().st_size, "every run has the image: the views as they are"
