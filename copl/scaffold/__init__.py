"""A new plugin package to start from: `copl plugins new`.

The templates are files below ``templates/``: ``src/<kind>.py.jinja`` is the component, ``src/<kind>/`` what of it is
imported when it is built, ``tests/<kind>.py.jinja`` its tests, the rest is the same for every kind. What they give
installs, passes the conformance kit and its own tests.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from copl.errors import OptionsError, PluginError, suggest
from copl.plugins import KINDS, Plugins
from copl.system.files import is_free, new_directory, write_text

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEMPLATES = resources.files("copl.scaffold").joinpath("templates")


def new_plugin(name: str, kind: str, directory: Path, plugins: Plugins) -> list[Path]:
    """Write a package with one component.

    Args:
        name: name of the package, such as ``copl-nearest``; the component is called the same without ``copl-``.
        kind: one of `copl.plugins.KINDS`.
        directory: where to write it.
        plugins: what is installed; a name that is taken is refused.

    Returns:
        The files written.

    Raises:
        OptionsError: the name, the kind or the directory will not do; all faults at once.
        PluginError: installed plugins cannot be read.
    """
    faults = []
    if kind not in KINDS:
        faults.append(f"unknown kind {kind!r}{suggest(kind, KINDS)}; there are {', '.join(KINDS)}")
    component = component_name(name)
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(module):
        faults.append(f"{name!r} is no name for a package; write it like copl-nearest: lower-case letters and hyphens")
    elif _is_importable(module):
        faults.append(f"a module {module!r} is installed already; choose another name")
    if kind in KINDS and component in plugins.registry(kind):
        package = plugins.registry(kind).get(component).package
        faults.append(f"{kind} {component!r} is registered by package {package!r} already; choose another name")
    if not is_free(directory):
        faults.append(f"{directory}: exists; choose another --out")
    if faults:
        raise OptionsError(faults)
    render = _renderer(name, kind)
    files = {
        "pyproject.toml": "pyproject.toml.jinja",
        "README.md": "README.md.jinja",
        f"src/{module}/__init__.py": f"src/{kind}.py.jinja",
        **{f"src/{module}/{name.removesuffix('.jinja')}": f"src/{kind}/{name}" for name in _beside(kind)},
        f"tests/test_{component.replace('-', '_')}.py": f"tests/{kind}.py.jinja",
    }
    with new_directory(directory) as fresh:
        for path, template in files.items():
            write_text(fresh / path, render(template))
    return [directory / path for path in files]


def component_name(package: str) -> str:
    """Return what the component of a package is called.

    >>> component_name("copl-nearest"), component_name("nearest")
    ('nearest', 'nearest')
    """
    return package.removeprefix("copl-") or package


def _beside(kind: str) -> list[str]:
    """Return the names of the templates of modules that stand beside the component's own, where a kind has such."""
    folder = _TEMPLATES / "src" / kind
    return sorted(template.name for template in folder.iterdir()) if folder.is_dir() else []


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError) as error:
        raise PluginError(f"module {module!r} is there but cannot be read: {error}") from error


def _renderer(name: str, kind: str) -> Callable[[str], str]:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("copl.scaffold"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Python and TOML, not HTML
    )
    component = component_name(name)
    values = {
        "package": name,
        "module": name.replace("-", "_"),
        "component": component,
        "cls": "".join(word.capitalize() for word in component.split("-")),
        "kind": kind,
        "hook": KINDS[kind],
    }
    return lambda template: environment.get_template(template).render(values)
