"""Encoders that are not ours: of libraries, with tiny networks of random weights, and of a plugin, as a row."""

import json
import shutil
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torchaudio import models, pipelines
from torchaudio.functional import resample

from xkd import load_encoder, params, plugins, runs
from xkd.data.clips import open_clips
from xkd.encoders.peers import describe, open_peers
from xkd.errors import UserError
from xkd.modalities.video import IMAGENET_MEAN, IMAGENET_STD
from xkd.stages import evaluate, plan, pretrain

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"
PLUGIN = Path(__file__).parents[1] / "plugins" / "simple_peers.py"
MANIFEST = Path("data/manifest.csv")
PLAIN = {"video": {"adapter": "mean_colour"}, "audio": {"adapter": "loudness", "licence": "CC0"}}
SPEECH = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [(8, 10, 5), (8, 4, 4)],
    "extractor_conv_bias": False,
    **{"encoder_embed_dim": 16, "encoder_num_layers": 2, "encoder_num_heads": 2, "encoder_ff_interm_features": 16},
    **{
        "encoder_pos_conv_kernel": 4,
        "encoder_pos_conv_groups": 2,
        "encoder_layer_norm_first": False,
        "aux_num_out": None,
    },
    **dict.fromkeys(("encoder_projection_dropout", "encoder_attention_dropout", "encoder_dropout"), 0.0),
    **{"encoder_ff_interm_dropout": 0.0, "encoder_layer_drop": 0.0},
}
TINY = pipelines.Wav2Vec2Bundle("nowhere.pt", SPEECH, 8000, False, "Wav2Vec2")


@pytest.fixture(scope="module")
def root(tmp_path_factory, miniature):
    """Prepared clips of the miniature; afterwards no other test knows the plugin."""
    root = tmp_path_factory.mktemp("peers")
    shutil.copytree(miniature, root / "data")
    yield root
    plugins.use([])


@pytest.fixture(autouse=True)
def inside(root, monkeypatch):
    monkeypatch.chdir(root)


def settings(peers: dict, **changes) -> params.Params:
    """The miniature with a row `peer`, and this changed."""
    row = {"hypothesis": "Others.", "changes": {"training": {"mode": "none", "peers": peers}}}
    values = params.merge(yaml.safe_load(MINIATURE.read_text()), {"ablations": {"peer": row}, "plugins": [str(PLUGIN)]})
    Path("params.yaml").write_text(yaml.safe_dump(params.merge(values, changes), sort_keys=False))
    return params.load()


def opened(modality: str, **peer):
    return open_peers(params.recipe(settings({modality: peer}), "peer"))[modality]


def view_of(frames: torch.Tensor) -> torch.Tensor:
    """Normalises uint8 frames (B, T, H, W, 3) as views are: (B, 3, T, H, W)."""
    scaled = (frames / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    return scaled.permute(0, 4, 1, 2, 3)


def tensors_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone().contiguous() for name, value in network.state_dict().items()}


