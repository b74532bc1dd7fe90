"""Every architecture of transformers under the reward model: does it open, read, train and leave as it should?

    python -m benchmarks.architectures [--only NAME ...] [--out FILE]

Each is a tiny model with random weights, saved and opened as people's models are. The exported classifier has to score
as `copl` does, whatever the type of the checkpoint, the template, the side of the padding, marks inside texts and their
length, or be refused with a reason; so it is with everything else. A cell that says FAULT is one. Scores are equal if
they are at most 1e-4 of the largest apart, or no further than four times what that very model moves when each of its
weights changes by one unit in the last place: what is exported holds products of weights that are rounded once more, so
it cannot come nearer, and double precision after that changes nothing. Cells that need this bar give the difference,
and how far the model moves by itself.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import attrs
import numpy as np
import torch
import transformers
from torch import Tensor

from benchmarks.measured import RESULTS, commit, markdown_table
from benchmarks.model_folders import FOLDERS, refusal
from benchmarks.tiny_models import SPECIAL, byte_tokenizer, model_types, prefix_space_tokenizer, tiny_model
from copl.data.canonical import canonical_text
from copl.data.chat import encode_prompt
from copl.errors import CoplError
from copl.experts.gates.catalogue import LearnedGateOptions
from copl.experts.gates.learned import LearnedGate
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.records import ResponseTable
from copl.reward.backbones.catalogue import HuggingFace, HuggingFaceOptions
from copl.reward.backbones.checkpoints import quiet
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.backbones.standalone import PersonalReward
from copl.reward.export import export_user
from copl.reward.heads import BilinearHead
from copl.reward.model import AffineScaling, PersonalRewardModel, silence_dropout
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.reading.trunk import FrozenTrunk, check_replay
from copl.reward.scoring import score_responses

YES = "yes"
_MAX_LENGTH = 96
_TOLERANCE = 1e-4
_ROUNDINGS = 4
_USER = torch.tensor([0.7, -0.4])
_TALK = [("user", "a b?"), ("assistant", "<think>c</think> d"), ("user", "e")]
MESSAGES = [{"role": role, "content": content} for role, content in _TALK]
TEXTS: list[tuple[Any, str]] = [
    ("How do I fry an egg?", "Hot pan, three minutes."),
    ("", "no prompt"),
    ("a", ""),
    (MESSAGES, "<think>f g</think>\n\nh i "),
    ("a", " </think> b"),
    ([{"role": "user", "content": " Cafe\u0301?\r\n"}], "\u00a0Oui.\u200b"),
    (f"What is {SPECIAL[5]}{SPECIAL[0]}?", f"{' '.join(SPECIAL)}"),
    ("long " * 60, "the end"),
    ("a b", "a long answer " * 20),
]


@final
@attrs.frozen
class Case:
    """How a model is saved, opened and exported.

    Attributes:
        tokenizer: makes the tokenizer.
        chat: whether it has a chat template.
        side: where the tokenizer puts padding.
        dtype: type of the checkpoint's weights.
        pooling: how hidden states become one vector; None for the architecture's own.
        merge: whether a whole model is exported.
    """

    tokenizer: Callable[..., Any]
    chat: bool
    side: str
    dtype: torch.dtype
    pooling: Any
    merge: bool


CASES = {
    "chat, last": Case(byte_tokenizer, True, "right", torch.float32, "last", False),
    "bfloat16, prefix space, mean": Case(prefix_space_tokenizer, False, "left", torch.bfloat16, "mean", False),
    "chat, prefix space, merged": Case(prefix_space_tokenizer, True, "left", torch.float32, None, True),
}


def saved(model_type: str, case: Case, directory: Path) -> HuggingFace:
    """Write a tiny model as people publish theirs, and return the component that opens it."""
    model = tiny_model(model_type)
    ids = torch.arange(24).reshape(2, 12) + 7
    with torch.no_grad(), suppress(ValueError, TypeError, AttributeError, LookupError):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))  # a RuntimeError: sizes that do not fit together
    with quiet():
        model.to(case.dtype).save_pretrained(directory)
        case.tokenizer(chat=case.chat, side=case.side).save_pretrained(directory)
    return HuggingFace(HuggingFaceOptions(str(directory), pooling=case.pooling))


def reward_model(backbone: LoadedBackbone, targets: tuple[str, ...]) -> PersonalRewardModel:
    """Return a reward model on a backbone, with adapters, gate and head of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        gate = LearnedGate(LearnedGateOptions(num_experts=3, hidden_dim=8), embedding_dim=2, top_k=1)
        options = MixtureOptions(shared_rank=2, expert_rank=2, dropout=0.0)
        mixture = MixtureOfLora.attach(backbone.model, options, num_experts=3, target_modules=targets)
        size = backbone.hidden_size
        head = BilinearHead(size, 2)
        features = AffineScaling(torch.randn(size) * 0.1, torch.ones(size))
        users = AffineScaling(torch.zeros(2), torch.ones(2))
        reader = TextReader.over(backbone, RewardOptions(max_length=_MAX_LENGTH, trainable_layers=0))
        model = PersonalRewardModel(reader, mixture, gate, head, users=users, features=features)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def scores(model: PersonalRewardModel, rows: list[int]) -> Any:
    """Return the rewards of some of the texts, read in one batch."""
    prompts = [encode_prompt(prompt) for prompt, _ in TEXTS]
    table = ResponseTable(prompts, [canonical_text(response) for _, response in TEXTS])
    return score_responses(model, table, _USER.expand(len(rows), -1), np.array(rows))


