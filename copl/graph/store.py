"""Node embeddings on disk: tensors as safetensors; ids, keys and the outline of the pass for newcomers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from copl.errors import RunError
from copl.passes import GaussianPass, GroupPass, LayerPass, MemberPass, SideBySidePass, SignedPass
from copl.records import Comparisons, NodeEmbeddings
from copl.system.files import sha256, write_atomically, write_text

FORMAT = 2
TENSORS_FILE = "embeddings.safetensors"
NODES_FILE = "nodes.json"

_NODE_TENSORS = ("users", "responses", "response_bias")
_COLUMNS = ("user", "chosen", "rejected", "weight", "controversial")
_PASS = "newcomer_pass"
_KINDS: Mapping[str, type[Any]] = {
    "groups": GroupPass,
    "gaussian": GaussianPass,
    "signed": SignedPass,
    "layer": LayerPass,
    "side-by-side": SideBySidePass,
    "member": MemberPass,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def save_embeddings(embeddings: NodeEmbeddings, directory: Path) -> None:
    """Write embeddings into `directory`, whole or not at all.

    The file of ids is taken away first and written last, with a checksum of the tensors: without it, or with another
    write's, the set does not load.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(embeddings, name) for name in _NODE_TENSORS}
    tensors |= {f"comparisons.{c}": torch.from_numpy(getattr(embeddings.comparisons, c)) for c in _COLUMNS}
    outline = _outline(embeddings.newcomer_pass, _PASS, tensors)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    (directory / NODES_FILE).unlink(missing_ok=True)
    write_atomically(directory / TENSORS_FILE, lambda path: save_file(plain, path))
    nodes = {
        "format": FORMAT,
        "tensors_sha256": sha256(directory / TENSORS_FILE),
        "users": embeddings.user_ids,
        "responses": embeddings.response_keys,
        "trainable_users": embeddings.trainable_users,
        "newcomer_pass": outline,
    }
    write_text(directory / NODES_FILE, json.dumps(nodes))


def load_embeddings(directory: Path) -> NodeEmbeddings:
    """Read what `save_embeddings` wrote.

    Raises:
        RunError: a file is missing, damaged, of another kind or of another format.
    """
    again = "train the graph encoder again (remove the directory first)"
    missing = [name for name in (NODES_FILE, TENSORS_FILE) if not (directory / name).is_file()]
    if missing:
        raise RunError([f"{directory / name}: missing; {again}" for name in missing])
    nodes = _read_nodes(directory / NODES_FILE, again)
    path = directory / TENSORS_FILE
    if sha256(path) != nodes["tensors_sha256"]:
        raise RunError(f"{path}: damaged, or not the file that {NODES_FILE} belongs to; {again}")
    try:
        tensors = load_file(path)
        embeddings = NodeEmbeddings(
            tuple(nodes["users"]),
            tuple(nodes["responses"]),
            tensors["users"],
            tensors["responses"],
            tensors["response_bias"],
            comparisons=Comparisons(*(tensors[f"comparisons.{column}"].numpy() for column in _COLUMNS)),
            newcomer_pass=_rebuilt(nodes["newcomer_pass"], tensors),
            trainable_users=nodes["trainable_users"],
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path}: not a file of node embeddings ({error!r}); {again}") from error
    counts = len(embeddings.users), len(embeddings.responses)
    if counts != (len(embeddings.user_ids), len(embeddings.response_keys)):
        raise RunError(f"{directory}: {NODES_FILE} and {TENSORS_FILE} differ in their numbers of nodes; {again}")
    return embeddings


def _read_nodes(path: Path, again: str) -> dict[str, Any]:
    try:
        nodes = json.loads(path.read_text(encoding="utf-8"))
        found = nodes["format"]
        complete = {"tensors_sha256", "users", "responses", "trainable_users", "newcomer_pass"} <= nodes.keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: damaged, or not a file of graph nodes; {again}") from error
    if found != FORMAT:
        raise RunError(f"{path}: format {found!r}, this version of copl reads {FORMAT}; {again}")
    if not complete:
        raise RunError(f"{path}: damaged, or not a file of graph nodes; {again}")
    return dict(nodes)


def _outline(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a pass, or a part of one, as JSON values, a tensor as the name it has in `tensors`, where it is put."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return name
    if isinstance(value, tuple):
        return [_outline(part, f"{name}.{number}", tensors) for number, part in enumerate(value)]
    if type(value) in _NAMES:
        fields = [field.name for field in attrs.fields(type(value))]
        parts = {field: _outline(getattr(value, field), f"{name}.{field}", tensors) for field in fields}
        return {"kind": _NAMES[type(value)], **parts}
    return value


def _rebuilt(outline: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the pass whose outline this is."""
    if isinstance(outline, str):
        return tensors[outline]
    if isinstance(outline, list):
        return tuple(_rebuilt(part, tensors) for part in outline)
    if isinstance(outline, dict):
        parts = {name: _rebuilt(part, tensors) for name, part in outline.items() if name != "kind"}
        return _KINDS[outline["kind"]](**parts)
    return outline
