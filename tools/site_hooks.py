"""What mkdocs.yml asks for beside the pages of docs/: the hooks of the site's build.

The pages are written for a repository. There a link may leave docs/: to another document, which the site gets a copy of
below `repository/`, or to a file of the program, which stays plain text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
COPIES = "repository"
_DECISIONS = "decisions/"
_BOOSTS = {"out-of-memory": 4, _DECISIONS: 0.5, "reference/": 0.5, f"{COPIES}/": 0.2}
_FENCE = re.compile(r"\s*(```+|~~~+)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions stand in the navigation as their index lists them."""
    index = (ROOT / "docs" / _DECISIONS / "README.md").read_text(encoding="utf-8")
    pages = ["README.md", *re.findall(r"^- \[[^\]]*\]\(([\w-]+\.md)\)", index, re.MULTILINE)]
    config.nav = [
        {name: [_DECISIONS + page for page in pages] if target == _DECISIONS else target}
        for entry in config.nav or []
        for name, target in entry.items()
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Documents elsewhere in the repository that a page links to, and those that they link to."""
    from mkdocs.structure.files import File

    queue = [path for file in files.documentation_pages() for path in documents_outside(Path("docs") / file.src_uri)]
    done = set[Path]()
    while queue:
        path = queue.pop()
        if path in done:
            continue
        done.add(path)
        queue += documents_outside(path)
        text = _text(path)
        files.append(File.generated(config, site_uri(path), content=site_text(text, path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page's links that leave docs/, and how it ranks in the search: people in need of help come first."""
    uri = page.file.src_uri
    page.meta["search"] = {"boost": next((boost for start, boost in _BOOSTS.items() if uri.startswith(start)), 1)}
    return markdown if uri.startswith(f"{COPIES}/") else site_text(markdown, Path("docs") / uri)


def on_post_page(output: str, **_: Any) -> str:
    """The theme's search is a dialog without a name, which screen readers want."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def documents_outside(document: Path) -> Iterator[Path]:
    """Documents outside docs/ that one links to; paths are relative to the repository."""
    found: list[Path] = []

    def look(words: str, target: Path, fragment: str) -> str:
        if _is_document(target) and target.parts[0] != "docs" and (ROOT / target).is_file():
            found.append(target)
        return words

    _with_links(_text(document), document, look)
    yield from found


def site_uri(document: Path) -> str:
    """Where the site has a document of the repository, relative to its root."""
    inside = document.parts[0] == "docs"
    uri = PurePosixPath(*document.parts[1:]) if inside else PurePosixPath(COPIES, *document.parts)
    return str(uri) if uri.suffix == ".md" else f"{uri}.md"


def site_text(text: str, document: Path) -> str:
    """A document with links that hold on the site.

    Args:
        text: Markdown.
        document: Where it lies, relative to the repository.
    """
    here = PurePosixPath(site_uri(document)).parent

    def link(words: str, target: Path, fragment: str) -> str:
        if _is_document(target) and (ROOT / target).is_file():
            return f"[{words}]({os.path.relpath(site_uri(target), here)}{fragment})"
        inside = target.parts[0] == "docs" or not (ROOT / target).exists()
        return f"[{words}]({os.path.relpath(target, document.parent)}{fragment})" if inside else words

    return _with_links(text, document, link)


def _with_links(text: str, document: Path, link: Callable[[str, Path, str], str]) -> str:
    """The text with each relative link outside code blocks as `link` has it, of words, target and fragment."""
    lines, fence = [], ""
    for line in text.splitlines():
        opened = _FENCE.match(line)
        if opened and (not fence or opened[1].startswith(fence)):
            fence = "" if fence else opened[1]
        lines.append(line if fence or opened else _LINK.sub(lambda found: _linked(found, document, link), line))
    return "\n".join(lines) + "\n"


def _linked(found: re.Match[str], document: Path, link: Callable[[str, Path, str], str]) -> str:
    if _ELSEWHERE.match(found[2]):
        return found[0]
    path, mark, fragment = found[2].partition("#")
    target = Path(os.path.normpath(document.parent / path))
    return link(found[1], target, mark + fragment)


def _is_document(path: Path) -> bool:
    return path.suffix == ".md" or path.name in ("NOTICE", "LICENSE")


def _text(document: Path) -> str:
    text = (ROOT / document).read_text(encoding="utf-8")
    return text if document.suffix == ".md" else f"# {document.name}\n\n```text\n{text}```\n"
