"""`xkd push`: what is sent of an encoder or a run, where to, and what is refused."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import fsspec
import httpx2
import huggingface_hub
import pytest
from click.testing import CliRunner
from encoder_folders import write_encoders
from fake_hub import FakeHub
from huggingface_hub import ModelCard
from run_folders import seal

from xkd import PretrainedPair, load_encoder, runs
from xkd.cli import cli
from xkd.encoders import folder
from xkd.errors import UserError
from xkd.stages import push

ENCODER = Path("runs/digits/xkd/seed0/encoders/video_student")
RUN = ENCODER.parents[1]
FILES = {"README.md", "config.json", "head.safetensors", "model.safetensors"}
METRICS = {"student.video.linear.top1": 55.25, "student.audio.linear.top1": 70.5, "student.both.linear.top1": 80.125}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with two encoders and what lies beside them, and an evaluation of it."""
    root = tmp_path_factory.mktemp("made")
    run, evaluation = root / RUN, root / "evals/digits/xkd/seed0/linear.json"
    write_encoders(run)
    (run / "encoders" / "video_student" / "secret.log").write_text("/home/me")
    (run / "metrics.json").write_text(json.dumps({"manifest": "abc", "trainable_parameters": 1, "clips": 2600}))
    (run / "config.json").write_text("{}")
    seal(run)
    index = json.loads((run / runs.INDEX).read_text()) | {"run": "digits/xkd/seed0"}
    (run / runs.INDEX).write_text(json.dumps(index))
    evaluation.parent.mkdir(parents=True)
    results = {"dataset": "labelled", "task": "linear", "protocol": "linear", "manifest": "def", "items": {}}
    results |= {"clips": {"train": 300, "test": 2000}, "metrics": METRICS, "files": {}}
    results |= {"intervals": {"student.video.linear.top1": [52.0, 58.5]}, "encoders": runs.encoders_hash(run)}
    evaluation.write_text(json.dumps(results))
    evaluation.with_suffix(".times.json").write_text("{}")
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def hub(monkeypatch):
    return FakeHub().install(monkeypatch)


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def xkd(*arguments):
    return CliRunner().invoke(cli, ["push", *map(str, arguments)], catch_exceptions=False)


