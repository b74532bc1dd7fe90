"""What a training step costs: plain LoRA, the mixture of LoRA experts, a dispatch loop, packed pairs, cached layers.

    python -m benchmarks.mole_speed

All variants do the same work on the same random tokens: forward, Bradley-Terry loss, backward and AdamW on 16
comparisons, that is 32 texts of 64 tokens whose prompt and response are equally long. They share one frozen backbone
and are run in turn, round after round, each round in an order of its own, so that whatever else the machine does hits
all alike, and none always comes after the same other one; a ratio is the median over rounds of the ratio within a
round, once of wall time and once of processor time, and beside them the ratio of the fastest steps, since what else a
machine does can only add to a step. The baseline ``dispatch`` is the usual way to write a mixture: every adapted
module has a gate of its own and loops over its experts, each of which gets the texts that are routed to it. It drops
inputs by torch's own dropout, and so does the baseline ``stock``, which is plain LoRA as PEFT makes it; all others by
`copl.experts.dropout`.

On a CPU the backbone is smollm2-135m in float32; with a CUDA device it is a random Llama of 1.2 billion weights in
bfloat16 on longer texts. Peak memory is that of a step beyond what is held between steps.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from benchmarks.measured import RESULTS, markdown_table, measure, provenance
from copl.experts.dropout import SixteenBitDropout
from copl.experts.gates.catalogue import LearnedGateOptions
from copl.experts.gates.fixed import NoGate
from copl.experts.gates.learned import LearnedGate
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.interfaces import ExpertGate
from copl.plugins import load
from copl.records import Comparisons
from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone, pool
from copl.reward.heads import BilinearHead
from copl.reward.model import AffineScaling, PersonalRewardModel, silence_dropout
from copl.reward.options import RewardOptions
from copl.reward.reading.kept import KeptRows, UnevenRows
from copl.reward.reading.passes import Read, lower_pass, take
from copl.reward.reading.reader import TextReader
from copl.reward.training.batches import PairCollator
from copl.reward.training.objective import BradleyTerryObjective
from copl.system.files import write_text
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DIM, EXPERTS, RANK, ALPHA, DROPOUT, TOP_LAYERS = 512, 8, 8, 16.0, 0.1, 4
BARS = {
    "mixture / stock": ("mixture", "stock", "at most", 1.15),
    "mixture / plain": ("mixture", "plain", "at most", 1.15),
    "dispatch / mixture": ("dispatch", "mixture", "at least", 1.35),
    "mixture / packed": ("mixture", "packed", "at least", 1.25),
    "mixture / cached": ("mixture", "cached", "at least", 5.0),
}


class DispatchedLora(nn.Module):
    """A linear module with a shared LoRA expert and routed ones, each applied to the rows that are routed to it."""

    def __init__(self, base: nn.Linear, users: Callable[[], Tensor]) -> None:
        super().__init__()
        self.base, self._users = base, users

        def expert() -> nn.Module:
            down = nn.Linear(base.in_features, RANK, bias=False, device=base.weight.device)
            up = nn.Linear(RANK, base.out_features, bias=False, device=base.weight.device)
            return nn.Sequential(nn.Dropout(DROPOUT), down, up)

        self.shared, self.experts = expert(), nn.ModuleList(expert() for _ in range(EXPERTS))
        self.gate = LearnedGate(LearnedGateOptions(num_experts=EXPERTS), embedding_dim=DIM, top_k=1)
        self.gate.to(base.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Sort the rows by expert, run each expert on its share, and put the results back where they belong."""
        weights = self.gate(self._users()).weights
        weight, expert = weights.max(dim=1)
        order = expert.argsort()
        shares = torch.split(x[order], torch.bincount(expert, minlength=EXPERTS).tolist())
        routed = torch.cat([one(share) for one, share in zip(self.experts, shares, strict=True)])
        scaled = (routed * weight[order, None, None]).to(x.dtype)
        combined = torch.zeros_like(scaled).index_add(0, order, scaled)
        result: Tensor = self.base(x) + ALPHA / RANK * (combined + self.shared(x))
        return result


