"""The documentation builds without a network, and what it tells users to type works.

All pages share one small project. It has the settings of the miniature under the names that the pages use. In it

- `xkd` verbs run, page by page, in the order in which a page gives them;
- `snakemake` commands are planned (`--dry-run`), with their targets and their settings file; of a preset that is run as
  a whole, the settings are validated;
- `make` and `dvc` commands are checked for their targets, benchmarks for their options, `pip` for the extras it names;
- Python runs, the blocks of a page one after the other; a block that names a file is a plugin, which its settings load;
- settings are merged with params.yaml and with those above them on the page, and validated;
- the miniature stands in for data sets and weights that would have to be downloaded.
"""

import re
import shutil
import subprocess
import tomllib
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from docs_blocks import FENCES, UNKNOWN, Block, blocks_of, commands_of
from forks import code_of, fork

from xkd import params
from xkd.cli import cli
from xkd.data import listing
from xkd.encoders import folder
from xkd.encoders.config import AudioInput, EncoderConfig, VideoInput
from xkd.encoders.released import encoder_key
from xkd.files import read_json, write_json
from xkd.settings import LogMel

ROOT = Path(__file__).parents[1]
ELSEWHERE = {"commands.md"}  # tests/test_cli.py runs these
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name not in ELSEWHERE]
BLOCKS = {page.relative_to(ROOT).as_posix(): blocks_of(page, ROOT) for page in PAGES}
XKD = (("python", "-m", "xkd"), ("xkd",))
DOWNLOADED = ("esc50", "labelled_digits", "my_clips", "ucf101")
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^>]*>")


def _chosen(kind: str) -> dict[str, list[Block]]:
    """Returns, by page, the blocks of a kind, without those marked as not run."""
    chosen = {page: [b for b in blocks if b.kind == kind and not b.reason] for page, blocks in BLOCKS.items()}
    return {page: blocks for page, blocks in chosen.items() if blocks}


COMMANDS = {page: [c for b in blocks for c in commands_of(b)] for page, blocks in _chosen("commands").items()}


def _verb(command) -> list[str] | None:
    """Returns the words after `xkd` or `python -m xkd`; None for other programs."""
    for start in XKD:
        if command.words[: len(start)] == start:
            return command.expanded()[len(start) - 1 :]
    return None


def _benchmark(command) -> Path | None:
    """Returns the file of `python -m benchmarks.<name>`; None for other programs."""
    module = command.words[2] if command.words[:2] == ("python", "-m") else ""
    return ROOT / f"{module.replace('.', '/')}.py" if module.startswith("benchmarks.") else None


