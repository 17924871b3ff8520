"""The code fingerprint sees what a stage can run, and nothing else."""

import ast
import shutil
import sys

import pytest

from xkd import fingerprint, plugins

FILES = {
    "__init__.py": "__version__ = '1'\n",
    "stages/__init__.py": "",
    "stages/train.py": "from xkd.models import net\nfrom xkd import tracking\n\ndef run():\n    return net.f()\n",
    "stages/report.py": "def run():\n    from ..page import make\n    return make()\n",
    "stages/fetch.py": "from xkd import knobs, settings\nfrom xkd.data import facts, lists\n",
    "models/__init__.py": "",
    "models/net.py": '"""Net."""\nfrom .layers import g\n\ndef f():\n    """Doc."""\n    return g()\n',
    "models/layers.py": "def g():\n    return 1\n",
    "page/__init__.py": "from xkd.page.text import make\n",
    "page/text.py": "def make():\n    return 1\n",
    "page/templates/page.html": "<p>",
    "tracking.py": "def log():\n    return 1\n",
    "settings/__init__.py": "LENGTH = 2\n",
    "knobs.py": "LENGTH = Field(2, ge=1, description='how long')\n",
    "data/__init__.py": "",
    "data/lists.py": "def read(path: str) -> str:\n    if not path:\n        raise UserError(f'{path}: name a file')\n"
    "    say('reading')\n    raise MediaError('missing')\n",
    "data/facts.py": "FACTS = 'facts.yaml'\n",
    "data/facts.yaml": "clips: 3  # of the official list\n",
    "data/unread.txt": "1",
}
READ, CODE = fingerprint._code.__wrapped__, {}


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "xkd"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(fingerprint, "PACKAGE", root)
    _forget()
    yield root
    _forget()


@pytest.fixture(autouse=True)
def _read_once(monkeypatch):
    """Remembers by their text what modules contain, which takes most of the time: a test edits one module of many."""

    def code(path):
        text = path.read_text()
        if text not in CODE:
            CODE[text] = READ(path)
        return CODE[text]

    monkeypatch.setattr(fingerprint, "_code", code)


def _forget():
    fingerprint.module.cache_clear()


def _changed(package, file, text) -> set[str]:
    """Stages whose fingerprint an edit changes."""
    before = {name: fingerprint.stage(name) for name in ("train", "report", "fetch")}
    (package / file).write_text(text)
    _forget()
    return {name for name, value in before.items() if fingerprint.stage(name) != value}


@pytest.mark.parametrize(
    ("file", "text", "stages"),
    [
        ("models/layers.py", "def g():\n    return 2\n", {"train"}),
        ("models/layers.py", "# why\n\n\ndef g():\n    return (1)  # one\n", set()),
        ("models/net.py", '"""Other."""\nfrom .layers import g\n\ndef f():\n    """Other."""\n    return g()\n', set()),
        ("models/net.py", "from .layers import g\n\ndef f():\n    'Doc.'\n    return -g()\n", {"train"}),
        ("page/text.py", "def make():\n    return 2\n", {"report"}),
        ("page/templates/page.html", "<div>", {"report"}),
        ("page/__init__.py", "from xkd.page.text import make\nmake = make\n", {"report"}),
        ("tracking.py", "def log():\n    return 2\n", set()),
        ("__init__.py", "__version__ = '2'\n", set()),
        ("data/unread.txt", "2", set()),
        ("data/facts.yaml", "clips: 4\n", {"fetch"}),
    ],
)
def test_edits_change_the_stages_that_can_see_them(package, file, text, stages):
    assert _changed(package, file, text) == stages


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("knobs.py", "how long", "how long, in frames", set()),
        ("knobs.py", "ge=1", "ge=2", {"fetch"}),
        ("knobs.py", "2,", "3,", {"fetch"}),
        ("settings/__init__.py", "2", "3", set()),  # the engines compare the values of settings
        ("data/lists.py", "name a file", "give a file", set()),
        ("data/lists.py", "if not path", "if path", {"fetch"}),
        ("data/lists.py", "'reading'", "'reads'", set()),
        ("data/lists.py", "path: str) -> str", "path: Path) -> Path", set()),
        ("data/lists.py", "'missing'", "'absent'", {"fetch"}),  # a reason that the manifest keeps
        ("data/facts.yaml", "of the official list", "as published", set()),
    ],
)
def test_words_for_people_rerun_nothing(package, file, old, new, stages):
    text = FILES[file]
    assert old in text
    assert _changed(package, file, text.replace(old, new)) == stages


