"""A web server for tests: serves a folder with ranges and ETags, and fails as told."""

import hashlib
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Faults:
    """What goes wrong, by file name.

    Attributes:
        cut: bytes after which a connection breaks, one number per GET, then all is well.
        status: a code to answer instead, one per GET, then all is well.
        no_ranges: files that are always sent whole.
    """

    def __init__(self):
        self.cut: dict[str, list[int]] = {}
        self.status: dict[str, list[int]] = {}
        self.no_ranges: set[str] = set()
        self.asked: list[tuple[str, str | None]] = []
        self.sent = Counter()


@contextmanager
def serving(folder: Path):
    """Yields the address of a server of `folder`, and its faults."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            faults.asked.append((self.path.rsplit("/", 1)[-1], self.headers.get("Range")))
            self.answer(body=True)

        def answer(self, body):
            name, path = self.path.rsplit("/", 1)[-1], folder / self.path.lstrip("/")
            if body and faults.status.get(name):
                self.reply(faults.status[name].pop(0), b"")
            elif not path.is_file():
                self.reply(404, b"")
            else:
                self.send(name, path.read_bytes(), body)

        def send(self, name, content, body):
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            wanted, begin = self.headers.get("Range"), 0
            if wanted and name not in faults.no_ranges and self.headers.get("If-Range", tag) == tag:
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            if begin and begin >= len(content):
                self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            headers = {"ETag": tag}
            if begin:
                headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self.reply(206 if begin else 200, content[begin:], headers, body, name)

        def reply(self, code, content, headers=None, body=True, name=""):
            self.send_response(code)
            for key, value in {"Content-Length": len(content), **(headers or {})}.items():
                self.send_header(key, str(value))
            self.end_headers()
            if body and content:
                limit = faults.cut[name].pop(0) if faults.cut.get(name) else len(content)
                self.wfile.write(content[:limit])
                faults.sent[name] += len(content[:limit])
                if limit < len(content):
                    self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
