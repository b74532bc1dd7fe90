"""Node embeddings on disk: tensors as safetensors, ids and keys as JSON beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from copl.errors import RunError
from copl.records import Comparisons, NodeEmbeddings
from copl.system.files import sha256, write_atomically, write_text

FORMAT = 1
TENSORS_FILE = "embeddings.safetensors"
NODES_FILE = "nodes.json"

_NODE_TENSORS = ("users", "responses", "response_bias")
_COLUMNS = ("user", "chosen", "rejected", "weight", "controversial")
_STATE = "state."


def save_embeddings(embeddings: NodeEmbeddings, directory: Path) -> None:
    """Write embeddings into `directory`, whole or not at all.

    The file of ids is taken away first and written last, with a checksum of the tensors: without it, or with another
    write's, the set does not load.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(embeddings, name) for name in _NODE_TENSORS}
    tensors |= {f"comparisons.{c}": torch.from_numpy(getattr(embeddings.comparisons, c)) for c in _COLUMNS}
    tensors |= {_STATE + name: tensor for name, tensor in embeddings.state.items()}
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    (directory / NODES_FILE).unlink(missing_ok=True)
    write_atomically(directory / TENSORS_FILE, lambda path: save_file(plain, path))
    nodes = {
        "format": FORMAT,
        "tensors_sha256": sha256(directory / TENSORS_FILE),
        "users": embeddings.user_ids,
        "responses": embeddings.response_keys,
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
            state={name.removeprefix(_STATE): value for name, value in tensors.items() if name.startswith(_STATE)},
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
        complete = {"tensors_sha256", "users", "responses"} <= nodes.keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: damaged, or not a file of graph nodes; {again}") from error
    if found != FORMAT:
        raise RunError(f"{path}: format {found!r}, this version of copl reads {FORMAT}; {again}")
    if not complete:
        raise RunError(f"{path}: damaged, or not a file of graph nodes; {again}")
    return dict(nodes)
