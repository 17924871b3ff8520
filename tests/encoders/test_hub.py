"""Encoders by the hub's conventions: by name or folder, saved and loaded to the bit, sent as one commit."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from encoder_folders import write_encoders
from fake_hub import FakeHub
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index
from run_folders import seal

from xkd import PretrainedEncoder, PretrainedPair, load_encoder, load_pair
from xkd.encoders import folder
from xkd.encoders.card import Known, Score, card
from xkd.errors import UserError

MODALITIES = ("video", "audio")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_encoders(tmp_path_factory.mktemp("run"))


@pytest.fixture
def video(run):
    return run / "encoders" / "video_student"


@pytest.fixture
def hub(monkeypatch):
    return FakeHub().install(monkeypatch)


@pytest.fixture
def cache(run, tmp_path):
    """What the hub's library keeps of two downloads: me/video, one encoder, and me/pair, those of a run."""
    for name, source in (("video", run / "encoders" / "video_student"), ("pair", run)):
        kept, commit = tmp_path / f"models--me--{name}", "a" * 40
        shutil.copytree(source, kept / "snapshots" / commit)
        (kept / "refs").mkdir()
        (kept / "refs" / "main").write_text(commit)
    return {"cache_dir": tmp_path, "local_files_only": True}


def contents(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def clip(modality):
    torch.manual_seed(1)
    return (
        (torch.randint(0, 256, (2, 8, 40, 48, 3), dtype=torch.uint8),)
        if modality == "video"
        else (
            torch.rand(2, 15360) - 0.5,
            16000,
        )
    )


@pytest.mark.parametrize("modality", MODALITIES)
def test_saved_and_loaded_is_equal_to_the_bit(run, tmp_path, modality):
    """Weights, head, config and card, file by file; so features and logits are too."""
    source = run / "encoders" / f"{modality}_student"
    first = PretrainedEncoder.from_pretrained(source, head=True)
    first.save_pretrained(tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(source)
    again = PretrainedEncoder.from_pretrained(str(tmp_path / "copy"), head=True)
    assert again.config == first.config
    features = again(*clip(modality))
    assert torch.equal(features, load_encoder(source)(*clip(modality)))
    assert torch.equal(again.forward_head(features), first.forward_head(features))


def test_what_was_not_loaded_is_not_saved_and_not_expected(video, tmp_path):
    PretrainedEncoder.from_pretrained(video).save_pretrained(tmp_path)
    assert sorted(contents(tmp_path)) == ["README.md", "config.json", "model.safetensors"]
    assert folder.load_head(tmp_path) is None


def test_a_card_with_figures_stays_with_its_weights_alone(video, tmp_path):
    shutil.copytree(video, tmp_path / "with")
    (tmp_path / "with" / "README.md").write_text("# Figures of these weights\n")
    model = PretrainedEncoder.from_pretrained(tmp_path / "with")
    model.save_pretrained(tmp_path / "same")
    assert (tmp_path / "same" / "README.md").read_text() == "# Figures of these weights\n"
    with torch.no_grad():
        model.encoder.norm.bias.add_(1)
    model.save_pretrained(tmp_path / "other")
    assert "No evaluation came with these weights" in (tmp_path / "other" / "README.md").read_text()
    assert folder.read_config(tmp_path / "other").origin == "a test, changed since"
    load_encoder(tmp_path / "other").save_pretrained(tmp_path / "again")
    assert folder.read_config(tmp_path / "again").origin == "a test, changed since"


def test_both_encoders_of_a_run_are_saved_and_loaded(run, tmp_path):
    pair = PretrainedPair.from_pretrained(run)
    pair.save_pretrained(tmp_path)
    again = PretrainedPair.from_pretrained(tmp_path)
    (frames,), sound = clip("video"), clip("audio")
    assert torch.equal(again(frames, *sound).joint, load_pair(run)(frames, *sound).joint)
    assert ModelCard.load(tmp_path / "README.md").data.tags[:3] == ["xkd", "video", "audio"]


def test_names_are_found_where_the_library_keeps_its_downloads(run, cache):
    named = PretrainedEncoder.from_pretrained("me/video", revision="a" * 40, **cache)
    inside = PretrainedEncoder.from_pretrained("me/pair", subfolder="encoders/video_student", head=True, **cache)
    pair = PretrainedPair.from_pretrained("me/pair", **cache)
    expected = load_encoder(run / "encoders" / "video_student")(*clip("video"))
    for model in (named, inside, pair.video):
        assert torch.equal(model(*clip("video")), expected)


def test_a_bit_that_was_flipped_on_the_way_is_an_error(cache, tmp_path):
    weights = tmp_path / "models--me--video" / "snapshots" / ("a" * 40) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors: not the file"):
        PretrainedEncoder.from_pretrained("me/video", **cache)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere", {}, "nowhere: no such folder, nor is it the owner/name"),
        ("./me/x", {}, "no such folder, nor is it"),
        ("me/video", {"revision": "dev"}, "me/video at dev: "),
        ("me/other", {}, "me/other: "),
    ],
)
def test_what_cannot_be_found_is_one_line(cache, name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        PretrainedEncoder.from_pretrained(name, **options, **cache)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_folder_has_no_revision(video):
    with pytest.raises(UserError, match="a folder on this machine, which has no revision v1"):
        PretrainedEncoder.from_pretrained(video, revision="v1")


def test_a_folder_needs_no_library(video, tmp_path):
    code = (
        "import sys; sys.modules['huggingface_hub'] = None; import xkd;"
        "model = xkd.PretrainedEncoder.from_pretrained(sys.argv[1]); model.save_pretrained(sys.argv[2])\n"
        "for call in (lambda: xkd.PretrainedEncoder.from_pretrained('me/x'), lambda: model.push_to_hub('me/x')):\n"
        "    try: call()\n"
        "    except xkd.errors.UserError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(video), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("the hub needs: pip install 'xkd[hub]'") == 2
    assert load_encoder(tmp_path).config.modality == "video"


def test_pushing_makes_one_commit_of_the_saved_files(video, tmp_path, hub):
    model = load_encoder(video, head=True)
    assert model.push_to_hub("me/x", private=True, branch="dev", token="mine", commit_message="first") != ""
    assert hub.created == {"me/x": True}
    assert set(hub.tokens) == {"mine"}
    names = ["README.md", "config.json", "head.safetensors", "model.safetensors"]
    assert hub.commits == [("me/x", names, [], "first", "dev")]
    assert {name: hub.repositories["me/x"][name] for name in names} == contents(video)
    assert model.push_to_hub("me/x") == "", "all was there"
    load_encoder(video).push_to_hub("me/x")
    _, added, gone, _, _ = hub.commits[1]
    assert (added, gone) == (["config.json"], ["head.safetensors"]), "the head does not belong to this one"


def test_a_pair_is_pushed_with_both_encoders(run, hub):
    load_pair(run).push_to_hub("me/pair")
    assert sum(name.endswith("model.safetensors") for name in hub.repositories["me/pair"]) == 2


def test_a_run_is_never_saved_into(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    seal(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="is in the run"):
        load_pair(run).save_pretrained(tmp_path / "run")
    with pytest.raises(UserError, match="is in the run"):
        load_pair(run).video.save_pretrained(tmp_path / "run" / "encoders" / "video_student")
    assert contents(tmp_path) == before


def scored(name, paired=False):
    return Score(name, "linear", "digits", "abc", 2000, 55.25, (52.0, 58.5), paired)


def test_front_matter_is_what_the_library_would_write(video):
    scores = ("student.video.linear.top1", "student.video.linear.map", "student.both.knn.top1")
    known = Known("me/x", "20 clips", (*map(scored, scores), scored("student.audio.retrieval.recall1", paired=True)))
    text = card({"": folder.read_config(video)}, known)
    parsed = ModelCard(text)
    assert str(parsed) == text
    data = parsed.data
    assert isinstance(data, ModelCardData)
    assert (data.library_name, data.pipeline_tag, data.license) == ("xkd", "feature-extraction", "mit")
    assert data.to_dict()["model-index"] == eval_results_to_model_index(data.model_name, data.eval_results)
    assert [(one.task_type, one.metric_type, one.metric_value) for one in data.eval_results] == [
        ("video-classification", "accuracy", 55.25),
        ("video-classification", "mean-average-precision", 55.25),
        ("other", "accuracy", 55.25),
        ("other", "recall1", 55.25),
    ]
    assert "| linear | digits | 2,000 | student.video.linear.top1 | 55.25 | 52.00–58.50 |" in text
    assert "Data other than `digits`" in text
    assert 'from_pretrained("me/x")' in text


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("CC BY-NC 4.0 (weights released by the authors of XKD)", {"license": "cc-by-nc-4.0"}),
        ("MIT", {"license": "mit"}),
        ("not stated (not the weights ...)", {"license": "other", "license_name": "not-stated"}),
        ("Ours: & yours", {"license": "other", "license_name": "ours-yours"}),
    ],
)
def test_licences_have_names_that_the_hub_knows(video, licence, front):
    config = folder.read_config(video).model_copy(update={"licence": licence})
    data = ModelCard(card({"": config})).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == front
    assert f"- {licence}" in card({"": config})


@pytest.mark.parametrize(
    ("origin", "datasets"),
    [
        ("trained with xkd on digits: ablation a, seed 0", ["digits"]),
        (
            "trained with xkd on a: ablation x, seed 0, starting from: trained with xkd on b: ablation y, seed 1",
            ["a", "b"],
        ),
        ("released file XKD_pretext_kinetics400_ep799aud_teacher.pth.tar", ["kinetics400"]),
        ("a test", None),
    ],
)
def test_the_data_that_an_origin_names(video, origin, datasets):
    config = folder.read_config(video).model_copy(update={"origin": origin})
    assert ModelCard(card({"": config})).data.datasets == datasets


def test_a_card_says_nothing_of_this_machine_and_cites_as_the_project_does(video):
    config = folder.read_config(video).model_copy(update={"plugin": "../../home/me/secret/rope2.py"})
    text = card({"": config})
    assert "of rope2.py" in text
    assert "secret" not in text
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    names = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in cited["authors"])
    number = cited["identifiers"][0]["value"].removeprefix("arXiv:")
    for part in (cited["title"], names, cited["collection-title"], str(cited["year"]), number):
        assert f"{{{part}}}" in text
