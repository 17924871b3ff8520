"""A fixed sample of damaged inputs; XKD_FUZZ=2000 tries that many of each kind (see `fuzz_readers`, `fuzz_kinds`)."""

import json
import os
import random

import fuzz_changes
import fuzz_kinds
import fuzz_readers
import fuzz_world
import fuzzing
import pytest

MANY = int(os.environ.get("XKD_FUZZ", "0"))
# Kinds whose commands take a second or less of a processor.
QUICK = (
    *("media, prepare", "media, embed", "archives", "official lists", "own lists", "encoder folders", "checkpoints"),
    *(
        "places of the user",
        "odd media, prepare",
        "scripts, embed",
        "tensors of encoders",
        "settings without a meaning",
    ),
)
LARGE = ("archives in archives",)  # unpacks a gigabyte


@pytest.fixture(scope="session")
def world(made_once):
    return made_once("fuzz_world", fuzz_world.make)


@pytest.mark.parametrize("name", [name for name in fuzz_readers.READERS if MANY or name not in LARGE])
def test_what_reads_a_damaged_file_returns_it_or_says_in_one_line_what_is_wrong(world, tmp_path, name):
    for number in range(MANY or 2):
        _, fault = fuzz_readers.attempt(fuzz_readers.READERS[name], world, tmp_path / "copy", number)
        assert fault is None, (number, fault)


@pytest.mark.parametrize("name", fuzz_kinds.KINDS if MANY else QUICK)
def test_commands_on_damaged_inputs_end_well_or_with_one_line(world, tmp_path, name):
    kind = fuzz_kinds.KINDS[name]
    for number in range(-(-MANY // kind.inputs) or 1):
        outcome = fuzzing.trial(kind, world, tmp_path / "copy", number)
        assert not outcome.faults, (number, outcome)


# The guards of a trial themselves


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("open('../elsewhere', 'w')", "open "),
        ("open('params.yaml', 'a').write('#')", "changed params.yaml"),
        ("__import__('os').rename('params.yaml', 'other')", "changed params.yaml"),
        ("__import__('socket').create_connection(('127.0.0.1', 9))", "socket."),
        ("__import__('os').system('true')", "starts "),
        ("1 / 0", "a traceback"),
        ("exit(5)", "exit code 5"),
        ("print('xkd: error: one\\nxkd: error: two', file=__import__('sys').stderr) or exit(2)", "2 lines of error"),
        ("__import__('time').sleep(1000)", "hangs"),
    ],
)
def test_a_trial_notices(tmp_path, monkeypatch, change, fault):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "params.yaml").write_text("a: 1\n")
    monkeypatch.setattr(fuzzing, "SECONDS", 1.0 if fault == "hangs" else 300.0)
    monkeypatch.setattr(fuzzing.cli, "cli", lambda **_: exec(change))
    monkeypatch.setattr(fuzzing.cli.cli, "main", fuzzing.cli.cli, raising=False)
    assert any(fault in found for found in fuzzing.run([], tmp_path / "place").faults)


def test_a_trial_lets_a_command_write_its_output(tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    monkeypatch.setattr(fuzzing.cli, "cli", lambda **_: os.makedirs("out") or open("out/a", "w").close())  # noqa: SIM115
    monkeypatch.setattr(fuzzing.cli.cli, "main", fuzzing.cli.cli, raising=False)
    assert fuzzing.run([], tmp_path / "place") == fuzzing.Outcome(0, "")


def test_changes_are_those_of_a_number():
    content, text = bytes(range(256)) * 20, json.dumps({"a": [1, 2, {"b": "c"}]})
    for number in range(20):
        one, again = (fuzz_changes.bytes_changed(content, random.Random(number)) for _ in range(2))
        assert one == again
        fuzz_changes.text_changed(text, random.Random(number))
    assert len({fuzz_changes.bytes_changed(content, random.Random(number)) for number in range(50)}) > 40