def _of(program: str) -> list:
    return [c for commands in COMMANDS.values() for c in commands if c.words[0] == program]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Trains a miniature under the names of the pages, and puts files beside it such as a user would have."""
    root = tmp_path_factory.mktemp("project")
    for name in ("Snakefile", "workflow", "dvc.yaml"):
        (root / name).symlink_to(ROOT / name)
    settings = yaml.safe_load((ROOT / "workflow" / "presets" / "miniature.yaml").read_text())
    usual = yaml.safe_load((ROOT / "params.yaml").read_text())["datasets"]
    miniature = settings["datasets"]["miniature"]
    settings |= {
        "dataset": "talking_digits",
        "results": "results",
        "seeds": [0],
        "datasets": usual | {"talking_digits": miniature, "labelled_digits": miniature},
        "tasks": {
            "linear": {"protocol": "linear", "dataset": "labelled_digits"},
            "ucf101": {"protocol": "linear", "dataset": "ucf101", "ablations": ["xkd"]},
        },
    }
    settings["training"]["epochs"] = 1
    (root / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (root / "my_settings.yaml").write_text("extends: params.yaml\nseeds: [1]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        _train()
        _stand_in()
    return root


def _train() -> None:
    data, run = "data/talking_digits", "runs/talking_digits/{}/seed0"
    _call("download", "--dataset", "talking_digits", "--out", f"{data}/raw")
    _call("prepare", "--raw", f"{data}/raw/index.csv", "--out", data)
    for name in DOWNLOADED:
        shutil.copytree(data, f"data/{name}")
        summary = Path("data", name, "summary.json")
        write_json(summary, read_json(summary) | {"dataset": name})
    for name in ("ae", "xkd"):
        at = run.format(name)
        _call("pretrain", "--manifest", f"{data}/manifest.csv", "--ablation", name, "--seed", "0", "--out", at)
        _evaluate(at, "linear", "labelled_digits")
    _evaluate(at, "ucf101", "ucf101")
    shutil.copytree("runs/talking_digits", "runs/kinetics400")


def _evaluate(run: str, task: str, dataset: str) -> None:
    out = f"{run.replace('runs', 'evals')}/{task}.json"
    _call("evaluate", "--manifest", f"data/{dataset}/manifest.csv", "--run", run, "--task", task, "--out", out)


def _stand_in() -> None:
    """Writes clips by label, as a user would have them, and tiny weights in the released layout."""
    clips = listing.read_listing(Path("data/talking_digits/raw/index.csv"))
    for row in clips.head(40).itertuples():
        target = Path("my_clips") / row.split / f"digit_{row.label}" / f"{row.Index}.mov"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path("data/talking_digits/raw") / row.path, target)
    shutil.copy(target, "clip.mp4")
    fed = {
        "video": ((4, 16, 16), (8, 7, 7), VideoInput(frames=32, fps=8, short_side=128, size=112)),
        "audio": ((4, 16), (20, 28), AudioInput(frames=448, sample_rate=16000, logmel=LogMel())),
    }
    sizes = {"width": 64, "depth": 1, "heads": 1, "owner": "teacher", "origin": "a test", "licence": "MIT"}
    for modality, (patch, grid, view) in fed.items():
        config = EncoderConfig(modality=modality, patch=patch, grid=grid, input=view, **sizes)
        tensors = {encoder_key(modality, name): t for name, t in folder.build(config).state_dict().items()}
        torch.save(tensors, f"XKD_pretext_kinetics400_ep799{modality[:3]}_teacher.pth.tar")


def _call(*words: str) -> None:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, f"xkd {' '.join(words)}: {done.output} {done.exception!r}"


@pytest.mark.parametrize("block", [block for blocks in BLOCKS.values() for block in blocks], ids=str)
def test_a_block_says_what_it_is(block):
    assert block.kind != UNKNOWN, f"fence it as one of {', '.join(FENCES)} (```text: shown, not tried)"
    if block.reason:
        pytest.skip(block.reason)


def test_no_commands_hide_in_text():
    programs = {command.words[0] for commands in COMMANDS.values() for command in commands}
    shown = [block for blocks in BLOCKS.values() for block in blocks if block.kind == "text"]
    hidden = [
        str(b) for b in shown if programs & {line.split(maxsplit=1)[0] for line in b.text.splitlines() if line.strip()}
    ]
    assert not hidden, "fence these as ```sh, with <!-- not run: why --> above where they cannot be tried"


def test_every_program_has_a_rule():
    known = {"dvc", "export", "make", "pip", "snakemake"}
    commands = [c for of_page in COMMANDS.values() for c in of_page if c.words[:2] != (".", ".venv/bin/activate")]
    strange = [str(c) for c in commands if c.words[0] not in known and not _verb(c) and not _benchmark(c)]
    assert not strange, "no rule for these: write one, or <!-- not run: why --> above the block"


@pytest.mark.parametrize("page", [page for page, commands in COMMANDS.items() if any(map(_verb, commands))])
def test_verbs_run(page, project, monkeypatch):
    monkeypatch.chdir(project)
    _write_files(page)
    for command in COMMANDS[page]:
        if _verb(command):
            with monkeypatch.context() as patch:
                for name, value in command.environment.items():
                    patch.setenv(name, value)
                if "features.parquet" in _verb(command):  # another page wrote it, and `embed` replaces no file unasked
                    Path("features.parquet").unlink(missing_ok=True)
                _call(*_verb(command))


def test_snakemake_plans_what_the_pages_ask_for(project, monkeypatch):
    """Plans once per settings file, for all targets together: a plan takes seconds. Presets are loaded, not planned."""
    from snakemake.cli import get_argument_parser, main

    monkeypatch.chdir(project)
    targets: dict[str, set[str]] = {}
    for page in COMMANDS:
        _write_files(page)
    for command in _of("snakemake"):
        options = get_argument_parser().parse_args(command.expanded())
        settings = command.environment.get("XKD_PARAMS", "params.yaml")
        if settings.startswith("workflow/presets/") and not options.targets:
            params.load(settings)
        else:
            targets.setdefault(settings, set()).update(options.targets or ["all"])
    for settings, names in targets.items():
        words = ["--cores", "1", "--dry-run", "--quiet", "all", "--", *sorted(names)]
        code = code_of(fork(partial(main, words), Path("planned.txt"), {"XKD_PARAMS": settings}))
        assert code == 0, f"{settings}: {' '.join(names)}: {Path('planned.txt').read_text()}"


def test_make_has_what_the_pages_ask_for():
    for command in _of("make"):
        done = subprocess.run(
            ["make", "-n", *command.expanded()], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_dvc_has_the_stages_that_the_pages_ask_for():
    from dvc.cli.parser import get_main_parser

    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    ablations = yaml.safe_load((ROOT / "params.yaml").read_text())["ablations"]
    stages = {f"{name}@{key}" for name in pipeline if "foreach" in pipeline[name] for key in ablations} | set(pipeline)
    for command in _of("dvc"):
        options = get_main_parser().parse_args(command.expanded())
        assert set(getattr(options, "targets", None) or []) <= stages, str(command)


def test_benchmarks_have_the_options_that_the_pages_give():
    for command in (c for commands in COMMANDS.values() for c in commands if _benchmark(c)):
        text = _benchmark(command).read_text()
        assert not [word for word in command.words if word.startswith("--") and f'"{word}"' not in text], str(command)


def test_extras_that_the_pages_install_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in _of("pip"):
        named = [name for word in command.words for name in re.findall(r"\[(\w+)\]$", word)]
        assert command.words[1] == "install", str(command)
        assert set(named) <= set(extras), str(command)


def test_exported_variables_are_read_somewhere():
    text = "".join(path.read_text() for path in [ROOT / "Makefile", *sorted((ROOT / "xkd").rglob("*.py"))])
    for command in _of("export"):
        assert command.words[1].split("=")[0] in text, str(command)


@pytest.mark.parametrize("page", _chosen("python"))
def test_python_runs(page, project, monkeypatch):
    monkeypatch.chdir(project)
    names: dict = {}
    for block in (block for block in _chosen("python")[page] if not block.file):
        # Errors then name the page's own line.
        code = compile("\n" * block.line + block.text, str(ROOT / page), "exec")
        exec(code, names)  # noqa: S102 - our own pages


@pytest.mark.parametrize("page", _chosen("settings"))
def test_settings_are_valid(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write_files(page)
    for name in ("params.yaml", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    merged = {"extends": "params.yaml"}
    for block in _chosen("settings")[page]:
        merged = params.merge(merged, yaml.safe_load(block.text))
        path = tmp_path / "of_the_page.yaml"
        path.write_text(yaml.safe_dump(merged, sort_keys=False))
        params.load(path)


@pytest.mark.parametrize("page", _chosen("list"))
def test_lists_can_be_read(page, tmp_path):
    for block in _chosen("list")[page]:
        path = tmp_path / "list.csv"
        path.write_text(block.text)
        assert listing.paths(path), str(block)


def _write_files(page: str) -> None:
    for block in BLOCKS[page]:
        if block.file:
            Path(block.file).parent.mkdir(exist_ok=True)
            Path(block.file).write_text(block.text)


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path, monkeypatch):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    pages = sorted(tmp_path.rglob("*.html"))
    assert {page.stem for page in PAGES if page.parent == ROOT / "docs"} <= {page.stem for page in pages}
    for page in pages:
        assert not LOADED.findall(page.read_text()), page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet
