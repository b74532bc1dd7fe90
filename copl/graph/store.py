"""Node embeddings on disk: tensors as safetensors; ids, keys and the outline of the pass for newcomers as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
from torch import Tensor

from copl.errors import RunError, quoted
from copl.records import Comparisons, NodeEmbeddings, passes
from copl.records.memory import Memory
from copl.system.documents import read_document, strict_converter, structure, write_document
from copl.system.files import checksum
from copl.system.tensors import ANY_FLOATS, ANYTHING, TensorFile, floats, integers, load_tensors, save_tensors

if TYPE_CHECKING:
    import cattrs

FORMAT = 4
TENSORS_FILE = "embeddings.safetensors"
NODES_FILE = "nodes.json"
MEMORY_FILE = "memory.safetensors"

_AGAIN = "train the graph encoder again (remove the directory first)"
_PASS = "newcomer_pass."
_TEXTS = "text_map."
_EXPECTED = {
    "users": floats("U", "D"),
    "responses": floats("R", "D"),
    "response_bias": floats("R"),
    "comparisons.user": integers("N"),
    "comparisons.chosen": integers("N"),
    "comparisons.rejected": integers("N"),
    "comparisons.weight": floats("N"),
    "comparisons.controversial": integers("N"),
}
_KINDS: Mapping[type, str] = {
    passes.GroupPass: "groups",
    passes.GaussianPass: "gaussian",
    passes.TastePass: "taste",
    passes.SignedPass: "signed",
    passes.SideBySidePass: "side-by-side",
}
for _kind in (*_KINDS, passes.LayerPass, passes.MemberPass):
    attrs.resolve_types(_kind, {**vars(passes), "Tensor": Tensor})


_MEMORY = ("users", "responses", "shared")


@final
@attrs.frozen
class _MemoryHeader:
    facts: Mapping[str, Any]


@final
@attrs.frozen
class _Nodes:
    format: int
    tensors_sha256: str
    users: tuple[str, ...]
    responses: tuple[str, ...]
    trainable_users: bool
    newcomer_pass: Mapping[str, Any] | None
    places_newcomers: bool = True


def save_embeddings(embeddings: NodeEmbeddings, directory: Path) -> None:
    """Write embeddings into `directory`, whole or not at all.

    The file of ids is taken away first and written last, with a checksum of the tensors: without it, or with another
    write's, the set does not load.
    """
    rows = embeddings.comparisons
    tensors = {n: getattr(rows if n.startswith("comparisons.") else embeddings, n.split(".")[-1]) for n in _EXPECTED}
    own = embeddings.newcomer_pass
    outline = None if own is None else _converter(tensors).unstructure(own, passes.NewcomerPass)
    if embeddings.text_map is not None:
        tensors |= {_TEXTS + name: value for name, value in attrs.asdict(embeddings.text_map, recurse=False).items()}
    (directory / NODES_FILE).unlink(missing_ok=True)
    save_tensors(directory / TENSORS_FILE, tensors)
    if embeddings.memory is not None:
        _save_memory(embeddings.memory, directory / MEMORY_FILE)
    nodes = _Nodes(
        FORMAT,
        checksum(directory / TENSORS_FILE),
        embeddings.user_ids,
        embeddings.response_keys,
        embeddings.trainable_users,
        outline,
        embeddings.places_newcomers,
    )
    write_document(directory / NODES_FILE, nodes, indent=None)


def _save_memory(memory: Memory, path: Path) -> None:
    kinds = {kind: getattr(memory, kind) for kind in _MEMORY}
    tensors = {f"{kind}.{name}": tensor for kind, part in kinds.items() for name, tensor in part.items()}
    save_tensors(path, tensors, header={"facts": dict(memory.facts)})


def load_memory(directory: Path, embeddings: NodeEmbeddings) -> NodeEmbeddings:
    """Return embeddings of a directory with what there is to go on from (`NodeEmbeddings.memory`).

    Raises:
        RunError: it is missing or damaged.
    """
    path = directory / MEMORY_FILE
    sizes = {"users": len(embeddings.user_ids), "responses": len(embeddings.response_keys)}
    read = load_tensors(path, {}, others={f"{kind}.": ANYTHING for kind in _MEMORY}, advice=_AGAIN)
    parts = {kind: read.below(f"{kind}.") for kind in _MEMORY}
    if any(len(tensor) != size for kind, size in sizes.items() for tensor in parts[kind].values()):
        raise RunError(f"{path}: differs from {NODES_FILE} in the numbers of nodes; {_AGAIN}")
    facts = read.read_header(_MemoryHeader, advice=_AGAIN).facts
    return attrs.evolve(embeddings, memory=Memory(**parts, facts=facts))


def load_embeddings(directory: Path) -> NodeEmbeddings:
    """Read what `save_embeddings` wrote, but for the memory.

    Raises:
        RunError: a file is missing, damaged, of another kind or of another format.
    """
    path = directory / TENSORS_FILE
    nodes = read_document(directory / NODES_FILE, _Nodes, advice=_AGAIN, version={"format": FORMAT})
    tensors = load_tensors(path, _EXPECTED, others={_PASS: ANY_FLOATS, _TEXTS: ANY_FLOATS}, advice=_AGAIN)
    if checksum(path) != nodes.tensors_sha256:
        raise RunError(f"{path}: damaged, or not the file that {NODES_FILE} belongs to; {_AGAIN}")
    newcomer_pass = None if nodes.newcomer_pass is None else _read_pass(nodes.newcomer_pass, tensors, directory)
    counts = len(tensors["users"]), len(tensors["responses"])
    if counts != (len(nodes.users), len(nodes.responses)):
        raise RunError(f"{directory}: {NODES_FILE} and {TENSORS_FILE} differ in their numbers of nodes; {_AGAIN}")
    rows = [tensors.array(name) for name in _EXPECTED if name.startswith("comparisons.")]
    return NodeEmbeddings(
        nodes.users,
        nodes.responses,
        tensors["users"],
        tensors["responses"],
        tensors["response_bias"],
        comparisons=Comparisons(*rows),
        newcomer_pass=newcomer_pass,
        trainable_users=nodes.trainable_users,
        text_map=_read_text_map(tensors),
        places_newcomers=nodes.places_newcomers,
    )


def _read_text_map(tensors: TensorFile) -> passes.TextMap | None:
    names = [field.name for field in attrs.fields(passes.TextMap)]
    parts = tensors.below(_TEXTS)
    if not parts:
        return None
    if set(parts) != set(names):
        raise RunError(f"{tensors.path}: {_TEXTS} must have the tensors {', '.join(names)}; {_AGAIN}")
    return passes.TextMap(*(parts[name] for name in names))


def _read_pass(outline: Mapping[str, Any], tensors: TensorFile, directory: Path) -> Any:
    where, union = f"{directory / NODES_FILE}: newcomer_pass", passes.NewcomerPass
    return structure(outline, union, where=where, advice=_AGAIN, converter=_converter(dict(tensors.tensors)))


def _converter(tensors: dict[str, Tensor]) -> cattrs.Converter:
    """Return what turns passes into JSON values and back; their tensors go into and come from `tensors` by name."""

    def put(tensor: Tensor) -> str:
        name = f"{_PASS}{len(tensors) - len(_EXPECTED)}"
        tensors[name] = tensor
        return name

    def take(name: Any, _: Any) -> Tensor:
        if name not in tensors:
            raise ValueError(f"expected the name of a tensor in {TENSORS_FILE}, got {quoted(name)}")
        return tensors[name]

    def put_pass(value: object) -> dict[str, object]:
        return {"kind": _KINDS[type(value)], **converter.unstructure(value)}

    def take_pass(value: object, _: object) -> object:
        kinds = [kind for kind, name in _KINDS.items() if isinstance(value, dict) and value.get("kind") == name]
        if not kinds:
            raise ValueError(f"expected a pass of kind {', '.join(_KINDS.values())}, got {quoted(value)}")
        return converter.structure(value, kinds[0])

    converter = strict_converter()
    converter.register_unstructure_hook(Tensor, put)
    converter.register_structure_hook(Tensor, take)
    converter.register_unstructure_hook(passes.NewcomerPass, put_pass)
    converter.register_structure_hook(passes.NewcomerPass, take_pass)
    return converter
