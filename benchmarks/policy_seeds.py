"""Whether one policy for everybody is ahead of one shared DPO policy: paired user by user, over several seeds.

    copl demo --out demo-run
    python -m benchmarks.policy_seeds demo-run/copl --seeds 1 2 3

For each seed a writer of its own learns from nothing to write the short answers of the grammar, and both policies are
trained as `benchmarks.policy` trains them: on the same rows, by the same options but for those that make the mixture a
mixture and those that were chosen for each. What each has made most likelier of the 16 short answers to a prompt that
no preference was learnt on (*choice*), and what it writes, is compared user by user by its true utility. No two seeds
have a user or a new prompt in common; seed 0 is for choosing by. Writes ``benchmarks/results/policy.json``: means over
the seeds with intervals over them (``copl.ablate.gains``), each seed's interval being over users and prompts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import evolve

from benchmarks.measured import RESULTS, measure
from benchmarks.policy import NUM_CANDIDATES, choices, opened, taught, worth
from benchmarks.records import PublishedTable, new_record, write_record
from copl import Model
from copl.ablate.gains import over_seeds
from copl.align.aligners.mixture_dpo import MixtureDpoAligner
from copl.align.generators.facets import COMBINATIONS
from copl.align.policies.options import MixtureDpoOptions
from copl.evaluate.bootstrap import spread
from copl.evaluate.policy import BETTER_OFF, GAIN, UNREAD, ShownAnswers, measure_answers
from copl.evaluate.tables import cell
from copl.records import Measurement

CODE = (
    "benchmarks/policy.py",
    "benchmarks/policy_seeds.py",
    "copl/align/policies",
    "copl/align/aligners",
    "copl/experts",
)
MIXTURE, SHARED, DIFFERENCE = "`mixture-dpo`", "one shared DPO policy", "difference, user by user"

COLUMNS = ("choice", "better off", "written", "unread")

Found = Mapping[tuple[str, str, str], Measurement]
"""What was measured of one run, by row of the table, kind of users and column."""


def measured(model: Model, args: argparse.Namespace, seed: int) -> Found:
    """Return what both policies gain with one seed, and by how much one is ahead of the other."""
    bench = opened(model, args, seed)
    writer = str(taught(args.model, bench, args.teach, 16))
    found: dict[tuple[str, str, str], Measurement] = {}
    chosen: dict[tuple[str, str], ShownAnswers] = {}
    for name, options in policies(writer, args).items():
        aligner = MixtureDpoAligner(options)
        context = bench.context(bench.table(), "shared" if options.num_experts == 0 else "mixture")
        with measure() as usage:
            aligner.policy(context)
        print(f"seed {seed}, {name}: {usage.cpu_s:.0f} s of training", file=sys.stderr, flush=True)
        for kind, users in bench.users.items():
            texts = choices(bench, kind, aligner, context, len(COMBINATIONS))
            chosen[name, kind] = worth(bench, users, texts)
            found |= {(name, kind, column): m for column, m in _gains(chosen[name, kind], choice=True).items()}
            few = evolve(bench, new=bench.new[: args.written_prompts])
            own = users[: args.writing]
            shown = [answer.shown for answer in aligner.answers(few.requests(own), context)]
            rows = [shown[start : start + len(own)] for start in range(0, len(shown), len(own))]
            found |= {(name, kind, column): m for column, m in _gains(worth(few, own, rows), choice=False).items()}
    for kind in bench.users:
        found |= {(DIFFERENCE, kind, c): m for c, m in ahead(chosen[MIXTURE, kind], chosen[SHARED, kind]).items()}
    return found


def policies(writer: str, args: argparse.Namespace) -> Mapping[str, MixtureDpoOptions]:
    """Return the options of both policies; all is the same that does not make the mixture a mixture."""
    mixture = MixtureDpoOptions(
        model=writer,
        num_prompts=10_000,  # of these, the table has candidates to some
        num_candidates=NUM_CANDIDATES,
        said=False,
        epochs=1000.0,
        max_new_tokens=64,
        num_users=args.rated,
        batch_size=args.batch,
        max_steps=args.steps,
        learning_rate=args.rate,
        likelihood=args.likelihood,
    )
    return {MIXTURE: mixture, SHARED: evolve(mixture, num_experts=0, shared_rank=16)}


def _gains(shown: ShownAnswers, *, choice: bool) -> dict[str, Measurement]:
    """Return gain and, of what is written, the share that cannot be read, by column."""
    found = {m.metric: m for m in measure_answers(shown, "cold", "all", seed=0)}
    read = (
        {} if choice else {"unread": found.get(UNREAD, Measurement("cold", "all", UNREAD, 0, 0, 0, shown.shown.size))}
    )
    return read | ({"choice" if choice else "written": found[GAIN]} if GAIN in found else {})


def ahead(first: ShownAnswers, second: ShownAnswers) -> dict[str, Measurement]:
    """Return by how much one policy's gain exceeds another's for the same users, and the share better off by it."""
    mean = first.candidates.mean(axis=2)
    room = first.candidates.max(axis=2) - mean
    more = first.shown - second.shown
    value = float(more.sum() / room.sum())
    users, prompts = np.indices(more.shape)
    reach = spread(((more - value * room) / room.sum()).ravel(), [users.ravel(), prompts.ravel()]).reach
    difference = Measurement("cold", "all", "gain_difference", value, value - reach, value + reach, more.size)
    against = evolve(first, unpersonalised=second.shown)
    found = {m.metric: m for m in measure_answers(against, "cold", "all", seed=0)}
    return {"choice": difference, "better off": found[BETTER_OFF]}


def table(seeds: Sequence[Found], kinds: Sequence[str]) -> PublishedTable:
    """Return policies as rows, what users gain as columns, over the seeds."""
    columns = [(kind, column) for kind in kinds for column in COLUMNS]

    def entry(name: str, kind: str, column: str) -> str:
        ms = [found[name, kind, column] for found in seeds if (name, kind, column) in found]
        return cell(over_seeds(ms, shared=False)) if len(ms) == len(seeds) else ""

    rows = [(name, *(entry(name, *column) for column in columns)) for name in (MIXTURE, SHARED, DIFFERENCE)]
    header = ("policy", *(f"{kind}: {column}" for kind, column in columns))
    return PublishedTable("A mixture of experts beside one shared policy", header, rows)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy_seeds")
    parser.add_argument("run", type=Path, help="a finished run on the source facets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--teach", type=int, default=400, help="supervised steps")
    parser.add_argument("--steps", type=int, default=150, help="steps of DPO")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate of DPO")
    parser.add_argument("--likelihood", type=float, default=1.0, help="weight of the likelihood of chosen responses")
    parser.add_argument("--training", type=int, default=16, help="training prompts")
    parser.add_argument("--prompts", type=int, default=8, help="prompts that nobody was asked in training")
    parser.add_argument("--rated", type=int, default=48, help="users whose rankings are trained on")
    parser.add_argument("--users", type=int, default=60, help="seen users measured")
    parser.add_argument("--newcomers", type=int, default=40)
    parser.add_argument("--writing", type=int, default=24, help="users of each kind who are written to")
    parser.add_argument("--written-prompts", type=int, default=4, help="prompts that they are written to")
    parser.add_argument("--out", type=Path, default=RESULTS / "policy.json", help="file of the record")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure with each seed and write the record."""
    args = _parsed(arguments)
    told = sys.argv[1:] if arguments is None else list(arguments)
    model = Model.open(args.run)  # once, for it remembers what it has read
    found = [measured(model, args, seed) for seed in args.seeds]
    kinds = list(dict.fromkeys(kind for _, kind, _ in found[0]))
    seeds = ", ".join(map(str, args.seeds))
    notes = [
        f"One run; seeds {seeds}. {args.users} seen users and {args.newcomers} newcomers of each, {args.prompts}"
        " prompts that no preference was learnt on.",
        "Choice: of the 16 short answers of the grammar the one made most likelier; 0 is a random one, 1 the best.",
        f"Written: {args.writing} users of each kind, {args.written_prompts} prompts; over what can be read.",
        "Better off: users for whom the mixture's choice is worth more than that of the shared policy.",
    ]
    command = " ".join(["python -m benchmarks.policy_seeds", *told])
    record = new_record("One policy for everybody beside one shared policy", command, code=CODE, notes=notes)
    write_record(evolve(record, tables={"paired": table(found, kinds)}), args.out)
    print(args.out)


if __name__ == "__main__":
    main()