def test_a_timm_model_sees_the_frames_of_a_clip_and_gives_the_mean_of_its_features():
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_vit").eval()
    save_file(tensors_of(network), "vit.safetensors")
    encoder = opened("video", adapter="timm", model="test_vit", weights="vit.safetensors")
    frames = torch.randint(0, 256, (2, 33, 160, 160, 3), dtype=torch.uint8)  # more than run at once
    pixels = (frames.flatten(0, 1).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5  # mean and deviation of this model
    with torch.inference_mode():
        each = network.forward_head(network.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(
            encoder.features(view_of(frames)), each.view(2, 33, -1).mean(1), rtol=1e-4, atol=1e-5
        )
        plain = torch.full((1, 1, 160, 160, 3), 99, dtype=torch.uint8)
        small, large = (encoder.features(view_of(part)) for part in (plain[:, :, :32, :32], plain))
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-5)  # scaled to what the model takes
    told = describe(encoder)
    assert told["licence"] == "apache-2.0"
    assert told["origin"] == f"timm {timm.__version__} test_vit, weights {told['sha256'][:12]}"


def test_a_torchaudio_model_gets_samples_at_its_own_rate(monkeypatch):
    torch.manual_seed(0)
    network = models.wav2vec2_model(**SPEECH).eval()
    torch.save(network.state_dict(), "speech.pt")
    monkeypatch.setattr(pipelines, "TINY", TINY, raising=False)
    encoder = opened("audio", adapter="torchaudio", model="TINY", weights="speech.pt")
    samples = torch.rand(3, 16000) - 0.5
    with torch.inference_mode():
        layers, _ = network.extract_features(resample(samples, 16000, 8000))
        torch.testing.assert_close(encoder.features(samples), layers[1].mean(1))


def test_a_transformers_model_gets_what_its_own_preprocessing_makes():
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    convolutions = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2}
    config = Wav2Vec2Config(**sizes, **convolutions, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    network = Wav2Vec2Model(config).eval()
    network.save_pretrained("speech")
    Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True).save_pretrained("speech")
    encoder = opened("audio", adapter="transformers", model="tiny", weights="speech", licence="CC BY 4.0")
    samples = torch.rand(3, 4000)
    scaled = (samples - samples.mean(1, keepdim=True)) / (samples.var(1, keepdim=True, correction=0) + 1e-7).sqrt()
    with torch.inference_mode():
        expected = network(scaled).last_hidden_state.mean(1)
        torch.testing.assert_close(encoder.features(samples), expected, rtol=1e-4, atol=1e-5)
    assert describe(encoder)["licence"] == "CC BY 4.0"


def evaluated(chosen: params.Params, out: str, task: str = "linear") -> dict:
    evaluate.run(chosen, MANIFEST, Path(out), task, Path(f"{out}.json"))
    return json.loads(Path(f"{out}.json").read_text())


def test_a_plugins_peers_are_judged_on_the_clips_own_frames_and_samples():
    chosen = settings(PLAIN, tasks={"linear": {"changes": {"C": [1.0]}}})
    for seed in (0, 1):
        pretrain.run(chosen, MANIFEST, "peer", seed, Path(f"plain{seed}"))
        results = evaluated(chosen, f"plain{seed}")
    assert {name.rpartition(".")[0] for name in results["metrics"]} == {
        f"student.{modality}.{method}" for modality in ("video", "audio", "both") for method in ("linear", "knn")
    }
    assert results["peers"]["video"]["origin"] == "mean_colour of simple_peers.py"
    assert results["peers"]["audio"]["licence"] == "CC0"
    metrics = json.loads(Path("plain0/metrics.json").read_text())
    assert metrics["given"]["video"] == "mean_colour of simple_peers.py (licence: MIT)"
    assert metrics["trainable_parameters"] == 0
    assert not Path("features/miniature/peer/seed1").exists()  # features are those of seed 0
    store = open_clips(MANIFEST, "test")
    (folder,) = Path("features/miniature/peer/seed0").glob("miniature-test-*")
    video, audio = (np.fromfile(folder / f"student_{m}.f32", np.float32).reshape(len(store), -1) for m in PLAIN)
    for number in (0, 7):
        frames, samples = store.video(number).float(), store.audio(number)
        corners = [frames[:, :, top : top + 16, left : left + 16] for top in (0, 16) for left in (0, 16)]
        np.testing.assert_allclose(video[number], np.concatenate([c.mean((0, 2, 3)) for c in corners]), rtol=1e-5)
        parts = samples[: 96 * 160].view(8, -1)  # the 96 columns of a view, with a hop of 160
        np.testing.assert_allclose(audio[number], parts.square().mean(1).clamp_min(1e-8).log(), rtol=1e-4)


def test_other_weights_are_refused_until_the_row_is_made_again():
    Path("weights.bin").write_bytes(b"one")
    chosen = settings({"video": {"adapter": "mean_colour", "weights": "weights.bin"}})
    pretrain.run(chosen, MANIFEST, "peer", 0, Path("weighed"))
    before = evaluated(chosen, "weighed")
    Path("weights.bin").write_bytes(b"two")
    with pytest.raises(UserError, match="has other weights than when this row was made; run pretrain for it again"):
        evaluated(chosen, "weighed")
    pretrain.run(chosen, MANIFEST, "peer", 0, Path("weighed"))
    after = evaluated(chosen, "weighed")
    assert after["encoders"] != before["encoders"]  # the table takes no evaluation of other encoders
    assert after["peers"]["video"]["sha256"] != before["peers"]["video"]["sha256"]
    assert after["metrics"] == before["metrics"]
    with pytest.raises(UserError, match="an encoder that is not ours, for rows of tables only"):
        load_encoder("weighed/encoders/video_student")


