"""Whether one policy for everybody is ahead of one shared DPO policy: paired user by user, over several runs.

    for seed in 2040 2041 2042; do
        copl data make facets --out data-$seed --seed $seed --set num_prompts=100 --set num_seen_users=300
        copl train data-$seed --out run-$seed --seed $seed --set reward.mode=frozen
    done
    python -m benchmarks.policy_seeds run-2040 run-2041 run-2042

For each run a writer of its own learns from nothing to write the short answers of the grammar, and policies are
trained as `benchmarks.policy` trains them, on the same rows and by the same options but for those named: the mixture,
one policy shared by all users, and the shared one by preference alone (`likelihood` 0). What each has made most
likelier of the 16 short answers to a prompt that no preference was learnt on (*choice*), and what it writes, is
compared user by user by its true utility. Beside them stands what no policy knows: of answers that all users, or all of
a true group, are shown alike, those worth most to them. Writes ``benchmarks/results/policy.json`` after each run: means
over the runs with intervals over them (``copl.ablate.gains``), each run's interval being over users and prompts. Of one
run several parts may be measured (`--parts`), which have no user and no new prompt in common.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import evolve

from benchmarks.measured import RESULTS, measure
from benchmarks.policy import NUM_CANDIDATES, Bench, choices, opened, sizes_parser, taught, worth
from benchmarks.records import PublishedTable, new_record, write_record
from copl import Model
from copl.ablate.gains import over_seeds
from copl.align.aligners.dpo import questions_of, written
from copl.align.aligners.mixture_dpo import MixtureDpoAligner
from copl.align.context import RunContext
from copl.align.generators.facets import COMBINATIONS
from copl.align.policies.options import MixtureDpoOptions
from copl.align.policies.writer import Writer
from copl.commands.align import fitted_run
from copl.evaluate.policy import BETTER_OFF, GAIN, UNREAD, ShownAnswers, gain_ratio, gains, measure_answers
from copl.evaluate.tables import cell
from copl.records import FloatArray, Measurement
from copl.runs.pipeline import load_data
from copl.system.progress import SilentProgress

CODE = (
    "benchmarks/policy.py",
    "benchmarks/policy_seeds.py",
    "copl/align/policies",
    "copl/align/aligners/mixture_dpo.py",
    "copl/experts",
)
MIXTURE, SHARED, ALONE = "`mixture-dpo`", "one shared policy", "one shared policy, preference alone"
WRITER = "the writer before it"
EVERYBODY, GROUPS = "one answer for all, by the truth", "one answer for each true group, by the truth"

Found = Mapping[tuple[str, str, str], Measurement]
"""What was measured of one run, by row, kind of users and column."""


def measured(model: Model, args: argparse.Namespace, part: int) -> Found:
    """Return what users gain by each policy in a part of one run, and by how much the mixture is ahead."""
    bench = opened(model, args, part)
    bench = evolve(bench, seed=model.run.recipe.seed + part)
    name_of_writer = str(taught(args.model, bench, args.teach, 16))
    found: dict[tuple[str, str, str], Measurement] = {}
    chosen: dict[tuple[str, str], ShownAnswers] = {}
    trained = policies(name_of_writer, args)
    for name, options in trained.items():
        aligner = MixtureDpoAligner(options)
        context = bench.context(bench.table(), f"policy-{len(chosen)}")
        with measure() as usage:
            aligner.policy(context)
        print(
            f"{model.run.root.name}, part {part}, {name}: {usage.cpu_s:.0f} s of training", file=sys.stderr, flush=True
        )
        for kind, users in bench.users.items():
            chosen[name, kind] = worth(bench, users, choices(bench, kind, aligner, context, len(COMBINATIONS)))
            found |= _written(name, kind, _answers(bench, kind, aligner, context, args))
    writer = Writer.open(name_of_writer)
    few = bench.new[: args.written_prompts]
    texts = written(writer, questions_of(writer, few, trained[MIXTURE], SilentProgress()), trained[MIXTURE], bench.seed)
    for kind, users in bench.users.items():
        own = users[: args.writing]
        found |= _written(WRITER, kind, worth(evolve(bench, new=few), own, [[text] * len(own) for text in texts]))
        chosen |= {(name, kind): worth(bench, users, shown) for name, shown in _by_the_truth(bench, users).items()}
    for (name, kind), shown in chosen.items():
        found[name, kind, "choice"] = _by_metric(shown)[GAIN]
        if name != MIXTURE:
            found |= {(name, kind, column): m for column, m in ahead(chosen[MIXTURE, kind], shown).items()}
    return found


def policies(writer: str, args: argparse.Namespace) -> Mapping[str, MixtureDpoOptions]:
    """Return the options of each policy: the same but for experts, and for the likelihood of one."""
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
    shared = evolve(mixture, num_experts=0, shared_rank=16)  # as many ranks as a user of the mixture has
    return {MIXTURE: mixture, SHARED: shared, ALONE: evolve(shared, likelihood=0.0)}


def _answers(
    bench: Bench, kind: str, aligner: MixtureDpoAligner, context: RunContext, args: argparse.Namespace
) -> ShownAnswers:
    """Return what is written to some of the users and prompts."""
    few = evolve(bench, new=bench.new[: args.written_prompts])
    users = bench.users[kind][: args.writing]
    texts = [answer.shown for answer in aligner.answers(few.requests(users), context)]
    return worth(few, users, [texts[start : start + len(users)] for start in range(0, len(texts), len(users))])


def _written(name: str, kind: str, shown: ShownAnswers) -> dict[tuple[str, str, str], Measurement]:
    found = _by_metric(shown)
    unread = found.get(UNREAD, Measurement("cold", "all", UNREAD, 0.0, 0.0, 0.0, shown.shown.size))
    gain = {(name, kind, "written"): found[GAIN]} if GAIN in found else {}
    return {**gain, (name, kind, "unread"): unread}


def _by_metric(shown: ShownAnswers) -> dict[str, Measurement]:
    return {m.metric: m for m in measure_answers(shown, "cold", "all", seed=0)}


def _by_the_truth(bench: Bench, users: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return the answers worth most to all seen users, and to those of each user's true group [P][U]."""
    truth, data = fitted_run(bench.model).truth, load_data(bench.model.run)[0]
    seen = sorted(bench.model.method.seen_users())
    group = {user: data.users.groups[data.users.rows[user]] for user in (*seen, *users)}
    means: dict[str | None, FloatArray] = {
        name: np.mean([truth.weights[user] for user in seen if group[user] == name], axis=0)
        for name in {group[user] for user in users}
    }
    everybody = np.mean([truth.weights[user] for user in seen], axis=0)
    return {
        EVERYBODY: [[bench.best(prompt, everybody)] * len(users) for prompt in bench.new],
        GROUPS: [[bench.best(prompt, means[group[user]]) for user in users] for prompt in bench.new],
    }


