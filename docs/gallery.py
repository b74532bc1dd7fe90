"""Takes the pictures of a report for the page ``gallery.md``.

python docs/gallery.py demo-run/report.html
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

GALLERY = Path(__file__).resolve().parent / "pictures" / "gallery"
_FIGURE = re.compile(r"<figure[^>]*><figcaption>([^<]*)</figcaption>(<svg.*?</svg>)</figure>", flags=re.DOTALL)
# The report gives its pictures the colour of its text; one that is looked at alone says so itself.
_STYLE = """<style>
.plot { color-scheme: light dark; color: light-dark(#1c2733, #e8ecf1); --rule: light-dark(#d8dee5, #3c4650); }
</style>
"""
_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'


def main(report: Path) -> None:
    """Write every picture of a report, named by its caption."""
    GALLERY.mkdir(parents=True, exist_ok=True)
    for caption, svg in _FIGURE.findall(report.read_text(encoding="utf-8")):
        name = re.sub(r"\W+", "-", caption.lower()).strip("-")
        opening, _, rest = svg.partition(">")
        namespace = "" if "xmlns=" in opening else _NAMESPACE
        opening = opening.replace("<svg", '<svg class="plot"', 1) + namespace
        picture = f"{opening}>\n{_STYLE}{rest}"
        (GALLERY / f"{name}.svg").write_text(picture + "\n", encoding="utf-8")
        print(f"wrote docs/pictures/gallery/{name}.svg ({len(picture) // 1024} KiB)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
