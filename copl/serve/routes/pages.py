"""The page at /: a template, a style and a script, all from here."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from copl import __version__
from copl.serve.service import ServiceOf

router = APIRouter(include_in_schema=False)

_PAGE = Path(__file__).resolve().parents[1] / "page"
_TEMPLATES = Environment(loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined)
_TYPES = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@router.get("/")
async def page(service: ServiceOf) -> Response:
    text = _TEMPLATES.get_template("page.html").render(version=__version__, writes=service.writer is not None)
    return Response(text, media_type="text/html; charset=utf-8")


@router.get("/page/style.css")
async def style() -> Response:
    return _file("style.css")


@router.get("/page/icon.svg")
async def icon() -> Response:
    return _file("icon.svg")


@router.get("/page/page.js")
async def script() -> Response:
    return _file("page.js")


def _file(name: str) -> Response:
    content = (_PAGE / name).read_bytes()
    return Response(content, media_type=_TYPES[name], headers={"Cache-Control": "no-cache"})
