"""Tables are safe to open in a spreadsheet, and are read back exactly."""

import csv
import itertools

import pandas as pd
import pytest

from xkd import csv_files
from xkd.data import listing, manifest
from xkd.errors import UserError

HARMFUL = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "-abcdefghij_30",
    "dog;=1+1",
    " =1",
    "\t=1",
    "＝1+1",
    "'=1",
)
HARMLESS = (
    "-5",
    "+1.5e-3",
    "dog;-5",
    "nan",
    "NA",
    "",
    "007",
    "'tis",
    "a-b",
    "ü;犬",
    "a, b",
    'say "b"',
    "x=1; y=2",
    " b ",
)


def runs(cell):
    """Returns True if a spreadsheet would run a cell, or a part of it after ";", as a formula."""
    try:
        return float(cell) and False
    except ValueError:
        return any(part.lstrip().startswith(tuple("=+-@＝＋－＠\t\r")) for part in cell.split(";") if part != "-5")


def test_no_cell_is_a_formula_and_all_come_back(tmp_path):
    table = pd.DataFrame({"text": [*HARMFUL, *HARMLESS], "number": -1.5})
    csv_files.write_csv(tmp_path / "a.csv", table)
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not any(runs(row["text"]) for row in rows)
    assert sum(map(runs, HARMFUL)) == len(HARMFUL) - 1
    assert [row["text"] for row in rows[len(HARMFUL) :]] == list(HARMLESS)
    assert {row["number"] for row in rows} == {"-1.5"}
    assert csv_files.read_csv(tmp_path / "a.csv")["text"].tolist() == table["text"].tolist()


def test_every_text_comes_back(tmp_path):
    texts = ["".join(letters) for n in range(6) for letters in itertools.product("'=-5; ", repeat=n)]
    csv_files.write_csv(tmp_path / "a.csv", pd.DataFrame({"text": texts, "end": "."}))
    assert csv_files.read_csv(tmp_path / "a.csv")["text"].tolist() == texts


def test_lists_and_manifests_keep_ids_that_look_like_formulas(tmp_path):
    ids = ["-abcdefghij_30", "=1+1", "@dog", "plain", "-5"]
    table = listing.completed(pd.DataFrame({"id": ids, "path": [f"{id}.mp4" for id in ids], "label": ids}))
    listing.write_listing(tmp_path / "index.csv", table)
    assert listing.read_listing(tmp_path / "index.csv").equals(table)
    rows = table.assign(**{name: "" for name in manifest.MANIFEST_COLUMNS if name not in table})
    manifest.write_manifest(tmp_path / "manifest.csv", rows)
    found = manifest.read_manifest(tmp_path / "manifest.csv")
    assert found.all_rows["id"].tolist() == found.all_rows["label"].tolist() == ids
    rows.to_csv(
        tmp_path / "before.csv", index=False, columns=list(manifest.MANIFEST_COLUMNS)
    )  # as earlier versions wrote it
    assert manifest.read_manifest(tmp_path / "before.csv").hash == found.hash
    with open(tmp_path / "manifest.csv", newline="") as file:
        assert not any(runs(cell) for line in csv.reader(file) for cell in line)


def test_every_table_is_written_by_one_function():
    """Official lists are read as they are, and the hash of a manifest is of its plain text."""
    from xkd.fingerprint import PACKAGE

    found = {path.name for path in PACKAGE.rglob("*.py") if ".to_csv(" in path.read_text()}
    assert found == {"csv_files.py", "manifest.py"}


def test_labels_that_look_the_same_are_the_same():
    labels = ["dog ", "cafe\u0301", "a ;b", "b;a;b", "NA", "nan", "007", "7", ""]
    table = listing.checked(listing.completed(pd.DataFrame({"path": "x.mp4", "label": labels})), "mine")
    assert table["label"].tolist() == ["dog", "café", "a;b", "b;a", "NA", "nan", "007", "7", ""]


@pytest.mark.parametrize("column", ["id", "path", "label", "video_source"])
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\tb", "a\0b", "a\u2028b"])
def test_control_characters_in_names_are_refused(column, text):
    table = listing.completed(pd.DataFrame({"path": ["x.mp4", "y.mp4"]}).assign(**{column: ["fine", text]}))
    with pytest.raises(
        UserError, match=rf"mine: line 3: {'id' if column == 'path' else column} 'a.*b' holds a control character"
    ):
        listing.checked(table, "mine")


@pytest.mark.parametrize("label", ["a;", ";a", "a;;b", "a; ;b"])
def test_an_empty_label_among_several_is_refused(label):
    table = listing.completed(pd.DataFrame({"path": ["x.mp4"], "label": [label]}))
    with pytest.raises(UserError, match="mine: line 2: label '.*' has an empty label between ';'"):
        listing.checked(table, "mine")


def test_file_names_that_are_not_utf8_are_refused(tmp_path):
    from xkd.data.sources import layouts
    from xkd.data.sources.tree import Tree

    (tmp_path / "dog").mkdir()
    open(bytes(tmp_path / "dog") + b"/\xff.mp4", "w").close()
    with pytest.raises(UserError, match=r"dog/\\udcff.mp4': a name that is not UTF-8; rename the file"):
        layouts.class_folders(Tree(tmp_path))
