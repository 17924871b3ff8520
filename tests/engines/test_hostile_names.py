"""Names and paths of the settings that would be commands: refused, or only ever a name to the shell."""

from typing import Annotated, get_args, get_origin

import pytest
import yaml
from engine_project import Project
from pydantic import BaseModel

from xkd import params
from xkd.errors import UserError
from xkd.settings import Params, Views

EVIL = "x'; touch HURT; '\"; touch HURT; \"$(touch HURT)`touch HURT` {wildcards} {log} & touch HURT #"
OTHERS = (
    "$(touch HURT)",
    "a b",
    "`touch HURT`",
    "a;touch HURT",
    "a|b",
    "--help",
    "{x}",
    "a'b",
    'a"b',
    "\\",
    "*",
    "../up",
    "a\nb",
    "",
)
NAMES = {"datasets": "miniature", "tasks": "linear", "ablations": "xkd"}


def text_keys(annotation, key=()):
    """Where the settings may hold text: every field that takes it, its place in lists, and the names of entries."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from text_keys(arguments[0], key)
    elif annotation is str:
        yield key
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from text_keys(field.annotation, (*key, name))
    elif origin is dict and key[-1] in NAMES:
        yield (*key, None)
        yield from text_keys(arguments[1], (*key, NAMES[key[-1]]))
    elif origin is dict:
        yield (*key, None)
    elif origin is tuple:
        yield from text_keys(arguments[0], (*key, 0))
    else:
        for argument in arguments:
            yield from text_keys(argument, key)


def with_text(settings, key, text):
    """The settings with a text in one place; None as the last part of a key stands for the name of an entry."""
    place = settings
    for part in key[:-1]:
        place = place.setdefault(part, [] if key[-1] == 0 and part == key[-2] else {})
    if key[-1] is None:
        place[text] = dict(next(iter(place.values()), {}))
    elif key[-1] == 0:
        place[:] = [text]
    else:
        place[key[-1]] = text
    return settings


KEYS = sorted(set(text_keys(Params)), key=str)
# Their text names files and folds that stages look for, or is shown to people.
FREE = {
    ("datasets", "miniature", "source"),
    ("training", "weights", 0),
    ("training", "stage_to"),
    ("tasks", "linear", "folds", 0),
    *(("ablations", "xkd", name) for name in ("hypothesis", "paper", "paper_table")),
}


def loads(settings, path):
    path.write_text(yaml.safe_dump(settings))
    try:
        params.load(path)
        return True
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    return False


def miniature():
    return yaml.safe_load((Project.MINIATURE).read_text())


def test_the_walk_finds_what_it_should():
    assert set(KEYS) >= FREE
    assert {("results",), ("dataset",), ("extends",), ("ablations", None), ("report", "baseline")} <= set(KEYS)
    assert ("training", "weights", 0) in KEYS
    assert set(Views.model_fields).isdisjoint(key[0] for key in KEYS)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: ".".join(map(str, key)))
def test_every_text_of_the_settings_is_a_plain_name_or_never_reaches_a_command(key, tmp_path):
    """What is accepted as free text is tried in commands by the test below."""
    accepted = [text for text in (EVIL, *OTHERS) if loads(with_text(miniature(), key, text), tmp_path / "p.yaml")]
    assert not accepted or key in FREE, accepted


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The miniature with quick stages, one row and one seed, in a folder and by a settings file with odd names."""
    project = Project(
        tmp_path_factory.mktemp("engines") / "it's (my $(touch HURT) & `touch HURT`; \"project", standins=True
    )
    settings = project.settings() | {"seeds": [0], "report": {"baseline": "xkd"}}
    settings["ablations"] = {"xkd": settings["ablations"]["xkd"]}
    settings["tasks"] = {"linear": settings["tasks"]["linear"]}
    project.write(settings)
    return project


def hurt(project):
    return [path for path in project.root.parent.rglob("*HURT*") if path != project.root]


def test_free_text_in_every_place_and_odd_names_around_run_no_command(project):
    settings = project.settings()
    for key in FREE - {("training", "weights", 0), ("training", "stage_to"), ("datasets", "miniature", "source")}:
        text = EVIL if "folds" not in key else EVIL.replace(" ", "")
        with_text(settings, key, text)
    name = EVIL.replace("{wildcards} {log} ", "")
    (project.root / name).write_text("path\n")
    settings["datasets"]["miniature"] = {"kind": "manifest", "source": name}
    weights = project.root / "weights" / name
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_text("")
    settings["training"] |= {"weights": [f"weights/{name}"], "stage_to": name}
    (project.root / "Ann's (settings) {log}; touch HURT.yaml").write_text(yaml.safe_dump(settings))
    done = project.snakemake("--printshellcmds", XKD_PARAMS="Ann's (settings) {log}; touch HURT.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    commands = [line for line in (done.stdout + done.stderr).splitlines() if "-m xkd " in line]
    assert len(commands) == 5
    assert not any("touch" in command for command in commands)
    assert "table" in (project.root / "executed.txt").read_text()
    assert [path.name for path in hurt(project) if path.name == "HURT"] == []


@pytest.mark.parametrize("name", ["$(touch HURT).yaml", 'a"b.yaml'])
def test_a_settings_file_whose_name_is_a_command_is_refused(project, name):
    (project.root / name).write_text(yaml.safe_dump(project.settings()))
    done = project.snakemake("--dry-run", XKD_PARAMS=name)
    assert done.returncode == 2
    assert "XKD_PARAMS" in done.stderr.splitlines()[-1]
    assert not (project.root / "HURT").exists()


def test_names_that_are_commands_do_nothing_in_dvc_either(project):
    good = project.settings()
    for target, change in (
        ("data", {"dataset": "x$(touch HURT)"}),
        ("pretrain", {"ablations": {"x'$(touch HURT)'": good["ablations"]["xkd"]}}),
    ):
        project.write(good | change)
        done = project.dvc("--single-item", "--glob", f"{target}*")
        assert done.returncode != 0
        assert [path.name for path in hurt(project) if path.name == "HURT"] == []
    project.write(good)
