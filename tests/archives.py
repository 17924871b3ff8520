"""Archives for tests: stored RARs and split zips, written byte by byte from their published formats."""

import struct
import zipfile
import zlib
from pathlib import Path

UNIX, STORED, FILE_MODE, LINK_MODE = 3, 0x30, 0o100644, 0o120777
SPANNED = b"PK\x07\x08"


def write_rar(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None, method: int = STORED) -> Path:
    """A RAR of version 3 without compression; another `method` only says that there is one."""
    members = [(name, content, FILE_MODE) for name, content in files.items()]
    members += [(name, target.encode(), LINK_MODE) for name, target in (links or {}).items()]
    parts = [b"Rar!\x1a\x07\x00", _block(0x73, 0, bytes(6))]
    for name, content, mode in members:
        fields = struct.pack(
            "<IIBIIBBHI",
            len(content), len(content), UNIX, zlib.crc32(content), 0, 29, method, len(name.encode()), mode,
        )  # fmt: skip
        parts += [_block(0x74, 0x8000, fields + name.encode()), content]
    path.write_bytes(b"".join(parts) + _block(0x7B, 0x4000, b""))
    return path


def split_zip(path: Path, part_size: int) -> list[Path]:
    """Replaces a zip by name.z01, name.z02, ... and name.zip: offsets count from the start of each part."""
    content = SPANNED + path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        directory, offsets = archive.start_dir + len(SPANNED), [i.header_offset for i in archive.infolist()]
    content = bytearray(content)
    cursor = directory
    for offset in offsets:
        place = offset + len(SPANNED)
        struct.pack_into("<H", content, cursor + 34, place // part_size)
        struct.pack_into("<I", content, cursor + 42, place % part_size)
        cursor += 46 + sum(struct.unpack_from("<HHH", content, cursor + 28))
    last = (len(content) - 1) // part_size
    struct.pack_into("<HH", content, cursor + 4, last, directory // part_size)
    struct.pack_into("<I", content, cursor + 16, directory % part_size)
    parts = [path.with_suffix(f".z{number:02}") for number in range(1, last + 1)] + [path]
    for number, part in enumerate(parts):
        part.write_bytes(content[number * part_size : (number + 1) * part_size])
    return parts


def _block(kind: int, flags: int, fields: bytes) -> bytes:
    body = struct.pack("<BHH", kind, flags, 7 + len(fields)) + fields
    return struct.pack("<H", zlib.crc32(body) & 0xFFFF) + body
