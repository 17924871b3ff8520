"""Sums of the 64-bit words of a file's blocks, by which any part of it is checked as it is read.

A cryptographic hash or a CRC of a clip takes longer than reading it; this sum takes less than a tenth of that. It
differs after any single flipped bit, any other content of one word, and a block that was lost or moved. That files are
those that xkd wrote is what SHA-256 tells, see `xkd verify`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

BLOCK = 2**15  # bytes
AT_ONCE = 2**24  # bytes that are mapped and summed at once
WORD = 8


def of_rows(rows: np.ndarray) -> np.ndarray:
    """Computes the sum of each row.

    Args:
        rows: (n, bytes) uint8; a last word that is not whole is filled with zeros.

    Returns:
        (n,) uint64.
    """
    whole = rows.shape[1] // WORD * WORD
    found: np.ndarray = rows[:, :whole].view(np.uint64).sum(axis=1, dtype=np.uint64)
    if whole < rows.shape[1]:
        rest = np.zeros((len(rows), WORD), np.uint8)
        rest[:, : rows.shape[1] - whole] = rows[:, whole:]
        found += rest.view(np.uint64)[:, 0]
    return found


def of_blocks(content: np.ndarray) -> np.ndarray:
    """Computes the sum of each block of `BLOCK` bytes, the last of which may be shorter; content is (n,) uint8."""
    whole = len(content) // BLOCK * BLOCK
    found = of_rows(content[:whole].reshape(-1, BLOCK))
    return np.append(found, of_rows(content[None, whole:])) if whole < len(content) else found


def of_file(path: Path) -> np.ndarray:
    """Computes the sum of each block of a file."""
    size = path.stat().st_size
    parts = [of_blocks(mapped(path)[first : first + AT_ONCE]) for first in range(0, size, AT_ONCE)]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def total(content: np.ndarray) -> int:
    """Returns the sum of all words of (n,) uint8."""
    return int(of_blocks(content).sum(dtype=np.uint64))


def mapped(path: Path) -> np.ndarray:
    """Maps a file into memory: (n,) uint8, a plain array, since to cut a memmap takes several times as long."""
    return np.memmap(path, np.uint8, "r").view(np.ndarray) if path.stat().st_size else np.empty(0, np.uint8)


def around(begin: int, end: int, size: int) -> tuple[int, int]:
    """Returns where the whole blocks begin and end that hold the bytes from `begin` to `end` of a file."""
    return begin // BLOCK * BLOCK, min(-(-end // BLOCK) * BLOCK, size)


def fit(blocks: np.ndarray, begin: int, sums: np.ndarray) -> bool:
    """Tells whether whole blocks have their sums.

    Args:
        blocks: (n,) uint8, the bytes of a file from `begin` on, which is where a block begins.
        sums: of all blocks of the file.
    """
    first, found = begin // BLOCK, of_blocks(blocks)
    return np.array_equal(found, sums[first : first + len(found)])