def exported(model: PersonalRewardModel, clean: LoadedBackbone, directory: Path, *, merge: bool) -> str:
    """Export, open what was exported, and compare."""
    export_user(model, _USER, "u", clean, directory, merge=merge)
    reward = PersonalReward(directory)
    own = scores(model, list(range(len(TEXTS))))
    theirs = [reward(prompt, response) for prompt, response in TEXTS]
    worst = float(np.abs(own - theirs).max())
    if worst <= _TOLERANCE * max(1.0, float(np.abs(own).max())):
        return YES
    moved = sensitivity(model, own)
    return f"{YES} ({worst:.1e}; {moved:.1e})" if worst <= _ROUNDINGS * moved else f"FAULT: {worst:.1e} apart"


@torch.no_grad()
def sensitivity(model: PersonalRewardModel, rewards: Any, num_draws: int = 3) -> float:
    """How far rewards move where every weight of the transformer changes by one unit in the last place, up or down.

    Args:
        model: the reward model; left as it was.
        rewards: of all texts.
        num_draws: the largest of so many random changes is taken.
    """
    worst = 0.0
    parameters = [parameter for parameter in model.backbone.model.parameters() if parameter.is_floating_point()]
    before = [parameter.clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(2)
    for _ in range(num_draws):
        for parameter, weights in zip(parameters, before, strict=True):
            sides = torch.randint(0, 2, weights.shape, generator=generator) * 2.0 - 1.0
            parameter.copy_(torch.nextafter(weights.float(), sides * torch.inf))
        moved = scores(model, list(range(len(TEXTS))))
        worst = max(worst, float(np.abs(moved - rewards).max()))
    for parameter, weights in zip(parameters, before, strict=True):
        parameter.copy_(weights)
    return worst


def alone(model: PersonalRewardModel) -> str:
    """Whether a text has the same score alone and among others."""
    rows = list(range(len(TEXTS)))
    together, each = scores(model, rows), np.array([float(scores(model, [row])[0]) for row in rows])
    worst = float(np.abs(together - each).max())
    if float(np.std(together)) < 1e-4:
        return "FAULT: the same score for all"
    return YES if worst <= _TOLERANCE * max(1.0, float(np.abs(each).max())) else f"FAULT: {worst:.1e} apart"


@torch.no_grad()
def silent(backbone: LoadedBackbone) -> str:
    """Whether the model says the same in training."""
    silence_dropout(backbone.model)
    ids = torch.arange(24).reshape(2, 12) + 7
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    backbone.model.eval()
    plain: Tensor = backbone.model(**inputs).last_hidden_state
    backbone.model.train()
    trained = [backbone.model(**inputs).last_hidden_state for _ in range(2)]
    backbone.model.eval()
    worst = max(float((plain - other).abs().max()) for other in trained)
    return YES if worst <= 1e-5 * float(plain.abs().max()) else f"FAULT: {worst:.1e} apart"


def replayed(backbone: LoadedBackbone) -> str:
    """Whether the states below the top layer can be kept."""
    check_replay(backbone.model, FrozenTrunk(backbone.model, backbone.num_layers, 1))
    return YES


@contextmanager
def _told(cells: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except CoplError as error:
        cells[name] = f"refused: {error.faults[0]}"
    except Exception as error:  # noqa: BLE001  # the kind of thing that is looked for
        cells[name] = f"FAULT: {type(error).__name__}: {' '.join(str(error).split())[:120]}"


def examine(model_type: str, root: Path) -> dict[str, str]:
    """Return what became of an architecture, by check."""
    cells: dict[str, str] = {}
    for place, (name, case) in enumerate(CASES.items()):
        directory = root / f"{model_type}-{place}"
        try:
            component = saved(model_type, case, directory)
        except Exception as error:  # noqa: BLE001  # sizes that do not fit together
            return {"opens": f"not tried: {' '.join(str(error).split())[:100]}"}
        with _told(cells, "opens"):
            backbone = component.load()
            cells["opens"] = YES
        if cells["opens"] != YES:
            return cells
        if place == 0:
            for check, run in (("no dropout", silent), ("kept states", replayed)):
                with _told(cells, check):
                    cells[check] = run(backbone)
        with _told(cells, "adapters"):
            model = reward_model(backbone, backbone.target_modules)
            cells["adapters"] = ", ".join(backbone.target_modules)
        if cells["adapters"].startswith(("refused", "FAULT")):
            return cells
        if place < 2:
            with _told(cells, "alone"):
                cells["alone"] = alone(model) if cells.get("alone", YES) == YES else cells["alone"]
        with _told(cells, name):
            cells[name] = exported(model, component.load(), root / "export", merge=case.merge)
        shutil.rmtree(root / "export", ignore_errors=True)
        shutil.rmtree(directory)
    return cells


COLUMNS = ("opens", "adapters", "no dropout", "kept states", "alone", *CASES)


def table(found: dict[str, dict[str, str]], folders: dict[str, str]) -> str:
    """Return what became of all architectures, and of folders that are no backbone, as a page."""
    judged = [cells for cells in found.values() if not cells["opens"].startswith("not tried")]
    whole = sum(all(cells.get(name, "").startswith(YES) for name in CASES) for cells in judged)
    faults = sum("FAULT" in cell for cells in judged for cell in cells.values())
    notes: dict[str, int] = {}

    def shown(cell: str) -> str:
        if not cell.startswith(("refused", "FAULT", "not tried")):
            return cell
        return f"{cell.partition(':')[0]} [{notes.setdefault(cell, len(notes) + 1)}]"

    rows = [(name, *(shown(cells.get(column, "")) for column in COLUMNS)) for name, cells in found.items()]
    lines = [
        f"# Architectures of transformers {transformers.__version__}",
        "",
        f"`python -m benchmarks.architectures` at commit {commit()}.",
        "",
        " ".join((__doc__ or "").split("\n\n")[2].split()),
        "",
        f"{len(found)} architectures that read text; {len(judged)} could be made tiny and were tried; {whole} of them "
        f"are exported with equal scores in all cases, {faults} cells are faults.",
        "",
        *markdown_table(("architecture", *COLUMNS), rows),
        "",
        *(f"{number}. {note}" for note, number in notes.items()),
        "",
        "Folders that are no backbone:",
        "",
        *markdown_table(("folder", "what is said"), list(folders.items())),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Examine all architectures, or those named, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", default=None, help="names of architectures")
    parser.add_argument("--out", type=Path, default=RESULTS / "architectures.md", help="the table")
    given = parser.parse_args(arguments)
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as root, quiet():
        for name in given.only or model_types():
            start = time.process_time()
            found[name] = examine(name, Path(root))
            print(f"{name} ({time.process_time() - start:.1f} s): {found[name]}", flush=True)
        folders = {
            name: refusal(write, Path(root, f"folder-{n}")) for n, (name, (write, _)) in enumerate(FOLDERS.items())
        }
    given.out.write_text(table(found, folders), encoding="utf-8")


if __name__ == "__main__":
    main()
