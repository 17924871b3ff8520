"""The code fingerprint sees what a stage can run, and nothing else."""

import pytest

from xkd import fingerprint

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


def _forget():
    for function in (fingerprint.module, fingerprint._parse, fingerprint._tree):
        function.cache_clear()


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


def test_a_docstring_that_is_used_as_a_value_counts(package):
    assert _changed(package, "models/layers.py", "def g():\n    x = 'Doc.'\n    return x\n") == {"train"}


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
