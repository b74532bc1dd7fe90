"""What the site needs beyond MkDocs: pages from outside ``docs/``, pictures that follow the scheme, no other hosts.

Pages are written to be read where they lie, so their links lead to files of the checkout. A link out of ``docs/``
becomes one to the page made of that file; a link to a file that is no page keeps its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = "project"
"""Where pages from outside ``docs/`` lie in the site, at their path in the checkout."""

log = get_plugin_logger(__name__)
_FENCE = re.compile(r"(^ *```.*?^ *```$)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_PICTURE = re.compile(r'<img alt="[^"]*" src="[./]*(pictures/[\w/-]+\.svg)" ?/?>')
_CELL_CODE = re.compile(r"(?<=<code>)[^<\s]{24,}(?=</code>)")
_TABLE = re.compile(r"<table>.*?</table>", flags=re.DOTALL)
_STYLE = re.compile(r"<style>.*?</style>\n", flags=re.DOTALL)
_LOADED = re.compile(
    r"<(?:script|img|iframe|source|link(?![^>]*rel=\"canonical\"))\b[^>]*\b(?:src|href)=\"https?://[^>]*>"
)


def _outside() -> list[str]:
    pages = [
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        *(f"plugins/{p.parent.name}/README.md" for p in ROOT.glob("plugins/*/README.md")),
    ]
    return sorted(pages + [f"benchmarks/results/{p.name}" for p in ROOT.glob("benchmarks/results/*.md")])


def _measured() -> list[Any]:
    """Return the pages of measurements; those of one heading are told apart by the names of their files."""
    pages = [page for page in _outside() if page.startswith("benchmarks/")]
    titles = [_title(ROOT / page) for page in pages]
    return [
        {f"{title} ({Path(page).stem})": f"{OUTSIDE}/{page}"} if titles.count(title) > 1 else f"{OUTSIDE}/{page}"
        for page, title in zip(pages, titles, strict=True)
    ]


def on_config(config: Any) -> Any:
    """List decisions, measurements and plugin packages in the navigation as they are there."""
    for section in config.nav:
        if "Decisions" in section:
            numbered = sorted(path.name for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
            section["Decisions"] = ["decisions/index.md", *(f"decisions/{name}" for name in numbered)]
        if "Measured" in section:
            section["Measured"] += _measured()
        if "Reference" in section:
            section["Reference"] += [f"{OUTSIDE}/{page}" for page in _outside() if page.startswith("plugins/")]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add pages from outside ``docs/`` and the list of decisions."""
    for page in _outside():
        files.append(File.generated(config, f"{OUTSIDE}/{page}", content=(ROOT / page).read_text(encoding="utf-8")))
    titles = {path.name: _title(path) for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))}
    lines = [
        "# Decisions",
        "",
        "What was not obvious, one page each: what was there, what was tried, what is there now.",
        "",
    ]
    lines += [f"- [{title}]({name})" for name, title in titles.items()]
    files.append(File.generated(config, "decisions/index.md", content="\n".join(lines) + "\n"))
    return files


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the checkout into links to pages."""
    here = page.file.src_uri
    place = here.removeprefix(f"{OUTSIDE}/") if here.startswith(f"{OUTSIDE}/") else f"docs/{here}"

    def follow(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if not (ROOT / path).exists():
            return link[0]  # MkDocs warns of it
        uri = _uri(path)
        if files.get_file_from_path(uri) is None:
            return text
        return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{anchor})"

    parts = _FENCE.split(markdown)
    return "".join(part if part.lstrip().startswith("```") else _LINK.sub(follow, part) for part in parts)


def _uri(path: str) -> str:
    """Return where in the site a file of the checkout is."""
    if path == "README.md":
        return "index.md"
    if (ROOT / path).is_dir():
        path = f"{path}/index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{OUTSIDE}/{path}"


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Put pictures into the page itself, where they follow its scheme, and let long names in tables break.

    The style of pictures is in the site's. A path or the name of a test would otherwise take the table's whole width.
    """

    def drawn(image: re.Match[str]) -> str:
        return _STYLE.sub("", (ROOT / "docs" / image[1]).read_text(encoding="utf-8"))

    def breaking(table: re.Match[str]) -> str:
        return _CELL_CODE.sub(lambda code: re.sub(r"(/|::|_|(?<=[a-z0-9])\.(?=[a-z]))", r"\1<wbr>", code[0]), table[0])

    return _TABLE.sub(breaking, _PICTURE.sub(drawn, html))


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that loads anything from another host.

    Raises:
        PluginError: it does.
    """
    loaded = _LOADED.search(output)
    if loaded:
        raise PluginError(f"{page.file.src_uri}: loads from another host: {loaded[0]}")
    return output
