"""Damaged, ambiguous or hostile settings files give one line that says where, exit code 2, and nothing else."""

import os
import sys
from pathlib import Path

import pytest
import yaml

from xkd import cli, params

ROOT = Path(__file__).parents[1]
MINIATURE = ROOT / "workflow" / "presets" / "miniature.yaml"
TEXT = MINIATURE.read_text()


def line_of(start):
    """Returns the number of the line of `TEXT` that starts with `start`."""
    return next(n for n, line in enumerate(TEXT.splitlines(), 1) if line.startswith(start))


NEXT = f"line {len(TEXT.splitlines()) + 1}"


def changed(old, new):
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def at(dotted, value):
    """Returns the miniature settings with another value for one key."""
    settings = yaml.safe_load(TEXT)
    *groups, key = dotted.split(".")
    place = settings
    for group in groups:
        place = place.setdefault(group, {})
    place[key] = value
    return settings


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Returns a function that runs a command on a settings file and returns its one line of error."""

    def call(content: str | bytes | dict) -> str:
        path = tmp_path / "bad.yaml"
        content = yaml.safe_dump(content, allow_unicode=True) if isinstance(content, dict) else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return refusal(path)

    def refusal(path) -> str:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["xkd", "plan", "--params", str(path)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr().err
        assert stopped.value.code == 2, said
        assert len(said.splitlines()) == 1
        assert len(said) < 1000
        assert "defect" not in said
        assert sorted(tmp_path.rglob("*")) == before
        return said

    call.at = refusal
    return call


LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{chr(b)}: &{chr(b)} [{', '.join(['*' + chr(b - 1)] * 9)}]\n" for b in range(98, 110)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{chr(b)}: &{chr(b)} {{<<: [{', '.join(['*' + chr(b - 1)] * 9)}]}}\n" for b in range(98, 110)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TEXT + "training: {epochs: 3}\n", ["'training'", "again", NEXT, f"line {line_of('training:')}"]),
        (
            changed("  finetune: {epochs: 1,", "  finetune: {epochs: 1, epochs: 2,"),
            ["'epochs'", f"line {line_of('  finetune: {epochs')}"],
        ),
        (TEXT.replace("  ae:\n", "  xkd:\n"), ["'xkd'", f"line {line_of('  xkd:')}", f"line {line_of('  ae:')}"]),
        ("a: &a {x: 1}\nb: &b {y: 1}\nc: {<<: *a, <<: *b}\n", ["'<<'", "line 3"]),
        ('{"a": 1, a: 2}', ["'a'", "again"]),
        (LAUGHS, ["aliases"]),
        (MERGES, ["aliases"]),
        ("a: &a {b: *a}", ["alias"]),
        ("a: " + "[" * 5000, ["levels"]),
        ("a:\n\t- b", ["line 2", r"'\t'"]),
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), ["UTF-8"]),
        (TEXT.replace("alone.", "alone, caf\xe9.").encode("latin-1"), ["UTF-8"]),
        (b"\x7fELF\x02\x01\x01\x00", ["not valid YAML"]),
        (b"a: \x00", ["not valid YAML"]),
        ('a: "\\0"', ["control character", "U+0000"]),
        ('a: "\\e[31m"', ["control character"]),
        ("x" * 600_000, ["longer than"]),
        ("", ["empty"]),
        ("# nothing\n", ["empty"]),
        ("- a\n- b\n", ["found list"]),
        ("a: 1\n---\nb: 2\n", ["not valid YAML"]),
        ("a: !!python/object/apply:os.system [touch x]", ["tag"]),
        ("a: !!int x", ["tag"]),
        ("a: *nobody", ["nobody"]),
        ("no: {hypothesis: x}\n" + TEXT, ["unknown key 'no'"]),
        (TEXT + "  1: {hypothesis: x}\n", ["the key 1", "quotes", NEXT]),
        (TEXT + "  null: {hypothesis: x}\n", ["the key null", "quotes"]),
        (TEXT + "  ? [a, b]\n  : {hypothesis: x}\n", ["the key this", "quotes"]),
        (changed("learning_rate: 0.001", "learning_rate: .inf"), [f"line {line_of('training:')}", ".inf", "finite"]),
        (changed("learning_rate: 0.001", "learning_rate: -.INF"), ["finite"]),
        (changed("mean: -3.0", "mean: .NaN"), ["finite"]),
        (changed("seconds: 1.0", "seconds: 1e400"), ["1e400", "finite"]),
        (changed("seconds: 1.0", "seconds: 9999999"), ["clips.seconds", "3600"]),
        (TEXT.replace("alignment: 0}", "alignment: .nan}"), ["finite"]),
        (changed("epochs: 2", "epochs: 1000000000000"), ["training.epochs"]),
        (changed("epochs: 2", "epochs: " + "9" * 5000), ["too large"]),
        (changed("epochs: 2", "epochs: 0x2"), ["training.epochs", "'0x2'"]),
        (changed("width: 16", "width: 1000000000"), ["model.width"]),
        (changed("n_fft: 512", "n_fft: 100000000000"), ["logmel.n_fft"]),
        (changed("sample_rate: 16000", "sample_rate: 10000000000"), ["clips.sample_rate"]),
        (changed("f_max: 7600", "f_max: 10"), ["f_min", "f_max"]),
        ("extends: [a, b]\n" + TEXT, ["extends", "['a', 'b']"]),
        ("extends: {a: b}\n", ["extends"]),
        ("extends: 3\n", ["extends"]),
        ("extends: nowhere.yaml\n", ["nowhere.yaml", "cannot be read"]),
        ("extends: .\n", ["folder"]),
        ("extends: bad.yaml\n", ["circle"]),
        ("? " + "k" * 5000 + "\n: 1", ["5000 letters"]),
    ],
)
def test_what_a_settings_file_cannot_mean_is_one_line(refused, content, words):
    said = refused(content)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.epochs", "3"),
        ("training.epochs", True),
        ("training.epochs", 3.0),
        ("training.learning_rate", "0.1"),
        ("training.learning_rate", True),
        ("training.compile", "yes"),
        ("training.compile", 1),
        ("training.betas", [0.9, 1.0]),
        ("training.batch_size", 10**8),
        ("seeds", [True]),
        ("seeds", [-1]),
        ("seeds", [2**40]),
        ("datasets.miniature.seed", -1),
        ("model.depth", 10**6),
        ("model.head", {"out": 10**9}),
        ("objective.teacher_temperature_video", [0.0, 0.1]),
        ("evaluate.linear.C", [0]),
        ("evaluate.linear.C", []),
        ("evaluate.linear.encoders", []),
        ("tasks.linear.folds", [1]),
        ("tasks.linear.modalities", []),
        ("tasks.linear.views", {"video_global": {"size": 10**9}}),
        ("tasks.linear.views", {"video_global": {"size": "32"}}),
        ("tasks.finetune.changes", {"epochs": "3"}),
        ("tasks.linear.changes", {"C": [-1.0]}),
        ("ablations.ae.changes", {"training": {"epochs": 10**12}}),
        ("ablations.ae.changes", {"model": {"width": "16"}}),
        ("ablations.ae.changes", {"objective": ["alignment"]}),
        ("ablations.ae.hypothesis", "x" * 10_000),
        ("ablations.\u0430e", {"hypothesis": "a Cyrillic letter"}),
        ("resources.pretrain", {"memory_gb": 1e12}),
    ],
)
def test_values_of_another_type_or_beyond_all_bounds_are_refused(refused, key, value):
    said = refused(at(key, value))
    assert key.split(".")[-1][:50] in said or key.split(".")[-2] in said, said


def test_what_yaml_may_say_in_two_ways_is_read_as_dvc_reads_it(tmp_path):
    path = tmp_path / "params.yaml"
    text = (
        changed("learning_rate: 0.001", "learning_rate: 1e-3").replace("  ae:\n", "  no:\n").replace(": ae}", ": no}")
    )
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    loaded = params.load(path)
    assert loaded.training.learning_rate == 0.001
    assert set(loaded.ablations) == {"no", "xkd"}


def test_keys_that_an_anchor_brings_in_may_be_overridden(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        changed(
            "  finetune: {protocol",
            "  linear_2: &l {protocol: linear}\n  three: {<<: *l, clips: 3}\n  finetune: {protocol",
        )
    )
    assert params.load(path).tasks["three"].clips == 3


def test_files_that_extend_each_other_are_named(refused, tmp_path):
    for one, other in (("a", "b"), ("b", "c"), ("c", "b")):
        (tmp_path / f"{one}.yaml").write_text(f"extends: {other}.yaml\n")
    said = refused("extends: a.yaml\n")
    assert "circle" in said
    assert "b.yaml -> " in said


def test_a_chain_of_files_may_be_long(tmp_path):
    (tmp_path / "0.yaml").write_text(TEXT)
    for number in range(1, 30):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number - 1}.yaml\nseeds: [{number}]\n")
    assert params.load(tmp_path / "29.yaml").seeds == (29,)


def test_what_is_no_file_is_one_line(refused, tmp_path):
    assert "folder" in refused.at(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused.at(tmp_path / "pipe")
    assert "not a regular file" in refused.at("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read" in refused.at(tmp_path / "loop")
    assert "cannot be read" in refused.at("x" * 500)


@pytest.mark.parametrize(
    "results",
    ["", ".", "..", "/", "../out", "a/../b", "a//b", "a b", "a\nb", "r$(touch X)", "r`touch X`", "r;touch X", "r'x'",
     'r"x"', "{x}", "~/r", "-r", "r/-x", ".git", "data", "data/mine", "Data", "runs", "evals/x", "xkd", "workflow/x",
     "r/", "a" * 600, "r\u200b", "\u0433", 3, None, ["r"]],
)  # fmt: skip
def test_results_go_to_a_folder_of_their_own_with_a_plain_name(refused, results):
    assert "results" in refused(at("results", results))


def test_results_elsewhere_or_through_a_link_are_judged_by_where_they_end(refused, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    for inside in (tmp_path, tmp_path.parent, tmp_path / "data", "link/x"):
        assert "folder of its own" in refused(at("results", str(inside)))
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(at("results", "/somewhere/else-1.0/results")))
    assert params.load(path).results == "/somewhere/else-1.0/results"
