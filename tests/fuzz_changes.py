"""Changes of bytes and of text, drawn at random: what may happen to the content of a file."""

from __future__ import annotations

import random
import re


def bytes_changed(content: bytes, draws: random.Random) -> bytes:
    """Returns content with one to eight changes: bits, runs, lengths, pieces that are gone, doubled or swapped."""
    changed = bytearray(content)
    for _ in range(draws.choice((1, 1, 1, 2, 4, 8))):
        draws.choice(_BYTES)(changed, draws)
    return bytes(changed)


def _span(content: bytearray, draws: random.Random, longest: int = 4096) -> tuple[int, int]:
    start = _place(content, draws)
    return start, start + draws.randint(1, min(longest, max(len(content) // 4, 1)))


def _place(content: bytearray, draws: random.Random) -> int:
    """Draws a position; half of them in the first bytes or the last, where headers are."""
    size, near = len(content), min(len(content), 512)
    return draws.choice((draws.randint(0, size), draws.randint(0, size), draws.randint(0, near), size - near // 2))


def _flip(content: bytearray, draws: random.Random) -> None:
    for _ in range(draws.choice((1, 1, 10, 100)) if content else 0):
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)


def _cut(content: bytearray, draws: random.Random) -> None:
    del content[_place(content, draws) :]


def _remove(content: bytearray, draws: random.Random) -> None:
    start, end = _span(content, draws)
    del content[start:end]


def _insert(content: bytearray, draws: random.Random) -> None:
    place = _place(content, draws)
    content[place:place] = draws.randbytes(draws.choice((1, 4, 100, 5000)))


def _fill(content: bytearray, draws: random.Random) -> None:
    start, end = _span(content, draws)
    content[start:end] = draws.choice((b"\0", b"\xff", b"\x7f", b"A")) * (end - start)


def _double(content: bytearray, draws: random.Random) -> None:
    start, end = _span(content, draws, 1 << 16)
    content[end:end] = content[start:end] * draws.choice((1, 1, 7))


def _swap(content: bytearray, draws: random.Random) -> None:
    (a, b), (c, d) = sorted((_span(content, draws), _span(content, draws)))
    if b <= c:
        content[a:d] = content[c:d] + content[b:c] + content[a:b]


def _extreme(content: bytearray, draws: random.Random) -> None:
    """Sets what may be a length or a count to an extreme."""
    size = draws.choice((1, 2, 4, 8))
    number = draws.choice((0, 1, -1, 1 << 8 * size - 1, (1 << 8 * size - 1) - 1, len(content), 255))
    place = _place(content, draws)
    packed = (number % (1 << 8 * size)).to_bytes(size, draws.choice(("big", "little")))
    content[place : place + size] = packed


_BYTES = (_flip, _flip, _cut, _remove, _insert, _fill, _double, _swap, _extreme, _extreme)

_ODD = (
    *("", " ", "-1", "0", "1", "1e999", "-1e-999", "nan", "inf", "-.inf", "9" * 40, "1e3", "0x10", "1_000", "true"),
    *("null", "~", "[]", "{}", "[[[]]]", "''", '"', "'", ":", ",", ";", "#", "&a", "*a", "<<: *a", "!!python/name:os"),
    *("\0", "\x1b[31m", "\ufeff", "\u202e", "\ud7ff", "é", "e\u0301", "🎥", "\n", "\t", "\r\n", "---", "...", "|", ">"),
    *("../../x", "/etc/passwd", "a" * 5000, "=1+1", "%s%n", "${HOME}", "2026-01-01", "12:30", "yes", "-", "? x"),
)
_TOKEN = re.compile(r"[\w.+-]+|[^\w\s]")


def text_changed(content: str, draws: random.Random) -> str:
    """Returns text with one to four changes: words, lines, nesting, odd characters and numbers."""
    for _ in range(draws.choice((1, 1, 2, 4))):
        content = draws.choice(_TEXTS)(content, draws)
    return content


def _word(content: str, draws: random.Random) -> str:
    found = list(_TOKEN.finditer(content))
    if not found:
        return draws.choice(_ODD)
    one = draws.choice(found)
    by = draws.choice((draws.choice(_ODD), draws.choice(found).group()))
    return content[: one.start()] + by + content[one.end() :]


def _line(content: str, draws: random.Random) -> str:
    lines = content.splitlines(keepends=True) or [""]
    place, other = draws.randrange(len(lines)), draws.choice(lines)
    change = draws.choice(("drop", "double", "move", "indent", "odd"))
    if change == "drop":
        del lines[place]
    elif change == "indent":
        lines[place] = draws.choice((" ", "  ", "\t", "- ")) + lines[place]
    else:
        lines.insert(place, {"double": lines[place], "move": other}.get(change, draws.choice(_ODD) + "\n"))
    return "".join(lines)


def _character(content: str, draws: random.Random) -> str:
    place = draws.randint(0, len(content))
    return content[:place] + draws.choice(_ODD) + content[place + draws.choice((0, 1, 1, 20)) :]


def _nest(content: str, draws: random.Random) -> str:
    one = draws.choice(list(_TOKEN.finditer(content)) or [re.match("", content)])
    left, right = draws.choice((("[", "]"), ('{"a":', "}"), ("(", ")")))
    depth = draws.choice((1, 30, 3000, 100_000))
    return content[: one.start()] + left * depth + one.group() + right * depth + content[one.end() :]


def _end(content: str, draws: random.Random) -> str:
    return content[: draws.randint(0, len(content))]


_TEXTS = (_word, _word, _word, _word, _line, _line, _character, _nest, _end)
