"""Finds the code blocks of the documentation and says how each of them is tried.

A block's kind is the language of its fence (```sh); a ```text block is shown, not tried. A comment above a block may
say why it is not tried, or name a file that its text is written to, for the blocks below it:

    <!-- not run: downloads 390 GB -->
    <!-- file: my_clips.yaml -->

Not sybil: it evaluates block by block, and most of ours need more (one plan for the commands of all pages, settings
merged down a page, files shared between blocks), which would all be evaluators of our own.
"""

from __future__ import annotations

import glob
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

FENCES = {"python": "python", "sh": "commands", "yaml": "settings", "csv": "list", "text": "text"}
UNKNOWN = "unknown"
NOT_RUN = re.compile(r"<!-- not run: (\S.*?) -->")
FILE = re.compile(r"<!-- file: (\S+) -->")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Block:
    """A code block: the page's path, the line where it starts, a value of `FENCES`, its text, why it is not run."""

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
        """Returns the words after the first; patterns are replaced by the files that match them here."""
        return [name for word in self.words[1:] for name in (sorted(glob.glob(word)) if "*" in word else [word])]


def blocks_of(path: Path, root: Path) -> list[Block]:
    """Returns every code block of a page, in order. An indented block has no language, so its kind is unknown."""
    page, found, before = path.relative_to(root).as_posix(), [], ""
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            reason, file = (match[1] if match else "" for match in (NOT_RUN.search(before), FILE.search(before)))
            found.append(Block(page, token.map[0] + 1, FENCES.get(token.info, UNKNOWN), token.content, reason, file))
        before = token.content if token.type == "html_block" else ""
    return found


def commands_of(block: Block) -> list[Command]:
    """Returns the commands of a block, comments left out and continued lines joined."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        assignments = []
        while words and ASSIGNMENT.fullmatch(words[0]):
            assignments.append(words.pop(0))
        if words:
            found.append(Command(block, tuple(words), dict(a.split("=", 1) for a in assignments)))
    return found
