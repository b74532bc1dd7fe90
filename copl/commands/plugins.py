"""``copl plugins``: what can be chosen by name, with which options, and whether it keeps its contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from copl.commands.parts.arguments import A_KIND, COMPONENT_SET_OPTION, JSON_OPTION, component_values
from copl.commands.parts.display import say, show_json, show_table, show_text

app = typer.Typer(no_args_is_help=True, help="List, show, check and begin components that can be chosen by name.")

KIND_ARGUMENT: TypeAlias = Annotated[str, typer.Argument(help=A_KIND)]


@app.command("list")
def list_command(
    kind: Annotated[str | None, typer.Argument(help="Only this kind.")] = None, as_json: JSON_OPTION = False
) -> None:
    """List all components, and the plugins that are broken."""
    from copl.plugins import KINDS, load

    plugins = load()
    kinds = [kind] if kind else list(KINDS)
    listed = [(k, r) for k in kinds for r in plugins.registry(k)]
    rows = [(k, r.component.name, r.component.summary, r.package, r.package_version) for k, r in listed]
    headers = ("kind", "name", "what it is", "package", "version")
    broken = dict.fromkeys(b for k in kinds for b in plugins.registry(k).broken)
    if as_json:
        keys = ("kind", "name", "summary", "package", "version")
        faults = [{"plugin": b.entry_point, "package": b.package, "cause": b.cause} for b in broken]
        show_json({"components": [dict(zip(keys, row, strict=True)) for row in rows], "broken": faults})
        return
    show_table("Components; options: copl plugins show KIND NAME", headers, rows)
    for b in broken:
        say(str(b))


@app.command("show")
def show(
    kind: KIND_ARGUMENT,
    name: Annotated[str, typer.Argument(help="Name of the component.")],
    as_json: JSON_OPTION = False,
) -> None:
    """Show one component: what it does, where it is published, its options with their defaults."""
    import attrs

    from copl.options import describe_options
    from copl.plugins import load

    registered = load().registry(kind).get(name)
    component = registered.component
    sections = {"": component.options, **component.sections}
    if as_json:
        options = {s or name: [attrs.asdict(o) for o in describe_options(c)] for s, c in sections.items()}
        about = {"kind": kind, "name": name, "summary": component.summary, "reference": component.reference}
        presets = {preset: dict(values) for preset, values in component.presets.items()}
        show_json({**about, "package": registered.package, "options": options, "presets": presets})
        return
    reference = f" ({component.reference})" if component.reference else ""
    show_text(f"{kind} {name}: {component.summary}{reference}, from {registered.package} {registered.package_version}")
    for section, options_class in sections.items():
        infos = describe_options(options_class)
        rows = [(o.name, o.type, "required" if o.required else o.default, o.help) for o in infos]
        if rows:
            show_table(f"Options [{section or kind}]", ("option", "type", "default", "meaning"), rows)
    for preset, values in component.presets.items():
        show_text(f"preset {preset}: " + ", ".join(f"{key}={value}" for key, value in values.items()))


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="Name of the component.")],
    kind: Annotated[str | None, typer.Option("--kind", help="Its kind, where several kinds have this name.")] = None,
    assignments: COMPONENT_SET_OPTION = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds after which a component is given up.")] = 600.0,
    as_json: JSON_OPTION = False,
) -> None:
    """Run the conformance kit on a component; exits with 2 when a check fails, with 0 on warnings."""
    import attrs

    from copl.errors import UnknownComponentError, quoted, suggest
    from copl.options import parse_options
    from copl.plugins import KINDS, load
    from copl.testing.apart import check_apart

    registries = {k: load().registry(k) for k in ([kind] if kind else KINDS)}
    kinds = [k for k, registry in registries.items() if name in registry]
    if not kinds:
        known = [n for registry in registries.values() for n in registry.names()]
        broken = dict.fromkeys(b for registry in registries.values() for b in registry.broken)
        fault = f"unknown component {quoted(name)}{suggest(name, known)}; `copl plugins list` shows all"
        raise UnknownComponentError([fault, *(f"it may be one of the {b}" for b in broken)])
    values = component_values(assignments)
    components = {k: registries[k].get(name).component for k in kinds}
    if values:  # a mistake in them is the user's, not a finding about the component
        for k, component in components.items():
            parse_options(component.options, values, where=f"{k}.{name}")
    results = [(k, r) for k in kinds for r in check_apart(k, name, values, seconds=timeout)]
    if as_json:
        show_json([{"kind": k, **attrs.asdict(r)} for k, r in results])
    else:
        rows = [(k, r.outcome, r.name, r.detail) for k, r in results]
        show_table(f"Conformance of {name}", ("kind", "outcome", "check", "detail"), rows)
    if any(r.outcome == "failed" for _, r in results):
        raise typer.Exit(2)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the package, such as copl-nearest.")],
    kind: Annotated[str, typer.Option("--kind", help=A_KIND)] = "encoder",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Directory to write. [default: the name]")] = None,
) -> None:
    """Write a package with a component of your own: it installs, and passes its tests and the conformance kit."""
    from copl.plugins import load
    from copl.scaffold import component_name, new_plugin

    directory = out or Path(name)
    for path in new_plugin(name, kind, directory, load()):
        show_text(str(path))
    check = f"copl plugins check {component_name(name)} --kind {kind}"
    say(f"next: pip install -e {directory} && {check} && pytest {directory}")
