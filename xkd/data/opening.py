"""Opens media files, for all of xkd: ordinary files, in formats that cannot make the decoder open another file."""

from __future__ import annotations

import errno
import io
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av
import decord
from av.container import InputContainer

from xkd.errors import UserError

# FFmpeg's names. Not among them: playlists and scripts (concat, hls, dash, sdp), sequences of images, subtitles,
# devices.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,dv,eac3,flac,flv,gif,h264,hevc,ivf,matroska,mjpeg,mov,mp3,mpeg,mpegts,"
    "mpegvideo,mxf,nut,ogg,rm,tta,voc,w64,wav,wv,yuv4mpegpipe"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
# decord guesses formats by itself and takes no such list, but every script and playlist is text. Files that begin with
# a printable character are not given to it, unless they begin as one of these containers.
PRINTABLE_STARTS = (b"RIFF", b"OggS", b"FLV", b"GIF8", b"YUV4MPEG2", b"DKIF", b".RMF", b"nut/", b"0&\xb2u", b"G")

# Errors of the machine: they say nothing about the file that is read.
MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class MediaError(Exception):
    """A file cannot be used; the message is the reason, its kind before a colon."""


@contextmanager
def faults_of(path: Path, memory_gb: float) -> Iterator[None]:
    """Turns any error about a file into a MediaError, and bounds the memory that the process takes for it.

    Faults of the machine (a full disk, a folder that cannot be written) pass on: they say nothing about the file.
    """
    try:
        with _bounded_memory(memory_gb):
            yield
    except (MediaError, UserError):
        raise
    except MemoryError:
        raise MediaError(f"out of memory: needs more than {memory_gb:g} GB (limits.memory_gb)") from None
    except OSError as error:
        if error.filename != str(path) or error.errno in MACHINE:
            raise
        raise MediaError(f"unreadable: {short(error)}") from None
    except Exception as error:  # noqa: BLE001 (whatever a decoder raises: one file must not end the work on all)
        raise MediaError(f"unreadable: {type(error).__name__} ({short(error)})") from None


def open_media(source: Path | bytes) -> InputContainer:
    """Opens a media file, or its content, for reading.

    Raises:
        MediaError: no such file, a folder, pipe or device, or none of the `FORMATS`.
    """
    try:
        if isinstance(source, Path) and not source.exists():
            raise MediaError("missing")
        if isinstance(source, Path) and not source.is_file():
            raise MediaError("unreadable: not a regular file")
        return av.open(_address(source), "r", options=OPTIONS, metadata_errors="replace")
    except av.ArgumentError:
        raise MediaError("unreadable: not one of the formats that xkd opens") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise unreadable(error) from None


def open_decord(source: Path | bytes) -> decord.VideoReader:
    """Opens the frames of a media file, or of its content, that `open_media` opens too.

    Raises:
        MediaError: as `open_media`; or decord cannot open it.
    """
    with open_media(source) as container:
        codecs = ", ".join(str(stream.name) for stream in container.streams.video)
    with _opened(source) as file:
        start = file.read(9)
    if start[:1].isascii() and start[:1].decode().isprintable() and not start.startswith(PRINTABLE_STARTS):
        raise MediaError("unreadable: begins as text, not as video")
    try:
        return decord.VideoReader(_address(source), num_threads=1)
    except (decord.DECORDError, RuntimeError):
        raise MediaError(f"unreadable: decord cannot open it, codec {codecs or 'unknown'}") from None


def unreadable(error: Exception, what: str = "") -> MediaError:
    """Turns a decoder's error into the reason why its file cannot be used."""
    code = getattr(error, "errno", None)
    if code in MACHINE:
        raise error
    if code == errno.ENOMEM:
        raise MemoryError
    return MediaError(f"unreadable: {what} ({short(error)})" if what else f"unreadable: {short(error)}")


def short(error: Exception) -> str:
    """Shortens a decoder's message to one line without times and paths, so that equal faults give equal reasons."""
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines() or [type(error).__name__]
    text = re.sub(r"^\[[\d:]+\] \S+: (\[.*?\])?", "", lines[-1])
    return text.split("Check failed: ")[-1].split(") ")[-1].strip()[:80]


def _address(source: Path | bytes) -> str | BinaryIO:
    """Returns what a decoder opens. A relative name might look like an address of FFmpeg's: concat:a|b."""
    return str(source.absolute()) if isinstance(source, Path) else io.BytesIO(source)


def _opened(source: Path | bytes) -> BinaryIO:
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


@contextmanager
def _bounded_memory(gigabytes: float) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = pages * resource.getpagesize() + round(gigabytes * 1e9)
    bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *bounds]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