def test_what_was_kept_of_a_module_counts_only_for_the_same_module(package, monkeypatch):
    monkeypatch.setattr(fingerprint, "_code", READ)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    first = fingerprint.stage("train")
    kept = [*(package / "models" / "__pycache__").iterdir()]
    assert len(kept) == 3  # of each module of the folder
    assert _changed(package, "models/layers.py", "def g():\n    return 2\n") == {"train"}
    (package / "models/layers.py").write_text(FILES["models/layers.py"])
    for file in kept:  # another process is writing it
        file.write_text(file.read_text()[:-9])
    _forget()
    assert fingerprint.stage("train") == first


def test_a_docstring_that_is_used_as_a_value_counts(package):
    assert _changed(package, "models/layers.py", "def g():\n    x = 'Doc.'\n    return x\n") == {"train"}


def test_plugins_of_one_file_name_have_a_hash_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / folder / "noise.py" for folder in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text("SCALE = 1\n")
    before = plugins.code(files)
    assert set(before) == {"one/noise.py", "two/noise.py"}
    files[0].write_text("SCALE = 2\n")
    assert {name for name, value in plugins.code(files).items() if value != before[name]} == {"one/noise.py"}


def test_unknown_stage(package):
    with pytest.raises(ValueError, match=r"xkd\.stages\.nothing"):
        fingerprint.stage("nothing")


def test_real_stages_keep_apart():
    """The report's code is no part of training, and training's none of the report."""
    reached = {
        name: fingerprint._reachable(f"xkd.stages.{name}") for name in ("download", "pretrain", "evaluate", "table")
    }
    assert not [m for m in reached["pretrain"] if m.startswith(("xkd.report", "xkd.downstream"))]
    assert not [m for m in reached["evaluate"] if m.startswith(("xkd.report", "xkd.objectives"))]
    assert not [m for m in reached["table"] if m.startswith(("xkd.training", "xkd.models"))]
    ranking = {"xkd.downstream", "xkd.downstream.ranking", "xkd.downstream.labels"}
    assert {m for m in reached["table"] if m.startswith("xkd.downstream")} == ranking, "how the page ranks, no probes"
    assert not [m for m in reached["download"] if m.startswith(("xkd.training", "xkd.models", "xkd.report"))]


STAGES = ("download", "prepare", "pretrain", "evaluate", "table")
RUNS = "pretrain evaluate"
# Parts of the package by the longest prefix of a module's name, and the stages that an edit of their code reruns. What
# is not here reruns nothing: command line, plan, show, tracking, definitions of settings.
RERUNS = {
    "collapse": "table",
    "data": "download prepare pretrain evaluate table",
    "data.allocator": RUNS,
    "data.catalogue": "download prepare table",
    "data.checkup": "",
    "data.clips": "pretrain evaluate table",
    "data.columns": "prepare pretrain evaluate table",
    "data.contact_sheet": "table",
    "data.decode": "prepare pretrain evaluate table",
    "data.encode": "download prepare",
    "data.feed": RUNS,
    "data.finding": "",
    "data.generate": "download",
    "data.labels": RUNS + " table",
    "data.loader": RUNS,
    "data.manifest": "prepare pretrain evaluate table",
    "data.measure": "",
    "data.parts": "",
    "data.opening": "download prepare pretrain evaluate table",
    "data.order": RUNS,
    "data.overlap": "",
    "data.packed": "prepare pretrain evaluate table",
    "data.queue": RUNS,
    "data.reader": "prepare pretrain evaluate table",
    "data.sharding": "",
    "data.shards": "pretrain evaluate table",
    "data.sources": "download",
    "data.sources.state": "",
    "data.staging": RUNS,
    "data.synthetic": "download",
    "data.tracks": "",
    "data.transcode": "prepare",
    "data.views": RUNS,
    "data.windows": "",
    "data.workers": "download prepare",
    "device": RUNS,
    "downstream": "evaluate",
    "downstream.__init__": "evaluate table",
    "downstream.labels": "evaluate table",
    "downstream.monitor": "",
    "downstream.ranking": "evaluate table",
    "encoders": RUNS,
    "encoders.columns": "",
    "encoders.exchange": "",
    "encoders.hub": "",
    "encoders.images": "pretrain",
    "encoders.importing": "",
    "encoders.pair": "",
    "encoders.parcel": "",
    "encoders.pretrained": "",
    "encoders.reading": "",
    "encoders.released": "",
    "encoders.sending": "",
    "encoders.tables": "",
    "encoders.transformer": "",
    "logged": "pretrain evaluate table",
    "modalities": "prepare pretrain evaluate table",
    "models": RUNS,
    "objectives": "pretrain",
    "protocols": "evaluate table",
    "report": "table",
    "runs": "evaluate table",
    "runs.__init__": "pretrain evaluate table",
    "stages.download": "download",
    "stages.evaluate": "evaluate",
    "stages.prepare": "prepare",
    "stages.pretrain": "pretrain",
    "stages.table": "table",
    "training": RUNS,
    "training.embeddings": "pretrain",
    "training.forward": "pretrain",
    "training.job": "pretrain",
    "training.objective": "pretrain",
    "training.peers": "pretrain",
    "training.pretraining": "pretrain",
    "training.samples": "pretrain",
    "training.sharing": "pretrain",
    "sums": "prepare pretrain evaluate table",
    "versions": "pretrain",
    **dict.fromkeys(("csv_files", "errors", "files", "made"), "download prepare pretrain evaluate table"),
    **dict.fromkeys(("params", "recipe", "settings_file"), "pretrain evaluate table"),
}
EDITED = {  # one module of each kind
    "data.synthetic.scene": "download",
    "data.sources.layouts": "download",
    "data.tracks": "",
    "data.transcode": "prepare",
    "modalities.video": "prepare pretrain evaluate table",
    "models.rope": RUNS,
    "objectives.alignment": "pretrain",
    "training.step": RUNS,
    "recipe": "pretrain evaluate table",
    "downstream.knn": "evaluate",
    "downstream.monitor": "",
    "collapse": "table",
    "protocols": "evaluate table",
    "report.curves": "table",
    "plan.counting": "",
    "tracking.run": "",
    "settings.model": "",
}


