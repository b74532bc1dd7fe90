"""A policy for one user: trained by TRL, a plain LoRA, kept, and answering by itself."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from attrs import evolve

from copl import Model
from copl.align.policies.options import DpoOptions
from copl.align.policies.rows import PreferenceRow
from copl.align.policies.single import speaking, train_policy
from copl.align.policies.writer import Writer
from copl.errors import CoplError, RunError
from copl.system.progress import LineProgress

pytest.importorskip("trl")
ROWS = [
    PreferenceRow("ann", prompt, "Place the egg in cold water.", "Why?", 1.0, {"kind": "said"})
    for prompt in ("How do I boil an egg?", "Tea?")
]


@pytest.fixture(scope="module")
def options(tiny_model: Path) -> DpoOptions:
    return DpoOptions(model=str(tiny_model), max_steps=6, epochs=100, batch_size=2, learning_rate=2e-2, rank=4)


@pytest.fixture(scope="module")
def policy(options: DpoOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("policies") / "ann"
    trained = train_policy(ROWS, directory, options, seed=1)
    assert (trained.num_rows, trained.steps) == (2, 6)
    return directory


def margins(writer: Writer) -> list[float]:
    with torch.no_grad():
        chosen = writer.likelihoods([writer.pair(row.prompt, row.chosen, 64) for row in ROWS])
        rejected = writer.likelihoods([writer.pair(row.prompt, row.rejected, 64) for row in ROWS])
    return [float(value) for value in chosen - rejected]


def test_it_prefers_what_the_user_prefers_and_stock_peft_loads_it(policy: Path, tiny_model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    writer = Writer.open(tiny_model)
    before = margins(writer)
    with speaking(writer, policy) as speaker:
        after = margins(speaker)
    assert all(late > early + 0.05 for early, late in zip(before, after, strict=True))
    assert margins(writer) == before  # the language model is left as it was
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with warnings.catch_warnings():  # peft asks transformers for a property by its former name
        warnings.simplefilter("ignore", FutureWarning)
        stock = PeftModel.from_pretrained(plain, policy)
    assert margins(Writer(stock.eval(), writer.tokenizer, tiny_model)) == pytest.approx(after, abs=1e-4)
    card = json.loads((policy / "adapter_config.json").read_text())
    assert (card["r"], card["task_type"], card["base_model_name_or_path"]) == (4, "CAUSAL_LM", str(tiny_model))
    assert {path.suffix for path in policy.iterdir()} <= {".json", ".safetensors"}


def test_any_seed_will_do(options: DpoOptions, tmp_path: Path) -> None:
    assert train_policy(ROWS, tmp_path / "ann", evolve(options, max_steps=1), seed=2**62).steps == 1


def test_with_the_likelihood_of_what_is_chosen_a_policy_stays_likelier_to_write_it(
    policy: Path, options: DpoOptions, tmp_path: Path
) -> None:
    train_policy(ROWS, tmp_path / "ann", evolve(options, likelihood=10.0), seed=1)
    writer = Writer.open(options.model)
    wanted = [writer.pair(row.prompt, row.chosen, 64) for row in ROWS]
    written = []
    for place in (policy, tmp_path / "ann"):
        with speaking(writer, place) as speaker, torch.no_grad():
            written.append(float(speaker.likelihoods(wanted).sum()))
    assert written[1] > written[0] + 0.1


def test_the_same_seed_gives_the_same_policy(policy: Path, options: DpoOptions, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = torch.get_rng_state()
    train_policy(ROWS, tmp_path / "again", options, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (load_file(path / "adapter_model.safetensors") for path in (policy, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_training_goes_on_to_the_same_policy(policy: Path, options: DpoOptions, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    class KilledError(Exception):
        pass

    class Dying:
        """A task that ends the process, as it were, when so many steps are shown."""

        def __init__(self, last: int | None) -> None:
            self.steps, self.last = 0, last

        @contextmanager
        def task(self, name: str, total: int | None = None) -> Iterator[Dying]:
            yield self

        def advance(self, steps: int = 1, **values: float) -> None:
            self.steps += steps
            if self.steps == self.last:
                raise KilledError

        def log(self, stage: str, **values: float | int | str) -> None:
            pass

    place, often = tmp_path / "ann", evolve(options, save_every=2)
    with pytest.raises(KilledError):
        train_policy(ROWS, place, often, seed=1, progress=Dying(5))
    kept = sorted(path.name for path in tmp_path.glob("ann.partial/checkpoint-*"))
    assert (place.exists(), kept) == (False, ["checkpoint-2", "checkpoint-4"])
    (tmp_path / "ann.partial" / "checkpoint-9").mkdir()  # as a kill while it is written leaves one
    going_on = Dying(None)
    facts = train_policy(ROWS, place, often, seed=1, progress=going_on)
    assert (facts.steps, going_on.steps) == (6, 2)
    assert not (tmp_path / "ann.partial").exists()
    first, second = (load_file(path / "adapter_model.safetensors") for path in (policy, place))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(KilledError):
        train_policy(ROWS, tmp_path / "bob", often, seed=1, progress=Dying(5))
    other = Dying(None)
    train_policy(ROWS[:1], tmp_path / "bob", evolve(often, max_steps=3), seed=1, progress=other)
    assert other.steps == 3  # another training begins at the beginning


def test_rows_that_would_end_a_turn_are_left_out_and_those_that_are_cut_are_told(
    options: DpoOptions, tmp_path: Path
) -> None:
    writer = Writer.open(options.model)
    mark = writer.tokenizer.convert_ids_to_tokens(writer.end)
    hostile = [evolve(ROWS[0], prompt=f"Tea{mark}?"), evolve(ROWS[1], rejected=f"Why?{mark}")]
    said: list[str] = []
    facts = train_policy([*ROWS, *hostile], tmp_path / "a", options, seed=1, progress=LineProgress(said.append))
    assert facts.num_rows == 2
    assert "policy: 2 of 4 rows hold special tokens of the model in their texts; left out" in said
    assert not any("are cut" in line for line in said)
    long = evolve(ROWS[0], prompt="Tea? " * 60)
    train_policy([long, ROWS[1]], tmp_path / "c", evolve(options, max_steps=1, max_length=64), seed=1,
                 progress=LineProgress(said.append))  # fmt: skip
    assert "policy: 1 of 2 rows are longer than 64 tokens and are cut; max_length sets the limit" in said
    with pytest.raises(CoplError, match="all hold special tokens"):
        train_policy(hostile, tmp_path / "b", options, seed=1)
    assert not (tmp_path / "b").exists()


def test_a_policy_of_another_model_is_refused(policy: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    with pytest.raises(RunError, match="another model"), speaking(Writer.open(other), policy):
        pass


def test_what_cannot_be_trained_or_opened_says_so(options: DpoOptions, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(CoplError, match="no rows to train a policy on"):
        train_policy([], tmp_path / "none", options, seed=0)
    assert not (tmp_path / "none").exists()
    with pytest.raises(RunError, match="holds no policy"), speaking(Writer.open(tiny_model), tmp_path):
        pass


def test_copl_align_trains_keeps_and_answers(
    run_copl: Callable[..., tuple[int, str, str]], trained_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    users = list(Model.open(run).method.seen_users())[:2]
    prompts = tmp_path / "prompts.jsonl"
    long = "How do I boil an egg? " * 30
    rows = [{"prompt": "Tea?", "response": "No."}, {"prompt": long, "response": "Why?"}]
    prompts.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    chosen = [f"aligner.{key}={value}" for key, value in _SMALL.items()] + [f"aligner.model={tiny_model}"]
    arguments = [part for setting in chosen for part in ("--set", setting)]
    named = ["--user", users[0], "--user", users[1], "--user", "nobody", "--generator", "table"]
    table = tmp_path / "candidates.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named += ["--set", f"generator.path={table}"]

    def answers(out: Path) -> list[dict[str, object]]:
        code, shown, said = run_copl("align", run, prompts, "--out", out, "--aligner", "dpo", *named, *arguments)
        assert code == 0, said
        assert (shown, "dataset" in said) == ("", False)  # nothing of what other packages print
        assert said.count("one prompt is longer than 122 tokens, so the beginning was left out") == 1
        return [json.loads(line) for line in out.read_text().splitlines()]

    first = answers(tmp_path / "answers.jsonl")
    assert [row["user_id"] for row in first] == [*users, "nobody"] * 2
    assert [row["user_known"] for row in first[:3]] == [True, True, False]
    assert first[2]["response"] == first[2]["unpersonalised"]
    kept = sorted(run.glob("policies/*/dpo-*/*/adapter_model.safetensors"))
    assert len(kept) == 2
    times = [path.stat().st_mtime_ns for path in kept]
    assert answers(tmp_path / "again.jsonl") == first
    assert [path.stat().st_mtime_ns for path in kept] == times  # not trained again

    def refused() -> str:
        out = tmp_path / "none.jsonl"
        code, _, said = run_copl("align", run, prompts, "--out", out, "--aligner", "dpo", *named, *arguments)
        assert (code, out.exists()) == (2, False)
        return said

    one, other = (path.parent for path in kept)

    def swap() -> None:
        for source, target in ((one, tmp_path / "one"), (other, one), (tmp_path / "one", other)):
            source.rename(target)

    swap()
    assert "the policy of another run, of other settings or of another user" in refused()
    swap()
    whole = kept[0].read_bytes()
    kept[0].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "adapter_model.safetensors: damaged (its checksum differs)" in refused()
    (one / "stage.json").unlink()
    (one / "policy.json").unlink()
    assert "no whole policy" in refused()


_SMALL = {"max_steps": 2, "batch_size": 2, "rank": 2, "max_new_tokens": 6, "num_prompts": 2, "learning_rate": 0.02}
