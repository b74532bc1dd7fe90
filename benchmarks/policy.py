"""What a policy for everybody gains over one shared policy, for users seen in training and for newcomers.

    copl demo --out demo-run
    python -m benchmarks.policy demo-run/copl [--steps 60] [--teach 80] [--users 24] [--newcomers 12] [--prompts 6]
    python -m benchmarks.policy demo-run/copl --model small --teach 400 --steps 200    # minutes on one core

On the embedded corpus, whose users' true utilities are known. The language model is first taught the corpus's way of
writing (supervised, a LoRA that is merged, kept in the cache); `small` is a transformer of a million weights that
learns it from nothing. Then two policies are trained by DPO on the same rows,
what users said and the grammar's candidates ranked by the run's rewards, for equally many steps: `mixture-dpo`, and
the same with no routed experts, which is one shared policy. On prompts never trained on, for seen users and for
newcomers adapted from their support comparisons, it prints with 95 % intervals over users

- *choice*: the utility of that of eight candidates of the grammar which the policy has made most likelier than the
  language model, from 0 (a random candidate) to 1 (the best of them);
- *written*: the same of what the policy writes, where the grammar's reader can read its style, and how often it can.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from copl import Model
from copl.align.aligners.mixture_dpo import MixtureDpoAligner, embeds_users
from copl.align.context import RunContext
from copl.align.generators.facets import FacetsGenerator
from copl.align.policies.mixture import MixturePolicy
from copl.align.policies.mixture_training import MixtureTraining
from copl.align.policies.options import MixtureDpoOptions
from copl.align.policies.rows import PreferenceRow, plain_prompt
from copl.align.policies.writer import Writer, own_randomness, quiet_packages
from copl.align.seeds import seed_of
from copl.align.truth import KnownTruth
from copl.answers import AnswerRequests
from copl.commands.align import fitted_run
from copl.data.sources.facets.reading import read_facets
from copl.options import NoOptions
from copl.records import FloatArray, PreferenceData, UserTable
from copl.runs.pipeline import load_data
from copl.runs.recipe import canonical_hash
from copl.system.files import cache_directory, new_directory
from copl.system.progress import SilentProgress

NUM_CANDIDATES = 8


@final
@frozen(eq=False)
class Bench:
    """What is measured on.

    Attributes:
        data: the data set.
        truth: what its users value.
        prompts: prompts never trained on.
        users: ids of the users measured, by kind.
        vectors: embedding of each.
    """

    data: PreferenceData
    truth: KnownTruth
    prompts: Sequence[str]
    users: dict[str, list[str]]
    vectors: dict[str, Tensor]


def opened(args: argparse.Namespace) -> tuple[Bench, RunContext]:
    """Open the run, and choose users and prompts evenly."""
    model = Model.open(args.run)
    data, _ = load_data(model.run)
    adapted = model.adapt(data.split("support"))
    context = RunContext(fitted_run(model), FacetsGenerator(NoOptions()), Path(), SilentProgress(), 0, adapted)
    trained = {data.responses.prompts[row] for row in data.split("train").comparisons.chosen.tolist()}
    cold = sorted({data.responses.prompts[row] for row in data.split("cold").comparisons.chosen.tolist()} - trained)
    users = {
        "seen": _evenly(sorted(model.method.seen_users()), args.users),
        "unseen": _evenly(sorted(adapted.user_ids), args.newcomers),
    }
    ids = [user for kind in users.values() for user in kind]
    vectors = embeds_users(model.method).user_vectors(UserTable.ungrouped(ids), adapted).float()
    of_each = dict(zip(ids, vectors, strict=True))
    return Bench(data, KnownTruth.of(data), _evenly(cold, args.prompts), users, of_each), context


def _evenly(values: Sequence[str], count: int) -> list[str]:
    step = max(1, len(values) // max(1, count))
    return list(values[::step])[:count]


def small_writer(data: PreferenceData, directory: Path) -> Path:
    """Write a random language model of about a million weights, with a tokenizer of its own for the corpus."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = ByteLevelBPETokenizer()
    texts = [*data.responses.texts, *(plain_prompt(prompt) for prompt in data.responses.prompts)]
    tokenizer.train_from_iterator(texts, vocab_size=1500, special_tokens=["<end>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, eos_token="<end>", pad_token="<end>", model_max_length=512
    )
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, vocab_size=len(fast), max_position_embeddings=512, tie_word_embeddings=True)
    with own_randomness(0), quiet_packages():
        LlamaForCausalLM(config).save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


