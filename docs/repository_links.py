"""Makes links to files outside docs/ work on the site, as a hook of MkDocs.

A link such as `../xkd/objectives/alignment.py` works in a checkout and on a forge. On the site, each such file becomes
a page under repository/. A link to a file that does not exist is left as it is, and the strict build refuses it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".smk": "python", ".toml": "toml", ".csv": "text"}
SHOWN = "repository"


def on_files(files: Files, config) -> Files:
    """Adds a page for every file of the repository that a page links to, and for the files that those pages link to."""
    pending = [(page.content_string, posixpath.join("docs", page.src_uri)) for page in files.documentation_pages()]
    known = set()
    while pending:
        text, path = pending.pop()
        for match in LINK.finditer(text):
            target = _outside(match["target"], path)
            if target and target not in known:
                known.add(target)
                source = (ROOT / target).read_text(encoding="utf-8")
                content = source if target.endswith(".md") else _listing(target, source)
                files.append(File.generated(config, _page(target), content=content))
                if target.endswith(".md"):
                    pending.append((source, target))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Redirects links to those pages."""
    at = page.file.src_uri
    path = _shown(at) or posixpath.join("docs", at)

    def link(match: re.Match) -> str:
        target, anchor = _outside(match["target"], path), match["anchor"] or ""
        if target:
            return posixpath.relpath(_page(target), posixpath.dirname(at) or ".") + anchor
        inside = _resolve(match["target"], path)
        if _shown(at) and inside.startswith("docs/"):
            return posixpath.relpath(inside.removeprefix("docs/"), posixpath.dirname(at) or ".") + anchor
        return match[0]

    return LINK.sub(link, markdown)


def _resolve(target: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _outside(target: str, path: str) -> str | None:
    """Returns the repository's file that a link in the file `path` means, if it lies outside docs/."""
    resolved = _resolve(target, path)
    return resolved if not resolved.startswith(("docs/", "..")) and (ROOT / resolved).is_file() else None


def _page(target: str) -> str:
    return f"{SHOWN}/{target.removesuffix('.md')}.md"


def _shown(uri: str) -> str | None:
    """Returns the Markdown file that a generated page shows; None for pages of docs/ and for listings."""
    path = uri.removeprefix(f"{SHOWN}/")
    return path if path != uri and (ROOT / path).is_file() else None


def _listing(target: str, source: str) -> str:
    language = LANGUAGES.get(Path(target).suffix, "text")
    fence = "`" * 6
    head = f"---\nsearch: {{exclude: true}}\n---\n\n# {target}\n\n"
    return f'{head}{fence} {{.{language} linenums="1"}}\n{source}\n{fence}\n'
