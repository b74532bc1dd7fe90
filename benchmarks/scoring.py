"""What scoring candidates costs: processor time against one frozen forward pass over the same texts in one batch.

    python -m benchmarks.scoring [--backbone smollm2-135m] [--candidates 16] [--tokens 100] [--prompt 50]
    python -m benchmarks.scoring --run RUN      of a trained run of method copl, by `Model.score`, with all that it does

Without a run, a reward model is put together with random adapters in its top layers (`reward.trainable_layers`), for
two users whose gates choose other experts, and two who share them. With `--whole` the same texts are also read by the
backbone with all of its layers, frozen, as by a method that has no use for fewer. One thread.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from copl.experts.mixture import MixtureOfLora, adapters_off
from copl.experts.options import MixtureOptions
from copl.methods.copl import CoplMethod
from copl.model import Model
from copl.plugins import load
from copl.records import ResponseTable
from copl.reward.backbones.loaded import LoadedBackbone, collate
from copl.reward.heads import make_head
from copl.reward.model import AffineScaling, PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.scoring import Scorer


def reward_model(backbone: str, depth: int | None, trainable_layers: int) -> PersonalRewardModel:
    """Return a reward model with random adapters, whose gate gives two kinds of users other experts."""
    options = RewardOptions(trainable_layers=trainable_layers, max_length=512)
    own = {} if depth is None else {"layers": depth}
    reader = TextReader.over(_backbone(backbone, own), options)
    loaded = reader.backbone
    torch.manual_seed(0)
    gate = load().registry("gate").create("top1", {"num_experts": 4}, embedding_dim=2)
    layers = None if reader.trunk is None else reader.trunk.layers
    mixture = MixtureOfLora.attach(
        loaded.model, MixtureOptions(), num_experts=4, target_modules=loaded.target_modules, layers=layers
    )
    for name, parameter in mixture.peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    head = make_head("bilinear", loaded.hidden_size, 2)
    torch.nn.init.normal_(head.weight)
    size = loaded.hidden_size
    scale = AffineScaling(torch.zeros(2), torch.ones(2)), AffineScaling(torch.zeros(size), torch.ones(size))
    return PersonalRewardModel(reader, mixture, gate, head, users=scale[0], features=scale[1]).eval()


def _backbone(name: str, options: dict[str, Any]) -> LoadedBackbone:
    loaded: LoadedBackbone = load().registry("backbone").create(name, options).load()
    return loaded


Score = Callable[[ResponseTable, int], object]
"""Scores the texts of a table for the first or the second of two users."""


def put_together(args: argparse.Namespace) -> tuple[TextReader, Score]:
    """Return what reads and what scores of a reward model that was never trained."""
    model = reward_model(args.backbone, args.depth, args.layers)
    users, scorer = torch.tensor([[2.0, 0.0], [-2.0, 0.5]]), Scorer(model)

    def score(table: ResponseTable, user: int) -> None:
        rows = np.arange(len(table))
        model.reader.features(table, rows)  # what the table of users and responses reads
        scorer.scores(table, rows, users[user : user + 1], np.zeros_like(rows))

    return model.reader, score


def of_run(run: Path) -> tuple[TextReader, Score]:
    """Return what reads and what scores of a trained run."""
    model = Model.open(run)
    method = model.method
    assert isinstance(method, CoplMethod)
    users = sorted(method.seen_users())[:2]

    def score(table: ResponseTable, user: int) -> object:
        return model.score(users[user], table.prompts[0], list(table.texts))

    return method.fitted[1].model.reader, score


def texts_of(reader: TextReader, args: argparse.Namespace, rng: random.Random) -> ResponseTable:
    """Return candidates of about so many tokens to one prompt."""
    vocabulary = reader.backbone.tokenizer.get_vocab()
    words = sorted(word for word in vocabulary if word.isalpha() and word.isascii() and len(word) > 3)[:4000]
    prompt = " ".join(rng.choice(words) for _ in range(args.prompt))
    answers = [" ".join(rng.choice(words) for _ in range(args.tokens)) for _ in range(args.candidates)]
    return ResponseTable([prompt] * len(answers), answers)


def seconds(work: Callable[[], Any]) -> float:
    """Return the processor time that work takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each repetition and the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--prompt", type=int, default=50)
    parser.add_argument("--depth", type=int, help="layers of the backbone that are used; all unless given")
    parser.add_argument("--whole", type=int, help="layers of all of the backbone; a pass of it is measured, too")
    parser.add_argument(
        "--layers", type=int, default=RewardOptions().trainable_layers, help="of these, the top ones that are adapted"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    reader, score = put_together(args) if args.run is None else of_run(args.run)
    readers = [reader]
    if args.whole is not None:
        readers += [TextReader.over(_backbone(args.backbone, {"layers": args.whole}), RewardOptions(max_length=512))]
    rng, rows, taken = random.Random(0), np.arange(args.candidates), []
    for _ in range(args.repeats + 1):
        table = texts_of(reader, args, rng)
        batch = collate(reader.tokens(table, rows), rows)

        def frozen(model: Any, batch: Any = batch) -> None:
            with torch.no_grad(), adapters_off(model):
                model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)

        passes = [seconds(partial(frozen, one.backbone.model)) for one in readers]
        taken.append([*passes, *(seconds(partial(score, table, user)) for user in (0, 1, 0))])
    pass_, *whole_pass, first, other, again = np.median(np.array(taken[1:]), axis=0)
    shape, layers = tuple(batch.input_ids.shape), reader.backbone.num_layers
    print(f"{args.run or args.backbone}: {shape[0]} texts of at most {shape[1]} tokens, {layers} layers, one prompt")
    print(f"one frozen pass {pass_:.3f} s; first user {first:.3f} s ({first / pass_:.2f}); a second user")
    print(f"{other:.3f} s more ({other / pass_:.2f}); the first one again {again:.4f} s")
    for whole, took in zip(readers[1:], whole_pass, strict=True):
        print(f"the whole backbone, {whole.backbone.num_layers} layers: one frozen pass {took:.3f} s", end="; ")
        print(f"first user {first / took:.2f} of it")


if __name__ == "__main__":
    main()