def ahead(first: ShownAnswers, second: ShownAnswers) -> dict[str, Measurement]:
    """Return by how much one gain exceeds the other for the same users, and the share who are better off by it."""
    (won, room), (other, _) = gains(first), gains(second)
    estimate = gain_ratio(won - other, room, np.isfinite(won - other))
    difference = Measurement("cold", "all", "gain_difference", *estimate, won.size)
    return {"ahead": difference, "better off": _by_metric(evolve(first, unpersonalised=second.shown))[BETTER_OFF]}


def tables(runs: Sequence[Found], kinds: Sequence[str]) -> dict[str, PublishedTable]:
    """Return what policies choose, and by how much the mixture is ahead, and what they write, over the runs."""

    def rows(names: Sequence[str], columns: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
        return [(name, *(entry(name, *column) for column in columns)) for name in names]

    def entry(name: str, kind: str, column: str) -> str:
        ms = [found[name, kind, column] for found in runs if (name, kind, column) in found]
        return cell(over_seeds(ms, shared=False)) if len(ms) == len(runs) else ""

    made = {}
    for title, names, shown in (
        ("choice", (MIXTURE, SHARED, ALONE, EVERYBODY, GROUPS), ("choice", "ahead", "better off")),
        ("written", (MIXTURE, SHARED, ALONE, WRITER), ("written", "unread")),
    ):
        columns = [(kind, column) for kind in kinds for column in shown]
        titles = {"ahead": "the mixture is ahead by", "better off": "better off by the mixture"}
        header = ("policy", *(f"{kind}: {titles.get(column, column)}" for kind, column in columns))
        made[title] = PublishedTable(f"Policies: {title}", header, rows(names, columns))
    return made


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy_seeds", parents=[sizes_parser()])
    parser.set_defaults(model="tiny", teach=400, steps=150, rate=1e-3, training=16, prompts=8, users=60, newcomers=36)
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs on the source facets, of other data each")
    parser.add_argument("--parts", type=int, nargs="+", default=[0], help="which of the users and new prompts")
    parser.add_argument("--likelihood", type=float, default=1.0, help="weight of the likelihood of chosen responses")
    parser.add_argument("--writing", type=int, default=24, help="users of each kind who are written to")
    parser.add_argument("--written-prompts", type=int, default=4, help="prompts that they are written to")
    parser.add_argument("--out", type=Path, default=RESULTS / "policy.json", help="file of the record")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one run after the other and write the record."""
    args = _parsed(arguments)
    command = " ".join(["python -m benchmarks.policy_seeds", *(sys.argv[1:] if arguments is None else arguments)])
    record = new_record("One policy for everybody beside one shared policy", command, code=CODE)
    found: list[Found] = []
    seeds: list[int] = []
    for run in args.runs:
        model = Model.open(run)  # once for all parts, for it remembers what it has read
        for part in args.parts:
            found.append(measured(model, args, part))
            seeds.append(model.run.recipe.seed)
            kinds = list(dict.fromkeys(kind for _, kind, _ in found[0]))
            notes = [
                f"Seeds of the runs: {', '.join(map(str, seeds))}; of each {args.users} seen users, {args.newcomers}"
                f" newcomers and {args.prompts} prompts that no preference was learnt on.",
                "Choice: of the 16 short answers the one that was made most likelier; 0 is a random one, 1 the best.",
                f"Written: to {args.writing} users of each kind and {args.written_prompts} prompts; what can be read.",
            ]
            write_record(evolve(record, notes=notes, tables=tables(found, kinds)), args.out)
    print(args.out)


if __name__ == "__main__":
    main()
