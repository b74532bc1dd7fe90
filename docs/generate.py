"""Writes what follows from the code or from one place: pages, and the style of pictures.

With ``--check`` it only says what is stale.

make docs        or        python docs/generate.py [--check]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
NOTICE = "<!-- Written by docs/generate.py (make docs) from the code; edit there. -->\n"


def command_line() -> str:
    """Return the reference of all commands."""
    from typer.main import get_command

    from copl.cli import application
    from copl.commands.parts.program import GROUPS

    lines = [NOTICE, "# Command line", "", "By what they are for, in the order of use, as in `copl --help`:", ""]
    lines += [f"- {group}: {', '.join(f'`{name}`' for name in names)}" for group, names in GROUPS.items()]
    lines += [""]
    for path, command in _commands("copl", get_command(application())):
        lines += [f"## `{path}`", "", _one_line(command.help), ""]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help" and not p.hidden]
        usage = [path, *(_argument(p) for p in arguments), *(_option(p) for p in options if p.required)]
        optional = any(not p.required for p in options)
        lines += ["```", " ".join(usage) + (" [options]" if optional else ""), "```", ""]
        rows = [(f"`{_argument(p)}`", p) for p in arguments] + [(f"`{_option(p)}`", p) for p in options]
        if rows:
            lines += ["| | |", "| --- | --- |"]
            lines += [f"| {shown} | {_cell(_meaning(parameter))} |" for shown, parameter in rows]
            lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield path, command
        return
    for name, subcommand in subcommands.items():
        yield from _commands(f"{path} {name}", subcommand)


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper().strip("[]")
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    name = max(parameter.opts, key=len)
    return name if parameter.is_flag else f"{name} {(parameter.metavar or parameter.name).upper()}"


def _meaning(parameter: Any) -> str:
    default = parameter.default
    plain = isinstance(default, int | float | str | Path) and not isinstance(default, bool) and str(default)
    return _one_line(parameter.help) + (f" Default: `{default}`." if plain else "")


def components() -> str:
    """Return the tables of all built-in components and their options."""
    from copl.options import describe_options
    from copl.plugins import KINDS, OWN_PACKAGE, load

    lines = [NOTICE, "# Components", ""]
    lines += [
        "What can be chosen by name, with all options. `copl plugins list` shows those of other packages, too.",
        "",
    ]
    for kind in KINDS:
        lines += [f"## {kind}", ""]
        for registered in load().registry(kind):
            component = registered.component
            if registered.package != OWN_PACKAGE:
                continue
            reference = f" ({component.reference})" if component.reference else ""
            lines += [f"### `{component.name}`", "", f"{component.summary}{reference}", ""]
            for section, options in {kind: component.options, **component.sections}.items():
                infos = describe_options(options)
                if not infos:
                    continue
                lines += [f"`[{section}]`", "", "| option | type | default | meaning |", "| --- | --- | --- | --- |"]
                for info in infos:
                    default = "required" if info.required else f"`{info.default}`" if info.default else "empty"
                    lines += [f"| `{info.name}` | {_cell(info.type)} | {_cell(default)} | {_cell(info.help)} |"]
                lines += [""]
            if component.presets:
                lines += [f"Presets: {', '.join(f'`{preset}`' for preset in component.presets)}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"cli.md": command_line, "components.md": components}


def styled(picture: str) -> str:
    """Return a picture with the style that all pictures share."""
    style = (DOCS / "pictures" / "style.css").read_text(encoding="utf-8")
    before, _, rest = picture.partition("<style>\n")
    return f"{before}<style>\n{style}{rest[rest.index('</style>') :]}"


def main() -> int:
    """Write what is stale, or name it; returns the exit code."""
    sys.path.insert(0, str(DOCS.parent))
    from benchmarks.pages import filled, pages

    stale = []
    texts = {name: page() for name, page in PAGES.items()}
    for picture in sorted(DOCS.glob("pictures/*.svg")):
        texts[picture.relative_to(DOCS).as_posix()] = styled(picture.read_text(encoding="utf-8"))
    for page in pages():
        texts[os.path.relpath(page, DOCS)] = filled(page.read_text(encoding="utf-8"), page)
    for name, text in texts.items():
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")
    if "--check" in sys.argv and stale:
        print(f"stale: {', '.join(stale)}; run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