def contents(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def figures(text: str) -> dict[str, float]:
    results = ModelCard(text).data.eval_results or []
    return {one.metric_name.split()[0]: one.metric_value for one in results}


@pytest.mark.parametrize("target", ["hf://me/x", "out", "file://{}/out", "memory://bucket/x"])
def test_nothing_is_sent_without_being_asked_for(project, hub, memory, target):
    before = contents(project)
    shown = xkd(ENCODER, target.format(project)).output
    for name in FILES:
        assert f"  {name}\n" in shown
    assert f"{(ENCODER / 'model.safetensors').stat().st_size:,}  model.safetensors" in shown
    assert "model-index:" in shown
    assert shown.endswith("Nothing was sent: add --send to send it\n")
    assert contents(project) == before
    assert (hub.tokens, hub.commits, memory.store) == ([], [], {})


@pytest.mark.parametrize("target", ["out", "file://{}/out"])
def test_an_encoder_arrives_with_the_figures_of_its_run_and_nothing_else(project, target):
    before = contents(project / "runs")
    assert xkd(ENCODER, target.format(project), "--send").output == f"4 of 4 files sent to {target.format(project)}\n"
    arrived = contents(project / "out")
    assert set(arrived) == FILES
    assert {name: arrived[name] for name in FILES - {"README.md"}} == {
        name: (ENCODER / name).read_bytes() for name in FILES - {"README.md"}
    }
    text = arrived["README.md"].decode()
    assert figures(text) == {"student.video.linear.top1": 55.25}
    assert "2,600 clips, manifest abc" in text
    assert str(project) not in text
    assert load_encoder(project / "out", head=True).config == folder.read_config(ENCODER)
    assert contents(project / "runs") == before
    runs.check(RUN)
    assert "holds all of it already" in xkd(ENCODER, target.format(project), "--send").output


def test_a_run_arrives_as_a_pair(project, memory):
    xkd(RUN, "memory://bucket/run", "--send")
    names = {f"encoders/{modality}_student/{name}" for modality in ("video", "audio") for name in FILES}
    assert {name.removeprefix("/bucket/run/") for name in memory.store} == names | {"README.md"}
    assert figures(memory.cat("/bucket/run/README.md").decode()) == METRICS
    memory.get("/bucket/run", str(project / "back"), recursive=True)
    assert PretrainedPair.from_pretrained(project / "back").audio.config.owner == "student"
    (of_audio,) = figures((project / "back" / "encoders" / "audio_student" / "README.md").read_text())
    assert of_audio == "student.audio.linear.top1"


def test_the_hub_gets_one_commit_and_a_card_that_names_the_repository(project, hub):
    assert "sent to address of commit 1" in xkd(ENCODER, "hf://me/x@dev", "--send", "--private").output
    ((name, added, gone, _, branch),) = hub.commits
    assert (name, set(added), gone, branch, hub.created) == ("me/x", FILES, [], "dev", {"me/x": True})
    assert 'from_pretrained("me/x")' in hub.repositories["me/x"]["README.md"].decode()
    assert "holds all of it already" in xkd(ENCODER, "hf://me/x@dev", "--send").output
    assert len(hub.commits) == 1


@pytest.mark.parametrize("target", ["hf://me/x", "out", "memory://x"])
def test_another_encoder_there_is_replaced_only_by_force(project, hub, memory, capsys, target):
    push.run(ENCODER, target, send=True)
    bare = project / "bare"
    load_encoder(ENCODER.with_name("audio_student")).save_pretrained(bare)  # without a head
    with pytest.raises(
        UserError, match=r"holds another \S+ and 3 more; name another target, or replace it with --force"
    ):
        push.run(bare, target, send=True)
    capsys.readouterr()
    push.run(bare, target, send=True, force=True)
    assert capsys.readouterr().out.startswith("3 of 3 files sent to ")
    held = {
        "hf": lambda: {n: c for n, c in hub.repositories["me/x"].items() if n != ".gitattributes"},
        "out": lambda: contents(project / "out"),
        "memory": lambda: {name.removeprefix("/x/"): memory.cat(name) for name in memory.store},
    }[target.split(":")[0]]()
    of_hub = {"README.md"} if target.startswith("hf") else set()  # its card names the repository
    assert held.keys() == contents(bare).keys()
    assert {n: c for n, c in held.items() if n not in of_hub} == {
        n: c for n, c in contents(bare).items() if n not in of_hub
    }


def test_files_of_others_in_the_target_are_left_alone(project):
    (project / "out").mkdir()
    (project / "out" / "notes.txt").write_text("mine")
    push.run(ENCODER, "out", send=True, force=True)
    assert (project / "out" / "notes.txt").read_text() == "mine"


def test_what_arrives_damaged_is_noticed(project, memory, monkeypatch):
    put = type(memory).put_file

    def damaging(self, source, target, **options):
        put(self, source, target, **options)
        data = bytearray(self.cat(target))
        data[-1] ^= 1
        self.pipe_file(target, bytes(data))

    monkeypatch.setattr(type(memory), "put_file", damaging)
    with pytest.raises(UserError, match=r"memory://x/model\.safetensors: did not arrive as it was sent"):
        push.run(ENCODER, "memory://x", send=True)


def test_an_interrupted_push_leaves_nothing_that_loads(project, memory, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(memory), "pipe_file", full)
    with pytest.raises(UserError, match="memory://x: No space left on device"):
        push.run(ENCODER, "memory://x", send=True)
    assert not memory.exists("/x/config.json")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("nothing", "out", "nothing/config.json: missing; name the folder of an encoder"),
        (ENCODER, "s3://bucket/x", "s3://bucket/x: Install s3fs"),
        (ENCODER, "nowhere://x", "nowhere://x: Protocol not known"),
        (ENCODER, "hf://x", r"hf://x: not a repository; write hf://owner/name"),
        (ENCODER, "hf://datasets/me/x", "not a repository"),
        (ENCODER, "hf://me/x/file", "not a repository"),
        (ENCODER, RUN / "copy", "is in the run"),
        (ENCODER, ENCODER, "is in the run"),
    ],
)
def test_what_cannot_be_pushed_is_one_line_before_anything_is_sent(project, source, target, message):
    for send in (False, True):
        with pytest.raises(UserError, match=message) as caught:
            push.run(Path(source), str(target), send=send)
        assert "\n" not in str(caught.value)