def test_tasks_that_need_more_than_vectors_are_left_to_other_rows():
    tasks = {name: {"protocol": name} for name in ("finetune", "attentive", "retrieval", "svm")}
    tasks["finetune"]["ablations"] = None
    chosen = settings(PLAIN, tasks=tasks)
    assert params.tasks_of(chosen, "peer") == ["linear", "svm"]
    assert params.tasks_of(chosen, "xkd") == ["linear", "finetune", "attentive", "retrieval", "svm"]
    asked = settings(PLAIN, tasks={"retrieval": {"protocol": "retrieval", "ablations": ["peer"]}})
    assert params.tasks_of(asked, "peer") == ["linear", "retrieval"]
    pretrain.run(asked, MANIFEST, "peer", 0, Path("pair"))
    with pytest.raises(UserError, match="features of video and audio have 8 and 12 values"):
        evaluated(asked, "pair", "retrieval")


@pytest.mark.parametrize(
    ("peers", "changes", "words"),
    [
        (
            PLAIN,
            {"tasks": {"finetune": {"ablations": ["peer"]}}},
            "tasks.finetune: finetune needs encoders of ours, and peer",
        ),
        (PLAIN, {"ablations": {"peer": {"changes": {"training": {"mode": "pretrain"}}}}}, "set mode to none"),
        ({"video": {"adapter": "mean_color"}}, {}, "no adapter 'mean_color'; did you mean 'mean_colour'"),
        ({"video": {"adapter": "timm", "modle": "x"}}, {}, "did you mean 'model'"),
    ],
)
def test_mistakes_in_the_settings_are_one_line(peers, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        settings(peers, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        ({"video": {"adapter": "loudness"}}, "training.peers.video: loudness encodes audio only"),
        (
            {"video": {"adapter": "timm", "model": "test_vit", "weights": "nowhere.pt"}},
            "weights: nowhere.pt: no such file",
        ),
        (
            {"video": {"adapter": "timm", "model": "test_vitt", "weights": "x.pt"}},
            r"cannot open 'test_vitt' .*Unknown model",
        ),
        ({"video": {"adapter": "timm", "model": "test_vit", "weights": "x.pt"}}, r"cannot open 'test_vit' \("),
        ({"audio": {"adapter": "torchaudio", "model": "WAV2VEC_BASE"}}, "did you mean 'WAV2VEC2_BASE'"),
        (
            {"audio": {"adapter": "torchaudio", "model": "TINY"}},
            "cannot open 'TINY' .*no network.*without a network, name",
        ),
        (
            {"audio": {"adapter": "transformers", "model": "x"}},
            r"transformers is not installed; pip install 'xkd\[peers\]'",
        ),
    ],
)
def test_what_cannot_be_opened_is_one_line_before_anything_is_written(peer, words, monkeypatch):
    def offline(*_arguments, **_options):
        raise URLError("no network")

    Path("x.pt").write_bytes(b"no weights")
    monkeypatch.setenv("TORCH_HOME", str(Path("cache").resolve()))
    monkeypatch.setattr(pipelines, "TINY", TINY, raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=words) as caught:
        pretrain.run(settings(peer), MANIFEST, "peer", 0, Path("refused"))
    assert "\n" not in str(caught.value)
    assert not Path("refused").exists() or not runs.is_run(Path("refused"))


def test_a_plan_counts_the_other_rows_and_says_so(capsys):
    plan.run(settings(PLAIN), None, 100.0, 0.3, None, None, False)
    said = capsys.readouterr().out
    assert "not counted, since their encoders are not ours: peer" in said
    with pytest.raises(UserError, match="peer: a row of encoders that are not ours"):
        plan.run(settings(PLAIN), "peer", 100.0, 0.3, None, None, False)
