"""What policies gain with a language model as the writer: in-context, one user's, one for everybody, one shared.

    copl demo --out demo-run
    python -m benchmarks.policy demo-run/copl --model small                 # minutes on one core
    python -m benchmarks.policy demo-run/copl --model smollm2-135m --teach 60 --steps 40 --users 6 --newcomers 4

On the embedded corpus, whose users' true utilities are known. Answers are those of the grammar that are not detailed:
short, of 16 styles. The language model is first taught to write them (supervised; `smollm2-135m` by a LoRA that is
merged, `small`, a transformer of a million weights, and `tiny`, of a third of that, from nothing; kept in the cache),
to some prompts of the training and to a few that no preference was ever learnt on: what there is to say it has to
know, what a user wants it has not. Policies are then trained by the aligners themselves, on the grammar's candidates to
the training prompts, ranked by the rewards of the run. On the prompts never trained on it prints for each aligner, with
95 % intervals over users and prompts,

- *written*: the true utility of what it writes, from 0 (a random short answer) to 1 (the best of them), over what the
  grammar's reader can read, and the share it cannot;
- *choice*: of policies for everybody, the same of the short answer that the policy has made most likelier;
- processor seconds of training and of answering, and the highest resident memory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from attrs import evolve, frozen

from benchmarks.measured import measure
from copl import Model
from copl.align.aligners.best_of_n import BestOfN
from copl.align.aligners.dpo import DpoAligner
from copl.align.aligners.in_context import InContext, InContextOptions
from copl.align.aligners.mixture_dpo import MixtureDpoAligner, embeds_users
from copl.align.context import RunContext
from copl.align.generators.facets import COMBINATIONS, FacetsGenerator
from copl.align.generators.local import LocalGenerator, LocalOptions
from copl.align.generators.table import TableGenerator, TableOptions
from copl.align.judging import new_prompts
from copl.align.policies.options import DpoOptions, MixtureDpoOptions
from copl.align.policies.rows import plain_prompt
from copl.align.policies.writer import Writer, own_randomness, quiet_packages
from copl.commands.align import fitted_run
from copl.data.chat import messages_of
from copl.data.sources.facets.reading import read_facets
from copl.evaluate.policy import GAIN, ShownAnswers, measure_answers
from copl.evaluate.tables import cell
from copl.interfaces import Aligner, Generator
from copl.options import NoOptions
from copl.records import FloatArray, Measurement, UserTable
from copl.records.answers import AnswerRequests
from copl.runs.pipeline import load_data
from copl.runs.recipe import canonical_hash
from copl.system.files import cache_directory, new_directory
from copl.system.progress import SilentProgress

NUM_CANDIDATES = 8
WRITERS = {"small": (128, 4), "tiny": (96, 2)}
"""Writers that learn from nothing: width and number of layers, a million weights and a third of that."""


@final
@frozen(eq=False)
class Bench:
    """What is measured on.

    Attributes:
        model: the run, opened.
        users: ids of the users measured, by kind.
        new: prompts that no preference was learnt on.
        texts: the short answers of the grammar to these and to some training prompts.
        directory: where policies go.
        seed: of what writer and policies draw.
    """

    model: Model
    users: dict[str, list[str]]
    new: list[str]
    texts: dict[str, tuple[str, ...]]
    directory: Path
    seed: int = 0

    def context(self, generator: Generator, name: str) -> RunContext:
        """Return what an aligner may use, with a directory of its own."""
        data = load_data(self.model.run)[0]
        support = data.split("support")
        adapted = self.model.adapt(support)
        return RunContext(
            fitted_run(self.model), generator, self.directory / name, SilentProgress(), self.seed, adapted, support
        )

    def table(self) -> TableGenerator:
        """Return the generator of the short answers: half of the styles, others to each prompt."""
        path = self.directory / "candidates.jsonl"
        rows = [{"prompt": prompt, "candidates": texts[:NUM_CANDIDATES]} for prompt, texts in self.texts.items()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return TableGenerator(TableOptions(path))

    def best(self, prompt: str, weights: FloatArray) -> str:
        """Return the short answer to a prompt that is worth most by such weights of the facets [5]."""
        return max(self.texts[prompt], key=lambda text: float(weights @ np.array(read_facets(prompt, text))))

    def requests(self, users: Sequence[str]) -> AnswerRequests:
        """Return the new prompts, asked by users."""
        return AnswerRequests(users, self.new, [self.texts[prompt][:NUM_CANDIDATES] for prompt in self.new])


def opened(model: Model, args: argparse.Namespace, part: int = 0) -> Bench:
    """Choose users and new prompts of a run, evenly; another part has others."""
    data = load_data(model.run)[0]
    learnt = data.split("train").comparisons.chosen
    training = _evenly(sorted({data.responses.prompts[row] for row in learnt.tolist()}), args.training)
    new = _part(sorted(new_prompts(data)), args.prompts, part)
    support = data.split("support").comparisons
    users = {
        "seen users": _part(sorted(model.method.seen_users()), args.users, part),
        "newcomers": _part(sorted({data.users.ids[row] for row in support.user.tolist()}), args.newcomers, part),
    }
    prompts = [*training, *new]
    every = FacetsGenerator(NoOptions()).candidates(prompts, num=len(COMBINATIONS), seed=1, progress=SilentProgress())
    texts = {prompt: _short(prompt, written) for prompt, written in zip(prompts, every, strict=True)}
    return Bench(model, users, new, texts, Path(tempfile.mkdtemp(prefix="copl-policy-")))


def _evenly(values: Sequence[str], count: int) -> list[str]:
    step = max(1, len(values) // max(1, count))
    return list(values[::step])[:count]


def _part(values: Sequence[str], count: int, part: int) -> list[str]:
    """Return so many values: evenly chosen ones as part 0, others as the parts that follow."""
    first = _evenly(values, count)
    if part == 0:
        return first
    rest = np.random.default_rng(0).permutation(sorted(set(values) - set(first)))
    return sorted(map(str, rest[(part - 1) * count : part * count]))


def _short(prompt: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return those answers that are not detailed."""
    return tuple(text for text in texts if (facets := read_facets(prompt, text)) is not None and not facets[0])


