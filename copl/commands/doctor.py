"""``copl doctor``: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version

from copl.commands.parts.arguments import JSON_OPTION
from copl.commands.parts.display import show_json, show_table

Finding = tuple[str, str, str]
"""What was looked at, its state (ok, missing, broken), and a detail."""

_OPTIONAL = {
    "gguf": "reads smollm2-135m once: pip install gguf",
    "datasets": "reads Hugging Face data sets: pip install 'copl[hub]'",
    "trl": "trains policies on rewards: pip install 'copl[align]'",
    "fastapi": "copl serve: pip install 'copl[serve]'",
    "ray": "copl ablate --engine ray: pip install 'copl[ray]'",
    "pyg-lib": "sampled mini-batches for graphs beyond memory; see pyg.org for the wheel of your torch",
}


def doctor(as_json: JSON_OPTION = False) -> None:
    """Show what is installed and what is missing: versions, devices, backbones, optional libraries, plugins."""
    header = ("what", "state", "detail")
    findings = examine()
    if as_json:
        show_json([dict(zip(header, finding, strict=True)) for finding in findings])
    else:
        show_table("copl doctor", header, findings)


def examine() -> list[Finding]:
    """Return the findings in the order a person wants to read them."""
    from copl.runs.directory import installed_versions

    findings: list[Finding] = [(name, "ok", version) for name, version in installed_versions().items()]
    findings += [_optional(name, purpose) for name, purpose in _OPTIONAL.items()]
    findings += [_device(), _cache(), *_backbones(), *_plugins()]
    return findings


def _optional(name: str, purpose: str) -> Finding:
    try:
        return name, "ok", version(name)
    except PackageNotFoundError:
        return name, "missing", f"optional; {purpose}"


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return "device", "ok", f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})"
    return "device", "ok", f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def _cache() -> Finding:
    from copl.system.files import cache_directory

    cache = cache_directory()
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    state = "ok" if existing.is_dir() and os.access(existing, os.W_OK) else "broken"
    return "cache", state, f"{cache}, {free:.0f} GiB free"


def _backbones() -> list[Finding]:
    from copl.errors import CoplError
    from copl.options import describe_options
    from copl.plugins import load
    from copl.runs.recipe import DEFAULTS

    registry = load().registry("backbone")
    findings: list[Finding] = []
    for registered in registry:
        name = registered.component.name
        try:
            registry.create(name).fingerprint()
        except CoplError as error:
            if not any(info.required for info in describe_options(registered.component.options)):
                use = "" if name == DEFAULTS["backbone"] else "optional; "
                findings.append((f"backbone {name}", "missing", f"{use}{error.faults[0]}"))
        else:
            findings.append((f"backbone {name}", "ok", registered.component.summary))
    return findings


def _plugins() -> list[Finding]:
    from copl.plugins import KINDS, load

    plugins = load()
    broken = {fault for kind in KINDS for fault in plugins.registry(kind).broken}
    packages = {r.package: r.package_version for kind in KINDS for r in plugins.registry(kind) if r.package != "copl"}
    findings: list[Finding] = [(f"plugin package {name}", "ok", version) for name, version in sorted(packages.items())]
    return findings + [(f"plugin {b.entry_point}", "broken", f"{b.package}: {b.cause}") for b in broken]