class DispatchedModel(nn.Module):
    """The backbone with `DispatchedLora` in place of its adapted modules, and a linear head."""

    def __init__(self, backbone: LoadedBackbone) -> None:
        super().__init__()
        self.transformer, self.users = backbone.model, torch.zeros(0)
        names = [n for n, m in backbone.model.named_modules() if n.rpartition(".")[2] in backbone.target_modules]
        for name in names:
            parent, _, last = name.rpartition(".")
            owner = backbone.model.get_submodule(parent)
            setattr(owner, last, DispatchedLora(getattr(owner, last), lambda: self.users))
        self.head = nn.Linear(backbone.hidden_size, 1, device=backbone.model.device)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        self.users = torch.cat([batch["users"], batch["users"]])
        hidden = self.transformer(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        pooled = pool(hidden.last_hidden_state, batch["attention_mask"], "last").float()
        chosen, rejected = self.head(pooled).squeeze(1).chunk(2)
        return nn.functional.softplus(rejected - chosen).mean()


def texts(num_pairs: int, length: int, vocabulary: int, seed: int) -> tuple[EncodedResponses, Comparisons]:
    """Random tokens: each prompt has two responses; prompt and response have half of the length each."""
    rng = np.random.default_rng(seed)
    prompts = rng.integers(3, vocabulary, (num_pairs, length // 2)).repeat(2, axis=0)
    ids = np.concatenate([prompts, rng.integers(3, vocabulary, prompts.shape)], axis=1).astype(np.int32)
    # responses differ from their first token on
    ids[1::2, length // 2] = (ids[::2, length // 2] - 2) % (vocabulary - 3) + 3
    count = 2 * num_pairs
    offsets = np.arange(count + 1) * ids.shape[1]
    encoded = EncodedResponses(ids.ravel(), offsets, np.full(count, length // 2), 0, length, 0, 0)
    return encoded, Comparisons(np.arange(num_pairs), np.arange(0, count, 2), np.arange(1, count, 2))


def shared_copy(backbone: LoadedBackbone) -> LoadedBackbone:
    """A backbone of its own modules on the same weights."""
    memo: dict[int, Any] = {id(p): p for p in backbone.model.parameters()}
    return attrs.evolve(backbone, model=copy.deepcopy(backbone.model, memo))


def states_below(reader: TextReader, encoded: EncodedResponses) -> UnevenRows:
    """The hidden states that adapters on the top layers go on from."""
    rows, keys = KeptRows(), [str(place) for place in range(len(encoded))]

    def put(read: Read) -> None:
        assert read.states is not None
        rows.put([keys[place] for place in read.places], encoded.lengths[read.places], read.states)

    assert reader.trunk is not None
    take(lower_pass(reader.backbone, encoded, reader.trunk), len(encoded), SilentProgress(), put)
    return rows.get(keys)


def reward_model(reader: TextReader, gate: ExpertGate) -> PersonalRewardModel:
    backbone, trunk = reader.backbone, reader.trunk
    mixture = MixtureOfLora.attach(
        backbone.model,
        MixtureOptions(shared_rank=RANK, expert_rank=RANK, alpha=ALPHA, dropout=DROPOUT),
        num_experts=gate.num_experts,
        target_modules=backbone.target_modules,
        layers=None if trunk is None else trunk.layers,
    )
    plain = AffineScaling(torch.zeros(DIM), torch.ones(DIM))
    features = AffineScaling(torch.zeros(backbone.hidden_size), torch.ones(backbone.hidden_size))
    head = BilinearHead(backbone.hidden_size, DIM)
    model = PersonalRewardModel(reader, mixture, gate, head, users=plain, features=features)
    return model.to(backbone.model.device).train()


Loss: TypeAlias = "Callable[[dict[str, Any]], Tensor]"


def step_of(
    module: nn.Module, loss: Loss, draw: Callable[[], dict[str, Tensor]], trunk: PreTrainedModel
) -> Callable[[], None]:
    """A training step of a module on what is drawn, on the device of the trunk, in bfloat16 where that is."""
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step() -> None:
        batch = {name: tensor.to(trunk.device) for name, tensor in draw().items()}
        with torch.autocast(trunk.device.type, torch.bfloat16, enabled=trunk.dtype == torch.bfloat16):
            value = loss(batch)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        optimizer.zero_grad()

    return step


def variants(backbone: LoadedBackbone, encoded: EncodedResponses, pairs: Comparisons) -> dict[str, Callable[[], None]]:
    """One step of each variant, by name."""
    users = torch.randn(len(pairs), DIM, generator=torch.Generator().manual_seed(0))
    rows = np.arange(len(pairs))

    def gate() -> ExpertGate:
        return LearnedGate(LearnedGateOptions(num_experts=EXPERTS), embedding_dim=DIM, top_k=1)

    def stepping(module: nn.Module, loss: Loss, collator: PairCollator) -> Callable[[], None]:
        return step_of(module, loss, lambda: collator(rows), backbone.model)

    def ours(
        gate: ExpertGate, *, packed: bool = False, top: int = 0, dropout: type[nn.Dropout] = SixteenBitDropout
    ) -> Callable[[], None]:
        reader = TextReader.over(shared_copy(backbone), RewardOptions(max_length=1024, trainable_layers=top))
        kept = states_below(reader, encoded) if top else None
        model = reward_model(reader, gate)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                layer.lora_dropout["default"] = dropout(DROPOUT)
        objective = BradleyTerryObjective(model)
        collator = PairCollator(encoded, pairs, users, routes=None, kept=kept, packed=packed)
        return stepping(objective, lambda batch: objective(**batch)["loss"], collator)

    plain = PairCollator(encoded, pairs, users, routes=None, kept=None)
    tokens = {name: tensor.to(backbone.model.device) for name, tensor in plain(rows).items()}

    @torch.no_grad()
    def forward() -> None:
        backbone.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])

    dispatched = DispatchedModel(shared_copy(backbone)).train()
    return {
        "forward": forward,
        "stock": ours(NoGate(), dropout=nn.Dropout),
        "plain": ours(NoGate()),
        "mixture": ours(gate()),
        "dispatch": stepping(dispatched, dispatched, plain),
        "packed": ours(gate(), packed=True),
        "cached": ours(gate(), top=min(TOP_LAYERS, backbone.num_layers - 1)),
    }


@attrs.frozen
class Steps:
    """What the steps of one variant took, round by round.

    Attributes:
        wall: seconds by the clock.
        processor: seconds of all processor cores together.
        peak_mib: memory of a step beyond what is held before it, at most.
    """

    wall: list[float] = attrs.field(factory=list)
    processor: list[float] = attrs.field(factory=list)
    peak_mib: list[float] = attrs.field(factory=list)

    def add(self, step: Callable[[], None], device: torch.device) -> None:
        """Take one step."""
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        else:
            ctypes.CDLL(None).malloc_trim(0)  # else memory that was freed counts as held
        with measure() as usage:
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
        self.wall.append(usage.wall_s)
        self.processor.append(usage.cpu_s)
        peak = usage.peak_mib - usage.start_mib
        self.peak_mib.append((torch.cuda.max_memory_allocated() - held) / 2**20 if device.type == "cuda" else peak)


def take_turns(steps: Mapping[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, Steps]:
    """Run all variants in turn, in another order each round, after one warm-up that does not count."""
    for step in steps.values():
        step()
    found, rng = {name: Steps() for name in steps}, np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(steps)):
            found[name].add(steps[name], device)
    return found


def random_backbone(size: str, device: torch.device) -> LoadedBackbone:
    """A Llama with random weights; only its shape matters for speed. It needs no tokenizer here."""
    from transformers import LlamaConfig, LlamaModel

    shapes = {
        "tiny": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4},
        "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    }
    config = LlamaConfig(**shapes[size], num_key_value_heads=4, vocab_size=1000, max_position_embeddings=2048)
    torch.manual_seed(0)
    model = LlamaModel(config)
    model.config.use_cache = False
    model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32).requires_grad_(False).eval()
    return LoadedBackbone(
        model=model,
        tokenizer=None,  # tokens are drawn at random
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        pooling="last",
        template="plain",
        target_modules=("q_proj", "v_proj"),
        pad_id=0,
        max_positions=2048,
    )


def table(found: Mapping[str, Steps], tokens: int) -> list[str]:
    """Return the results as Markdown."""
    columns = ("variant", "s/step, median", "fastest", "processor s/step", "tokens/s", "of the forward", "peak MiB")
    rows = []
    for name, own in found.items():
        middle = statistics.median(own.wall)
        share = statistics.median(ratios(own.processor, found["forward"].processor))
        times = (f"{middle:.3f}", f"{min(own.wall):.3f}", f"{statistics.median(own.processor):.3f}")
        rows.append((name, *times, f"{tokens / middle:,.0f}", f"{share:.2f}", f"{max(own.peak_mib):,.0f}"))
    lines = [*markdown_table(columns, rows), ""]
    judged = []
    for title, (first, second, side, bar) in BARS.items():
        wall = ratios(found[first].wall, found[second].wall)
        processor = ratios(found[first].processor, found[second].processor)
        fastest = f"{min(found[first].wall) / min(found[second].wall):.2f}"
        judged.append((title, f"{side} {bar}", _spread(wall), _spread(processor), fastest))
    header = ("ratio", "wanted", "wall: median (range)", "processor: median (range)", "wall: fastest steps")
    lines += markdown_table(header, judged)
    return lines


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(first, second, strict=True)]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=["smollm2-135m", "1b", "tiny"], default="1b" if cuda else "smollm2-135m")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--length", type=int, default=512 if cuda else 64)
    parser.add_argument("--rounds", type=int, default=20 if cuda else 7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--modules", help="linear modules that are adapted, with commas; else the backbone's usual ones"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "mole_speed.md")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    if arguments.backbone == "smollm2-135m":
        backbone: LoadedBackbone = load().registry("backbone").create("smollm2-135m", {}).load()
        backbone.model.to(device)
    else:
        backbone = random_backbone(arguments.backbone, device)
    if arguments.modules:
        backbone = attrs.evolve(backbone, target_modules=tuple(arguments.modules.split(",")))
    silence_dropout(backbone.model)
    encoded, pairs = texts(arguments.pairs, arguments.length, int(backbone.model.config.vocab_size), seed=0)
    found = take_turns(variants(backbone, encoded, pairs), arguments.rounds, device)
    facts = [
        f"accelerator: {torch.cuda.get_device_name(device) if cuda else 'none'}; precision: "
        f"{'bfloat16' if cuda else 'float32'}",
        f"backbone: {arguments.backbone}; {2 * arguments.pairs} texts of {arguments.length} random tokens, seed 0; "
        f"{arguments.rounds} rounds after one warm-up, the variants in an order drawn for each round; adapted: "
        f"{', '.join(backbone.target_modules)}",
        f"forward: the frozen backbone alone; stock: LoRA of rank {RANK} as PEFT makes it; plain: the same with the "
        f"quicker dropout of all the others; mixture: shared rank {RANK} and {EXPERTS} "
        f"experts of rank {RANK}, top-1; packed: the mixture, a prompt read once for both responses; cached: the "
        f"mixture on the top {TOP_LAYERS} layers, hidden states below read from memory",
        "tokens are those of the unpacked texts; memory is that of a step beyond what is held between steps",
    ]
    command = " ".join(["python -m benchmarks.mole_speed", *argv])
    lines = ["# Speed of a training step", "", *provenance(command, threads=arguments.threads, facts=facts), ""]
    lines += table(found, 2 * arguments.pairs * arguments.length)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