def small_writer(texts: Sequence[str], directory: Path, width: int, num_layers: int, seed: int) -> Path:
    """Write a random language model, with a tokenizer of its own for the texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=1500, special_tokens=["<end>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, eos_token="<end>", pad_token="<end>", model_max_length=512
    )
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        vocab_size=len(fast),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
    )
    with own_randomness(seed), quiet_packages():
        LlamaForCausalLM(config).save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


def taught(name: str, bench: Bench, steps: int, batch: int) -> Path:
    """Return the directory of a language model that was taught to write short answers, from the cache if there."""
    small, rows = name in WRITERS, [(prompt, text) for prompt, texts in bench.texts.items() for text in texts]
    if small:
        texts = [part for prompt, text in rows for part in (plain_prompt(messages_of(prompt)), text)]
        name = str(small_writer(texts, bench.directory / name, *WRITERS[name], bench.seed))
    plain = Writer.open(name)
    about = {"model": plain.fingerprint, "rows": rows, "steps": steps, "batch": batch}
    directory = cache_directory() / "writers" / f"facets-{canonical_hash(about)[:16]}"
    if directory.is_dir():
        return directory
    from peft import LoraConfig, get_peft_model

    rng, rate = np.random.default_rng(bench.seed), 3e-3 if small else 2e-3
    with own_randomness(bench.seed), quiet_packages(), measure() as usage:
        config = LoraConfig(
            r=32, lora_alpha=32, target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
        )
        model: Any = plain.model.requires_grad_(True) if small else get_peft_model(plain.model, config)
        speaker = Writer(model, plain.tokenizer, plain.directory)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
        pairs = [speaker.pair(prompt, text, 256) for prompt, text in rows]
        order = np.concatenate([rng.permutation(len(rows)) for _ in range(1 + steps * batch // len(rows))])
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 10, 1.2 * (steps - step) / steps)
            taken = [pairs[row] for row in order[step * batch : (step + 1) * batch].tolist()]
            loss = -speaker.likelihoods(taken).sum() / sum(len(pair.ids) - pair.start for pair in taken)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % max(1, steps // 8) == 0 or step == steps - 1:
                print(f"teaching, step {step}: {float(loss.detach()):.3f} nats a token", flush=True)
        merged = model if small else model.merge_and_unload()
        with new_directory(directory) as fresh:
            merged.save_pretrained(fresh)
            plain.tokenizer.save_pretrained(fresh)
    print(f"taught {len(bench.texts)} prompts in {usage.cpu_s:.0f} s, {usage.peak_mib:.0f} MiB", flush=True)
    return directory


def worth(bench: Bench, users: Sequence[str], texts: Sequence[Sequence[str]]) -> ShownAnswers:
    """Return what the texts shown to each prompt and user [P][U] are truly worth, beside all short answers."""
    truth = fitted_run(bench.model).truth
    asked = AnswerRequests(users, bench.new, [bench.texts[prompt] for prompt in bench.new])
    candidates = np.array(truth.utilities(asked)).transpose(1, 0, 2)
    weights = np.array([truth.weights[user] for user in users])
    shown = np.full((len(users), len(bench.new)), np.nan)
    for column, (prompt, row) in enumerate(zip(bench.new, texts, strict=True)):
        for place, text in enumerate(row):
            if (facets := read_facets(prompt, text)) is not None:
                shown[place, column] = weights[place] @ np.array(facets, dtype=np.float64)
    lengths = np.array([[len(text) for text in texts] for texts in asked.candidates], dtype=np.float64)
    length = np.array([[len(text) for text in row] for row in texts], dtype=np.float64).T
    return ShownAnswers(shown, shown, candidates, length, lengths, tuple(None for _ in users))


def gain(bench: Bench, users: Sequence[str], texts: Sequence[Sequence[str]]) -> tuple[Measurement | None, float]:
    """Return the gain of the texts shown to each prompt and user [P][U], and the share that cannot be read."""
    answers = worth(bench, users, texts)
    measured = {m.metric: m for m in measure_answers(answers, "cold", "all", seed=0)}
    return measured.get(GAIN), float(np.isnan(answers.shown).mean())


def report(bench: Bench, name: str, aligner: Aligner, context: RunContext, kinds: Sequence[str], per_kind: int) -> None:
    """Let an aligner answer, and print what users got and what it took; what it trains, it trains at first."""
    for kind in kinds:
        users = bench.users[kind][:per_kind]
        with measure() as usage:
            answers = aligner.answers(bench.requests(users), context)
        shown = [answer.shown for answer in answers]
        rows = [shown[start : start + len(users)] for start in range(0, len(shown), len(users))]
        found, unread = gain(bench, users, rows)
        print(
            f"| {name} | {kind} ({len(users)}) | {cell(found) if found else 'none read'} | {unread:.0%} "
            f"| {usage.cpu_s:.0f} s | {usage.peak_mib:.0f} MiB |",
            flush=True,
        )
        example = rows[0][0].replace("\n", " / ")
        print(f"<!-- {users[0]}: {bench.new[0]} {example} -->", flush=True)


@torch.no_grad()
def choices(
    bench: Bench, kind: str, aligner: MixtureDpoAligner, context: RunContext, num: int = NUM_CANDIDATES
) -> list[list[str]]:
    """Return for each new prompt and user the short answer that a policy has made most likelier, of so many [P][U]."""
    policy = aligner.policy(context)
    users = UserTable.ungrouped(bench.users[kind])
    vectors = embeds_users(context.method).user_vectors(users, context.adapted).float()
    texts: list[list[str]] = []
    for prompt in bench.new:
        candidates = bench.texts[prompt][:num]
        pairs = [policy.writer.pair(prompt, text, policy.options.max_length) for text in candidates]
        reference, known = policy.reference(pairs), dict[bytes, str]()
        texts.append([])
        for vector in vectors:
            voice = policy.voice(vector)
            if voice not in known:
                weights = policy.weights(vector.expand(len(pairs), -1))
                known[voice] = candidates[int((policy.likelihoods(pairs, weights) - reference).argmax())]
            texts[-1].append(known[voice])
    return texts


def report_choices(bench: Bench, name: str, aligner: MixtureDpoAligner, context: RunContext) -> None:
    """Print the gain of what a policy has made most likelier, of the answers that the table has."""
    for kind, users in bench.users.items():
        found, _ = gain(bench, users, choices(bench, kind, aligner, context))
        print(f"| {name}, choice | {kind} ({len(users)}) | {cell(found) if found else ''} | | | |", flush=True)


def sizes_parser() -> argparse.ArgumentParser:
    """Return the options of who and what is measured, and of how writer and policies are trained (`opened`)."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", default="small")
    parser.add_argument("--teach", type=int, default=600, help="supervised steps")
    parser.add_argument("--steps", type=int, default=100, help="steps of DPO of policies for everybody")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-4, help="peak learning rate of DPO")
    parser.add_argument("--training", type=int, default=12, help="training prompts")
    parser.add_argument("--prompts", type=int, default=4, help="prompts that nobody was asked in training")
    parser.add_argument("--rated", type=int, default=48, help="users whose rankings are trained on")
    parser.add_argument("--users", type=int, default=24, help="seen users measured")
    parser.add_argument("--newcomers", type=int, default=12)
    return parser


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(parents=[sizes_parser()])
    parser.add_argument("run", type=Path)
    parser.add_argument("--own-steps", type=int, default=20, help="steps of DPO of one user's policy")
    parser.add_argument(
        "--own", type=int, default=2, help="users who get policies of their own, and in-context answers"
    )
    parser.add_argument("--teach-only", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Teach, let all aligners answer and print what they gain."""
    args = _parsed(arguments)
    bench = opened(Model.open(args.run), args)
    model = str(taught(args.model, bench, args.teach, 16 if args.model in WRITERS else 6))
    if args.teach_only:
        return
    print("| what is shown | users | gain | unread | processor | memory |\n| --- | --- | --- | --- | --- | --- |")
    writer = LocalGenerator(LocalOptions(model=model, max_tokens=64, temperature=0.7))
    own: dict[str, Any] = {
        "model": model,
        "num_prompts": 10_000,  # of these, the table has candidates to some
        "num_candidates": NUM_CANDIDATES,
        "said": False,
        "epochs": 1000.0,
        "batch_size": args.batch,
        "max_new_tokens": 64,
        "learning_rate": args.rate,
    }
    options = MixtureDpoOptions(**own, num_users=args.rated, max_steps=args.steps)
    policies = {"mixture-dpo": options, "one shared DPO policy": evolve(options, num_experts=0, shared_rank=16)}
    kinds = list(bench.users)
    for name, chosen in policies.items():
        everybody = MixtureDpoAligner(chosen)
        context = bench.context(bench.table(), name.replace(" ", "-"))
        with measure() as usage:
            everybody.policy(context)
        print(f"| {name}: training | | | | {usage.cpu_s:.0f} s | {usage.peak_mib:.0f} MiB |", flush=True)
        report_choices(bench, name, everybody, context)
        report(bench, name, everybody, context, kinds, 10**6)
    alone = DpoAligner(DpoOptions(**own, max_steps=args.own_steps))
    report(bench, "dpo, its training counted", alone, bench.context(bench.table(), "dpo"), kinds[:1], args.own)
    shown = InContext(InContextOptions(budget=256))
    report(bench, "in-context", shown, bench.context(writer, "in-context"), kinds, args.own)
    report(bench, "best of 8 of the grammar", BestOfN(NoOptions()), bench.context(bench.table(), "best"), kinds, 10**6)


if __name__ == "__main__":
    main()