def taught(name: str, data: PreferenceData, steps: int) -> Path:
    """Return the directory of a language model that was taught the corpus's way of writing, from the cache if there."""
    small = name == "small"
    if small:
        name = str(small_writer(data, Path(tempfile.mkdtemp()) / "small"))
    plain = Writer.open(name)
    about = {"model": "small" if small else plain.fingerprint(), "data": data.digest("train"), "steps": steps}
    directory = cache_directory() / "writers" / f"facets-{canonical_hash(about)[:16]}"
    if directory.is_dir():
        return directory
    from peft import LoraConfig, get_peft_model

    rows = np.unique(data.split("train").comparisons.chosen)
    rng, batch, rate = np.random.default_rng(0), 16 if small else 4, 3e-3 if small else 1e-3
    with own_randomness(0), quiet_packages():
        config = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"])
        model: Any = plain.model.requires_grad_(True) if small else get_peft_model(plain.model, config)
        speaker = Writer(model, plain.tokenizer, plain.directory)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
        for step in range(steps):
            some = rng.choice(rows, batch).tolist()
            pairs = [speaker.pair(data.responses.prompts[row], data.responses.texts[row], 256) for row in some]
            tokens = sum(len(pair.ids) - pair.start for pair in pairs)
            loss = -speaker.likelihoods(pairs).sum() / tokens
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % max(1, steps // 8) == 0 or step == steps - 1:
                print(f"teaching, step {step}: {float(loss.detach()):.3f} nats a token", flush=True)
        merged = model if small else model.merge_and_unload()
        with new_directory(directory) as fresh:
            merged.save_pretrained(fresh)
            plain.tokenizer.save_pretrained(fresh)
    return directory


def trained(options: MixtureDpoOptions, rows: Sequence[PreferenceRow], context: RunContext) -> MixturePolicy:
    """Train a policy on rows and say how it went."""
    started = time.process_time()
    users = sorted(context.method.seen_users())
    vectors = embeds_users(context.method).user_vectors(UserTable.ungrouped(users), None).float()
    policy = MixturePolicy.start(Writer.open(options.model), vectors, options, seed=0)
    facts = MixtureTraining(policy, rows, dict(zip(users, vectors, strict=True)), seed=0).run()
    print(
        f"{options.num_experts} experts: {facts.num_rows} rows of {facts.num_users} users, {facts.steps} steps, loss "
        f"{facts.first_loss:.3f} to {facts.last_loss:.3f}, held-out rows won {facts.accuracy:.2f} of "
        f"{facts.held_out}, {time.process_time() - started:.0f} s",
        flush=True,
    )
    return policy


@torch.no_grad()
def choices(policy: MixturePolicy, bench: Bench, kind: str) -> FloatArray:
    """Return the gain of what the policy chooses of eight candidates, for each user [U]."""
    candidates = FacetsGenerator(NoOptions()).candidates(
        bench.prompts, num=NUM_CANDIDATES, seed=1, progress=SilentProgress()
    )
    gains = []
    utilities = bench.truth.utilities(AnswerRequests(bench.users[kind], bench.prompts, candidates))
    references = [policy.reference(_pairs(policy, prompt, texts)) for prompt, texts in _asked(bench, candidates)]
    for place, user in enumerate(bench.users[kind]):
        own = []
        for (prompt, texts), worth, reference in zip(_asked(bench, candidates), utilities, references, strict=True):
            weights = policy.weights(bench.vectors[user].expand(len(texts), -1))
            likelier = policy.likelihoods(_pairs(policy, prompt, texts), weights) - reference
            own.append(_gain(worth[place], worth[place][int(likelier.argmax())]))
        gains.append(float(np.mean(own)))
    return np.array(gains)


def _asked(bench: Bench, candidates: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return list(zip(bench.prompts, candidates, strict=True))


def _pairs(policy: MixturePolicy, prompt: str, texts: Sequence[str]) -> list[Any]:
    return [policy.writer.pair(prompt, text, policy.options.max_length) for text in texts]


def _gain(candidates: FloatArray, shown: float) -> float:
    """From 0, the mean of the candidates, to 1, the best of them."""
    return float((shown - candidates.mean()) / max(1e-9, float(candidates.max() - candidates.mean())))


def writings(policy: MixturePolicy, bench: Bench, kind: str, prompts: int, users: int) -> tuple[FloatArray, float]:
    """Return the gain of what the policy writes, for each text that can be read, and the share of those that can."""
    candidates = FacetsGenerator(NoOptions()).candidates(
        bench.prompts[:prompts], num=NUM_CANDIDATES, seed=1, progress=SilentProgress()
    )
    gains, asked = [], 0
    for user in bench.users[kind][:users]:
        with policy.speaking(bench.vectors[user]) as speaker:
            for prompt, texts in zip(bench.prompts[:prompts], candidates, strict=True):
                seed = seed_of(0, prompt, 0)
                text = speaker.write(prompt, seed=seed, max_new_tokens=policy.options.max_new_tokens, temperature=0.0)
                asked += 1
                facets = read_facets(prompt, text)
                if facets is not None:
                    [[worth]] = [bench.truth.utilities(AnswerRequests([user], [prompt], [texts]))[0]]
                    gains.append(_gain(worth, float(bench.truth.weights[user] @ np.array(facets, dtype=np.float64))))
    return np.array(gains), len(gains) / max(1, asked)


def _shown(values: FloatArray) -> str:
    if len(values) < 2:
        return "too few"
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return f"{float(values.mean()):+.2f} ± {half:.2f} ({len(values)})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Teach, train both policies and print what they gain."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--teach", type=int, default=80)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--users", type=int, default=24)
    parser.add_argument("--newcomers", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--written", type=int, default=3, help="users and prompts of texts that are written")
    args = parser.parse_args(arguments)
    bench, context = opened(args)
    model = taught(args.model, bench.data, args.teach)
    options = MixtureDpoOptions(
        model=str(model),
        num_prompts=24,
        num_users=48,
        said=False,
        max_steps=args.steps,
        epochs=100.0,
        batch_size=args.batch,
        learning_rate=1e-3,
        max_new_tokens=110,
    )
    rows = MixtureDpoAligner(options).rows(context)
    policies = {"mixture-dpo": options, "one shared DPO policy": evolve(options, num_experts=0, shared_rank=16)}
    for name, chosen in policies.items():
        policy = trained(chosen, rows, context)
        for kind in bench.users:
            line = f"{name}, {kind}: choice {_shown(choices(policy, bench, kind))}"
            if args.written:
                gains, share = writings(policy, bench, kind, args.written, args.written)
                line += f"; written {_shown(gains)}, {share:.0%} of the texts read"
            print(line, flush=True)


if __name__ == "__main__":
    main()
