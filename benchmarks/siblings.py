"""Whether what texts say of new prompts would be weighed otherwise if whole prompts were left out for the choice.

    python -m benchmarks.siblings --data downloads

The ridge by which texts speak (`copl.graph.texts`) is chosen by the loss on validation comparisons, whose responses and
their siblings under the same prompt were compared in training. Of a new prompt nothing was. Here the ridge is chosen a
second time, by the same comparisons but with all responses of their prompt left out of what the texts are learnt from,
a fifth of the prompts at a time; and new prompts are scored by texts with both, and with each ridge there is. On the
development data that have several prompts: the embedded corpus, and LLMFAO.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from benchmarks.measured import RESULTS
from benchmarks.records import PublishedTable, new_record, write_record
from copl.bradley_terry import correct
from copl.data.sources.facets import FacetsOptions, generate
from copl.evaluate.tables import number
from copl.graph.build import build_graph
from copl.graph.parts import compared_responses, restricted, spread_out
from copl.graph.texts import RIDGES, TextCodes, with_texts
from copl.graph.training import ComparisonTensors, Judgement
from copl.plugins import load
from copl.records import BoolArray, Comparisons, NodeEmbeddings, PreferenceData, PreferenceGraph
from copl.reward.reading.reader import TextReader
from copl.runs.recipe import resolve
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress

CODE = ("benchmarks/siblings.py", "copl/graph", "copl/reward/reading", "copl/data/sources")
MEMBERS = ("latent-groups", "mf")
"""Encoders that texts carry over to new responses; `tastes` reads texts itself."""
_FOLDS = 5


@final
@frozen(eq=False)
class Carried:
    """What an encoder has learnt of a graph, carried over by texts.

    Attributes:
        embeddings: of all responses of the data set, zeros where they were never compared.
        texts: codes of all texts.
        validation: comparisons that ridges are chosen by.
    """

    embeddings: NodeEmbeddings
    texts: TextCodes
    validation: ComparisonTensors

    def usual_choice(self) -> float:
        """Return the ridge that is chosen as things are."""
        return min(
            RIDGES, key=lambda ridge: self._loss(with_texts(self.embeddings, self.texts, self._loss, ridges=(ridge,)))
        )

    def _loss(self, candidate: NodeEmbeddings) -> float:
        return Judgement.of(self.validation, _margins(self.validation, candidate)).loss

    def choice_without(self, folds: Sequence[BoolArray]) -> float:
        """Return the ridge that is chosen where nothing is known of a fold of responses [R] when they are asked for."""
        return min(RIDGES, key=lambda ridge: self._loss_without(folds, ridge))

    def _loss_without(self, folds: Sequence[BoolArray], ridge: float) -> float:
        margins, rows = torch.zeros(len(self.validation)), self.embeddings.comparisons
        for out in folds:
            known = rows.take(~(out[rows.chosen] | out[rows.rejected]))
            carried = with_texts(evolve(self.embeddings, comparisons=known), self.texts, None, ridges=(ridge,))
            asked = torch.from_numpy(out)[self.validation.chosen]
            margins[asked] = _margins(self.validation, carried)[asked]
        return Judgement.of(self.validation, margins).loss

    def accuracy(self, asked: ComparisonTensors, ridge: float) -> float:
        """Return the accuracy on comparisons of responses that were never compared."""
        margins = _margins(asked, with_texts(self.embeddings, self.texts, None, ridges=(ridge,)))
        return float(correct(margins.numpy()).mean())


def _margins(asked: ComparisonTensors, embeddings: NodeEmbeddings) -> Tensor:
    return asked.margins(embeddings.users, embeddings.responses, embeddings.response_bias)


def rows_of(name: str, seed: int, data: PreferenceData, work: Path) -> Iterator[tuple[str, ...]]:
    """Yield a row for each encoder on a data set."""
    recipe = resolve({"method": {"name": "copl"}, "reward": {"mode": "frozen"}}, load(), seed=seed)
    reader = TextReader.of(recipe.stages)
    reader.read(data.responses, RunWorkspace(work / "run", SilentProgress(), cache=work / "cache"))
    graph = build_graph(data, response_features=reader.features(data.responses, np.arange(len(data.responses))))
    compared = compared_responses(graph.comparisons)
    texts, asked = TextCodes.of(graph, compared), _asked(data, graph)
    _, prompt = np.unique(
        [data.responses.prompts[data.responses.rows[key]] for key in graph.response_keys], return_inverse=True
    )
    fold = np.random.default_rng(seed).integers(_FOLDS, size=int(prompt.max()) + 1)[prompt]
    for member in MEMBERS:
        encoder = load().registry("encoder").create(member, {})
        learnt = encoder.fit(restricted(graph, compared), seed=seed, progress=SilentProgress())
        carried = Carried(spread_out(learnt, graph, compared), texts, ComparisonTensors.of(graph.validation))
        usual, without = carried.usual_choice(), carried.choice_without([fold == k for k in range(_FOLDS)])
        by_ridge = {ridge: carried.accuracy(asked, ridge) for ridge in RIDGES}
        shown = (f"{usual:g}", f"{without:g}", number(by_ridge[usual]), number(by_ridge[without]))
        yield f"{name}, seed {seed}", f"`{member}`", *shown, *(number(by_ridge[ridge]) for ridge in RIDGES)


def _asked(data: PreferenceData, graph: PreferenceGraph) -> ComparisonTensors:
    """Return the comparisons on new prompts by the rows of the graph."""
    users = {user: row for row, user in enumerate(graph.user_ids)}
    responses = {key: row for row, key in enumerate(graph.response_keys)}
    cold = data.splits["cold"]
    cold = cold.take(np.array([data.users.ids[user] in users for user in cold.user]))
    user = np.array([users[data.users.ids[row]] for row in cold.user])
    chosen, rejected = (
        np.array([responses[data.responses.keys[row]] for row in rows]) for rows in (cold.chosen, cold.rejected)
    )
    return ComparisonTensors.of(Comparisons(user, chosen, rejected))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.siblings", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("downloads"), help="where `copl data fetch` put LLMFAO")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, counted from 0")
    parser.add_argument("--out", type=Path, default=RESULTS / "siblings.json", help="file of the record")
    wanted = parser.parse_args(arguments)
    command = " ".join(["python -m benchmarks.siblings", *(sys.argv[1:] if arguments is None else arguments)])
    notes = [
        "Single runs; facets with 300 users and 120 prompts, a part of which is new.",
        "The last columns are the accuracy on new prompts with each ridge.",
    ]
    record = new_record("Ridges chosen with and without whole prompts", command, code=CODE, notes=notes)
    llmfao = load().registry("source").create("llmfao", {"path": str(wanted.data / "llmfao")})
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as work:
        for seed in range(wanted.seeds):
            facets = generate(FacetsOptions(num_prompts=120, num_seen_users=300), seed)[0]
            for name, data in (("facets", facets), ("llmfao", llmfao.load(seed=seed))):
                for row in rows_of(name, seed, data, Path(work)):
                    print(*row, sep=" | ", file=sys.stderr, flush=True)
                    rows.append(row)
    header = ("data", "encoder", "ridge", "prompts left out", "new prompts", "with that ridge")
    tables = {"ridges": PublishedTable(record.title, (*header, *(f"{ridge:g}" for ridge in RIDGES)), rows)}
    write_record(evolve(record, tables=tables), wanted.out)
    print(wanted.out)


if __name__ == "__main__":
    main()
