"""Pages of HTML: templates that are filled in, nothing put together by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

if TYPE_CHECKING:
    from pathlib import Path


def fill(template: Path, **values: object) -> str:
    """Return a template with its values: text is escaped, `markupsafe.Markup` is not; what it lacks is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)