def _modules() -> list[str]:
    """Lists the modules of the package without its name; a package's own code is `<package>.__init__`."""
    paths = [path.relative_to(fingerprint.PACKAGE).with_suffix("") for path in fingerprint.PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts) for path in paths if path.parts != ("__init__",))


def _rerun_by(module: str) -> str:
    parts = module.split(".")
    prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((RERUNS[prefix] for prefix in prefixes if prefix in RERUNS), "")


class _OtherWords(ast.NodeTransformer):
    """Rewrites what people read in a module: docstrings, descriptions, error and progress texts, annotations."""

    def visit_FunctionDef(self, node):
        for argument in node.args.args:
            argument.annotation = None
        return self._redocumented(node)

    def visit_ClassDef(self, node):
        return self._redocumented(node)

    def visit_Module(self, node):
        return self._redocumented(node)

    def _redocumented(self, node):
        if ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("Other words."))
        return self.generic_visit(node)

    def visit_Call(self, node):
        called = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        if called in ("UserError", "say"):
            node.args = [ast.Constant("other words") if isinstance(a, ast.JoinedStr) else a for a in node.args]
        if called == "Field":
            node.keywords = [
                k if k.arg != "description" else ast.keyword("description", ast.Constant("other"))
                for k in node.keywords
            ]
        return self.generic_visit(node)


@pytest.fixture(scope="module")
def hashes():
    """Returns the hash of each stage of the package as it is."""
    return {name: fingerprint.stage(name) for name in STAGES}


@pytest.fixture
def copy_of_the_package(tmp_path, monkeypatch):
    shutil.copytree(fingerprint.PACKAGE, tmp_path / "xkd", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "xkd")
    _forget()
    yield tmp_path / "xkd"
    _forget()


def test_other_words_comments_and_layout_in_every_module_rerun_nothing(hashes, copy_of_the_package):
    for path in copy_of_the_package.rglob("*.py"):
        tree = _OtherWords().visit(ast.parse(path.read_text()))
        path.write_text(f"# another comment\n{ast.unparse(ast.fix_missing_locations(tree))}\n")
    for path in copy_of_the_package.rglob("*.yaml"):
        path.write_text("# another comment\n" + path.read_text())
    _forget()
    assert {name: fingerprint.stage(name) for name in STAGES} == hashes


def test_an_edit_of_any_module_reruns_the_stages_that_it_can_change_and_no_others():
    reached = {name: fingerprint._reachable(f"xkd.stages.{name}") for name in STAGES}
    for module in _modules():
        name = f"xkd.{module}".removesuffix(".__init__")
        assert " ".join(stage for stage in STAGES if name in reached[stage]) == _rerun_by(module), module


@pytest.mark.parametrize("module", EDITED)
def test_what_a_stage_reaches_is_in_its_hash(hashes, copy_of_the_package, module):
    path = fingerprint._source(f"xkd.{module}")
    path.write_text(path.read_text() + "\nEDITED = 1\n")
    _forget()
    assert " ".join(name for name in STAGES if fingerprint.stage(name) != hashes[name]) == EDITED[module]