def test_without_a_token_or_the_library(project, monkeypatch):
    FakeHub().install(monkeypatch, token=None)
    with pytest.raises(UserError, match=r"hf://me/x: no token for the hub; run `hf auth login`, or set HF_TOKEN"):
        push.run(ENCODER, "hf://me/x", send=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'xkd\[hub\]'"):
        push.run(ENCODER, "hf://me/x")


@pytest.mark.parametrize(
    ("code", "message"),
    [(401, "no valid token"), (403, "the token does not allow this"), (500, "the server is tired")],
)
def test_what_the_hub_refuses_is_one_line(project, hub, code, message):
    def refuse(*_, **__):
        response = httpx2.Response(code, request=httpx2.Request("GET", "hf://me/x"))
        raise huggingface_hub.errors.HfHubHTTPError(
            "many\nlines", response=response, server_message="the server is\ntired"
        )

    hub.create_commit = refuse
    with pytest.raises(UserError, match=f"^hf://me/x: {message}$"):
        push.run(ENCODER, "hf://me/x", send=True)


def test_files_that_were_changed_are_not_sent(project):
    alone = project / "alone"
    shutil.copytree(ENCODER, alone)
    data = bytearray((alone / "head.safetensors").read_bytes())
    data[-1] ^= 1
    (alone / "head.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"head\.safetensors: not the file"):
        push.run(alone, "out", send=True)
    (RUN / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics\.json: not the file"):
        push.run(RUN, "out", send=True)
    assert not (project / "out").exists()


def test_an_encoder_of_an_earlier_version_or_a_plugin_is_completed(project):
    """It gets hashes, and the path of the plugin stays here."""
    alone = project / "alone"
    shutil.copytree(ENCODER, alone)
    config = json.loads((alone / "config.json").read_text())
    del config["sha256"]
    (alone / "config.json").write_text(json.dumps(config | {"plugin": "../me/rope2.py"}))
    push.run(alone, "out", send=True)
    sent = json.loads((project / "out" / "config.json").read_text())
    assert sent["plugin"] == "rope2.py"
    assert sent["sha256"]["model.safetensors"] == hashlib.sha256((alone / "model.safetensors").read_bytes()).hexdigest()


def test_an_encoder_alone_is_sent_with_its_own_card(project):
    """Edited, for example to state a licence, or with the figures that an earlier push put there."""
    push.run(ENCODER, "first", send=True)
    card = project / "first" / "README.md"
    card.write_text(card.read_text().replace("license: mit", "license: apache-2.0"))
    push.run(project / "first", "second", send=True)
    assert contents(project / "second") == contents(project / "first")
    with pytest.raises(UserError, match="first: not in a run"):
        push.run(project / "first", "third", evals=Path("evals/digits/xkd/seed0"))


def test_evaluations_are_those_of_these_weights(project, capsys):
    path = project / "evals/digits/xkd/seed0/linear.json"
    results = json.loads(path.read_text())
    path.rename(project / "linear.json")
    push.run(ENCODER, "out")
    shown = capsys.readouterr()
    assert "no evaluations in evals/digits/xkd/seed0: the card has no figures" in shown.out + shown.err
    assert "No evaluation came with these weights" in shown.out
    with pytest.raises(UserError, match="nowhere: no evaluations there"):
        push.run(ENCODER, "out", evals=Path("nowhere"))
    path.write_text(json.dumps(results | {"encoders": "others"}))
    with pytest.raises(UserError, match="judges other encoders than those in"):
        push.run(RUN, "out")
    shutil.move(project / "linear.json", path)
    push.run(ENCODER, "out", evals=path.parent)
    assert "55.25" in capsys.readouterr().out
