"""Code blocks of the documentation, and how each of them is tried.

A block is Python, YAML, commands or a CSV list, by its fence (```sh) or, where it is merely indented, by what it says.
A ```text block is shown, not tried. The line above a block may say why it is not tried:

    <!-- not run: downloads 390 GB -->

and may name a file that the block's text is written to, for the blocks below it:

    <!-- file: my_clips.yaml -->
"""

from __future__ import annotations

import ast
import glob
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

COMMANDS = (".", "cd", "dvc", "export", "make", "pip", "pre-commit", "python", "snakemake", "xkd")
FENCES = {"python": "python", "sh": "commands", "bash": "commands", "yaml": "settings", "csv": "list", "text": "text"}
UNKNOWN = "unknown"
NOT_RUN = re.compile(r"<!-- not run: (\S.*?) -->")
FILE = re.compile(r"<!-- file: (\S+) -->")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Block:
    """Args: page, its path; line, where the block starts; kind, a value of `FENCES`; reason, why it is not run."""

    page: str
    line: int
    kind: str
    text: str
    reason: str = ""
    file: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One line of a block: variables set before it, then words as a shell would pass them."""

    block: Block
    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.block}: {' '.join(self.words)}"

    def expanded(self) -> list[str]:
        """Words after the first, patterns replaced by the files that match here."""
        return [name for word in self.words[1:] for name in (sorted(glob.glob(word)) if "*" in word else [word])]


def blocks_of(path: Path, root: Path) -> list[Block]:
    """Every code block of a page, in order."""
    page, found, before = path.relative_to(root).as_posix(), [], ""
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            reason, file = (match[1] if match else "" for match in (NOT_RUN.search(before), FILE.search(before)))
            place = {"page": page, "line": token.map[0] + 1, "reason": reason, "file": file}
            name = token.info.split()[0] if token.info else ""
            kinds = [(FENCES.get(name, UNKNOWN), token.content)] if name else _guessed(token.content)
            found += [Block(kind=kind, text=text, **place) for kind, text in kinds]
        before = token.content if token.type == "html_block" else ""
    return found


def commands_of(block: Block) -> list[Command]:
    """The commands of a block, comments left out and continued lines joined."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        assignments = []
        while words and ASSIGNMENT.fullmatch(words[0]):
            assignments.append(words.pop(0))
        if words:
            found.append(Command(block, tuple(words), dict(a.split("=", 1) for a in assignments)))
    return found


def _guessed(text: str) -> list[tuple[str, str]]:
    """Kinds of an indented block: of the whole or, if that is none of them, of its paragraphs."""
    if _kind(text) != UNKNOWN:
        return [(_kind(text), text)]
    return [(_kind(paragraph), paragraph) for paragraph in text.split("\n\n")]


def _kind(text: str) -> str:
    first = [words[0] for words in map(str.split, _without_assignments(text)) if words]
    if first and all(word in COMMANDS for word in first):
        return "commands"
    if text.startswith("path,"):
        return "list"
    try:
        if isinstance(yaml.safe_load(text), dict):
            return "settings"
    except yaml.YAMLError:
        pass
    try:
        ast.parse(text)
    except SyntaxError:
        return UNKNOWN
    return "python"


def _without_assignments(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [re.sub(rf"^({ASSIGNMENT.pattern}\s+)+", "", line.split("#")[0].strip()) for line in lines]
