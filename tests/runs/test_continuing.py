"""`copl train --from`: what is gone on from, what begins anew, what is refused, and what is on record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from copl.data.dataset import load_dataset, save_dataset
from copl.errors import CoplError, RunError
from copl.model import Model
from copl.plugins import load
from copl.records import Comparisons, PreferenceData, UserTable
from copl.runs.consensus import consensus_margins
from copl.runs.continuing import Former
from copl.runs.directory import open_run
from copl.runs.learnt import LEARNT_FILE, Changes, LearntRows
from copl.runs.sharing import save_portable
from copl.runs.verdicts import first_verdict
from copl.system.progress import SilentProgress

RunCopl = Callable[..., tuple[int, str, str]]
GONE = "zoe-4711"


def rows(count: int, seed: int = 4) -> list[dict[str, Any]]:
    """What 30 users with tastes of their own say of four answers to each of 20 questions; nobody says a thing twice."""
    rng = np.random.default_rng(seed)
    tastes, traits = rng.normal(size=(30, 2)), rng.normal(size=(20, 4, 2))
    said: dict[tuple[int, int, int, int], dict[str, Any]] = {}
    while len(said) < count:
        user, prompt = int(rng.integers(30)), int(rng.integers(20))
        one, other = (int(answer) for answer in np.sort(rng.permutation(4)[:2]))
        margin = 2 * tastes[user] @ (traits[prompt, one] - traits[prompt, other]) + rng.logistic()
        best, worst = (one, other) if margin > 0 else (other, one)
        said[user, prompt, one, other] = {
            "user_id": f"user-{user:02d}",
            "prompt": f"question {prompt}",
            "chosen": f"answer {prompt}.{best}",
            "rejected": f"answer {prompt}.{worst}",
        }
    return list(said.values())


LATE = [
    {"user_id": f"late-{n % 3}", "prompt": f"question {n}", "chosen": f"answer {n}.0", "rejected": f"late answer {n}"}
    for n in range(12)
]


def write_rows(path: Path, said: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set ``old``, the same with more rows ``new``, and a run of method graph on the first; read only."""
    from contextlib import nullcontext

    from copl.data.adding import add_rows
    from copl.data.living import AddOptions
    from copl.data.reading.rows import parse_rows
    from copl.data.sources.tables import read_table
    from copl.runs.pipeline import train
    from copl.runs.recipe import resolve

    root = tmp_path_factory.mktemp("continuing")
    said = rows(1300)
    path = write_rows(root / "old.jsonl", said[:1250])
    old = load().registry("source").create("jsonl", {"path": str(path), "unseen_fraction": 0.1}).load(seed=0)
    save_dataset(old, root / "old")
    more = read_table(write_rows(root / "more.jsonl", said[1250:] + LATE))
    save_dataset(add_rows(old, parse_rows(more, {}), AddOptions(), name="more"), root / "new")
    silent = nullcontext(SilentProgress())
    for encoder in ("mf", "spectral"):
        recipe = resolve({"method": {"name": "graph"}, "encoder": {"name": encoder}}, load())
        train(recipe, root / "old", root / encoder, open_progress=lambda log: silent, cache=None)
    return root


def facts_of(run: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((run / "run.json").read_text())
    return facts


def table(run: Path, data: PreferenceData) -> list[Any]:
    prompts = list(dict.fromkeys(data.responses.prompts))
    pairs = list(zip(data.responses.prompts, data.responses.texts, strict=True))
    answers = [[text for prompt, text in pairs if prompt == one] for one in prompts]
    model = Model.open(run)
    return list(model.score_table(sorted(model.method.seen_users()), prompts, answers))


def test_new_rows_are_gone_on_with_and_it_is_on_record(world: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    code, _, err = run_copl("train", world / "new", "--from", world / "mf", "--out", tmp_path / "run", "--no-cache")
    assert code == 0, err
    assert "from: graph: continued" in err
    former, before = facts_of(tmp_path / "run")["former"], facts_of(world / "mf")
    assert former["parts"] == {"method": "continued", "graph": "continued"}
    assert former["data"] == before["data"]["fingerprint"]
    assert former["fingerprint"] == open_run(world / "mf", load()).fingerprint
    assert former["gone"] == former["changed"] == 0
    learnt, grown = (len(load_dataset(world / name).splits["train"]) for name in ("old", "new"))
    assert former["settled_on"] == learnt < grown
    assert any(user.startswith("late") for user in Model.open(tmp_path / "run").method.seen_users())
    # the same once more gives the same bytes, and a killed run goes on from the run it began with
    code, _, err = run_copl("train", world / "new", "--from", world / "mf", "--out", tmp_path / "again", "--no-cache")
    assert code == 0, err
    embeddings = "graph/embeddings.safetensors"
    assert (tmp_path / "run" / embeddings).read_bytes() == (tmp_path / "again" / embeddings).read_bytes()
    shutil.rmtree(tmp_path / "again" / "graph")
    facts = facts_of(tmp_path / "again")
    (tmp_path / "again" / "run.json").write_text(json.dumps({**facts, "status": "started"}))
    code, _, err = run_copl("train", "--resume", "--out", tmp_path / "again", "--no-cache")
    assert code == 0, err
    assert (tmp_path / "run" / embeddings).read_bytes() == (tmp_path / "again" / embeddings).read_bytes()
    assert facts_of(tmp_path / "again")["former"] == former


def test_the_cache_never_takes_it_for_a_run_from_scratch(world: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    for name, more in (("from", ("--from", str(world / "mf"))), ("scratch", ("--method", "graph", "--encoder", "mf"))):
        code, _, err = run_copl("train", world / "new", *more, "--out", tmp_path / name)
        assert code == 0, err
    keys = [json.loads((tmp_path / name / "graph" / "stage.json").read_text())["key"] for name in ("from", "scratch")]
    assert keys[0] != keys[1]
    assert facts_of(tmp_path / "scratch")["former"] is None


def test_from_the_same_data_everything_is_taken_over(world: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    code, _, err = run_copl("train", world / "old", "--from", world / "mf", "--out", tmp_path / "run", "--no-cache")
    assert code == 0, err
    facts = facts_of(tmp_path / "run")
    assert facts["former"]["parts"] == {"method": "unchanged"}
    assert facts["stages"] == {"graph": "reused"}
    data = load_dataset(world / "old")
    for one, other in zip(table(tmp_path / "run", data), table(world / "mf", data), strict=True):
        assert np.array_equal(one, other)
    assert open_run(tmp_path / "run", load()).fingerprint == open_run(world / "mf", load()).fingerprint


def test_the_verdict_has_the_numbers_of_one_from_scratch(world: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    """Where nothing is new the same lines; where something is, the same consensus, trained on all there is now."""
    progress, before, data = SilentProgress(), open_run(world / "mf", load()), load_dataset(world / "old")
    verdict = first_verdict(before, data, before.load_method(), progress=progress, cache=None).text
    assert "of 100" in verdict
    more = ("--method", "graph", "--encoder", "mf")
    for kind, name, how in (
        ("old", "again", ("--from", world / "mf")),
        ("new", "grown", ("--from", world / "mf")),
        ("new", "scratch", more),
    ):
        code, out, err = run_copl("train", world / kind, *how, "--out", tmp_path / name, "--no-cache")
        assert code == 0, err
        assert (verdict in out) == (kind == "old")
    data = load_dataset(world / "new")
    grown, scratch, stale = (
        consensus_margins(
            open_run(run, load()), learned, data, ("validation",), plugins=load(), progress=progress, cache=None
        )["validation"]
        for run, learned in (
            (tmp_path / "grown", data),
            (tmp_path / "scratch", data),
            (world / "mf", load_dataset(world / "old")),
        )
    )
    assert np.array_equal(grown, scratch)
    assert not np.array_equal(grown, stale)


def test_an_encoder_that_cannot_go_on_begins_anew_and_says_so(world: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    more = ("--out", tmp_path / "run", "--no-cache")
    code, _, err = run_copl("train", world / "new", "--from", world / "spectral", *more)
    assert code == 0, err
    said = "starts anew: encoder 'spectral' does not go on from what it has learnt"
    assert f"from: graph: {said}" in err
    assert facts_of(tmp_path / "run")["former"]["parts"]["graph"] == said


def test_much_more_than_settings_were_chosen_on_begins_anew(world: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    others = [{**row, "prompt": f"other {row['prompt']}"} for row in rows(600, seed=9)]
    path = write_rows(tmp_path / "many.jsonl", others)
    code, _, err = run_copl("data", "add", world / "old", path, "--out", tmp_path / "many")
    assert code == 0, err
    code, _, err = run_copl("train", tmp_path / "many", "--from", world / "mf", "--out", tmp_path / "run", "--no-cache")
    assert code == 0, err
    former = facts_of(tmp_path / "run")["former"]
    assert "chosen anew" in former["parts"]["method"]
    assert former["settled_on"] == len(load_dataset(tmp_path / "many").splits["train"])


def test_after_forgetting_nothing_of_the_user_survives(tmp_path: Path, run_copl: RunCopl) -> None:
    own = [(f"question {n}", f"answer {n}.0", f"secret-{n}-answer") for n in range(20)]
    names = ("prompt", "chosen", "rejected")
    said = [*rows(500), *({"user_id": GONE, **dict(zip(names, texts, strict=True))} for texts in own)]
    path = write_rows(tmp_path / "all.jsonl", said)
    commands = [
        ("data", "make", "jsonl", "--set", f"path={path}", "--out", tmp_path / "all"),
        ("train", tmp_path / "all", "--out", tmp_path / "knew", "--method", "graph", "--encoder", "mf", "--no-cache"),
        ("data", "forget", tmp_path / "all", "--user", GONE, "--out", tmp_path / "less"),
        ("train", tmp_path / "less", "--from", tmp_path / "knew", "--out", tmp_path / "run", "--no-cache"),
        ("train", tmp_path / "less", "--out", tmp_path / "never", "--method", "graph", "--encoder", "mf", "--no-cache"),
    ]
    for command in commands:
        code, _, err = run_copl(*command)
        assert code == 0, err
    assert "nothing is to survive" in facts_of(tmp_path / "run")["former"]["parts"]["method"]
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert GONE.encode() not in content, file
            assert b"secret" not in content, file
    data = load_dataset(tmp_path / "less")
    for one, other in zip(table(tmp_path / "run", data), table(tmp_path / "never", data), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "length"), "method.name: 'graph' there, 'length' now"),
        (("--set", "encoder.embedding_dim=4"), "encoder.embedding_dim: 16 there, 4 now"),
        (("--encoder", "gcf"), "encoder.name: 'mf' there, 'gcf' now"),
        (("--seed", "3"), "seed: 0 there, 3 now"),
    ],
)
def test_other_settings_are_refused(
    world: Path, tmp_path: Path, run_copl: RunCopl, options: tuple[str, ...], told: str
) -> None:
    code, _, err = run_copl("train", world / "new", "--from", world / "mf", "--out", tmp_path / "run", *options)
    assert code == 2
    assert told in err
    assert not (tmp_path / "run").exists()


def test_other_refusals(world: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    shutil.copytree(world / "mf", tmp_path / "begun")
    (tmp_path / "begun" / "run.json").write_text(json.dumps({**facts_of(world / "mf"), "status": "started"}))
    shutil.copytree(world / "mf", tmp_path / "damaged")
    (tmp_path / "damaged" / LEARNT_FILE).write_bytes(b"nonsense")
    shutil.copytree(world / "mf", tmp_path / "flipped")
    flip(tmp_path / "flipped" / "graph" / "embeddings.safetensors")
    shutil.copytree(world / "mf", tmp_path / "taken")
    for former, out, told in (
        (tmp_path / "nowhere", tmp_path / "run", "no such run directory"),
        (tmp_path / "begun", tmp_path / "run", "not finished"),
        (tmp_path / "damaged", tmp_path / "run", "damaged"),
        (tmp_path / "flipped", tmp_path / "run", "embeddings.safetensors: damaged (its checksum differs)"),
        (world / "mf", world / "mf", "cannot go on from itself"),
        (world / "mf", tmp_path / "taken", "other content"),
    ):
        code, _, err = run_copl("train", world / "new", "--from", former, "--out", out)
        assert (code, told in err) == (2, True), err
        assert "Traceback" not in err
    code, _, err = run_copl("train", "--resume", "--from", world / "mf", "--out", tmp_path / "taken")
    assert code == 2
    assert "drop --from" in err
    assert not (tmp_path / "run").exists()


def test_what_was_learnt_may_not_be_held_out_now(world: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    data = load_dataset(world / "new")
    train = data.splits["train"]
    moved = Comparisons.concat([data.splits["test"], train.take(np.arange(len(train)) < 5)])
    splits = {**data.splits, "train": train.take(np.arange(len(train)) >= 5), "test": moved}
    save_dataset(attrs.evolve(data, splits=splits), tmp_path / "moved")
    code, _, err = run_copl("train", tmp_path / "moved", "--from", world / "mf", "--out", tmp_path / "run")
    assert code == 2
    assert "5 of the comparisons" in err
    code, _, err = run_copl("train", world / "new", "--from", world / "mf", "--all", "--out", tmp_path / "whole")
    assert code == 0, err  # everyone's comparisons come on top: nothing is held out that was learnt
    code, _, err = run_copl("train", world / "new", "--from", tmp_path / "whole", "--out", tmp_path / "run")
    assert code == 2
    assert "--all" in err


def changes(then: PreferenceData, now: PreferenceData) -> Changes:
    return Changes.between(LearntRows.of(then), LearntRows.of(now))


def test_changes_by_hand(world: Path) -> None:
    data = load_dataset(world / "old")
    train = data.splits["train"]

    def with_train(part: Comparisons) -> PreferenceData:
        return attrs.evolve(data, splits={**data.splits, "train": part})

    count = len(train) + len(data.judgements.get("train", ()))
    assert changes(data, data) == Changes(0, 0, 0, 0, 0, count)
    fewer = with_train(train.take(np.arange(len(train)) > 2))
    assert changes(data, fewer) == Changes(0, 0, 3, 0, 0, count - 3)
    assert changes(fewer, data) == Changes(3, 0, 0, 0, 0, count)
    turned = train.chosen.copy(), train.rejected.copy()
    turned[0][0], turned[1][0] = train.rejected[0], train.chosen[0]
    other = with_train(attrs.evolve(train, chosen=turned[0], rejected=turned[1]))
    assert changes(data, other) == Changes(0, 1, 0, 0, 0, count)


def test_hashes_tell_users_and_texts_by_name_not_by_row(world: Path) -> None:
    data = load_dataset(world / "old")
    order = np.random.default_rng(0).permutation(len(data.users))
    ids = tuple(data.users.ids[row] for row in order)
    where = np.argsort(order)
    splits = {name: attrs.evolve(part, user=where[part.user]) for name, part in data.splits.items()}
    same = attrs.evolve(data, users=UserTable.ungrouped(ids), splits=splits)
    found = changes(data, same)
    assert (found.new, found.changed, found.gone, found.moved) == (0, 0, 0, 0)


def test_a_copy_to_share_says_where_no_more_and_can_be_gone_on_from(
    world: Path, tmp_path: Path, run_copl: RunCopl
) -> None:
    code, _, err = run_copl("train", world / "new", "--from", world / "mf", "--out", tmp_path / "run", "--no-cache")
    assert code == 0, err
    save_portable(open_run(tmp_path / "run", load()), tmp_path / "copy")
    assert str(tmp_path) not in (tmp_path / "copy" / "run.json").read_text()
    assert str(world) not in (tmp_path / "copy" / "run.json").read_text()
    code, _, err = run_copl("train", world / "new", "--from", tmp_path / "copy", "--out", tmp_path / "on", "--no-cache")
    assert code == 0, err
    assert facts_of(tmp_path / "on")["former"]["parts"] == {"method": "unchanged"}


def test_ties_thumbs_and_ratings_are_gone_on_with(tmp_path: Path, run_copl: RunCopl) -> None:
    rng = np.random.default_rng(2)
    said: list[dict[str, Any]] = [
        {"user_id": f"user-{n % 12}", "prompt": f"q {n // 12}", "response": f"a {n // 12}.{n % 3}", "rating": float(r)}
        for n, r in enumerate(rng.integers(1, 6, size=240))
    ]
    said += [
        {"user_id": f"user-{n % 12}", "prompt": f"t {n // 12}", "response": f"b {n // 12}", "thumb": thumb}
        for n, thumb in enumerate(rng.choice(["up", "down"], size=120))
    ]
    pairs = [{**row, "user_id": f"user-{n % 12}"} for n, row in enumerate(rows(150))]
    pairs = list({(row["user_id"], row["prompt"]): row for row in pairs}.values())
    old, new = said[:330] + pairs[:-8], said[330:] + pairs[-8:]
    commands = [
        (
            "data",
            "make",
            "jsonl",
            "--set",
            f"path={write_rows(tmp_path / 'old.jsonl', old)}",
            "--out",
            tmp_path / "old",
        ),
        ("data", "add", tmp_path / "old", write_rows(tmp_path / "more.jsonl", new), "--out", tmp_path / "new"),
        ("train", tmp_path / "old", "--method", "graph", "--out", tmp_path / "run", "--no-cache"),
        ("train", tmp_path / "new", "--from", tmp_path / "run", "--out", tmp_path / "on", "--no-cache"),
    ]
    for command in commands:
        code, _, err = run_copl(*command)
        assert code == 0, err
    former = facts_of(tmp_path / "on")["former"]
    assert former["parts"] == {"method": "continued", "graph": "continued"}
    assert former["new"] > 20
    assert former["gone"] == 0


def test_a_run_of_before_is_known_by_its_data(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "mf", tmp_path / "old-run")
    (tmp_path / "old-run" / LEARNT_FILE).unlink()
    run, data = open_run(tmp_path / "old-run", load()), load_dataset(world / "new")
    former = Former.of(run, run.recipe, data, everyone=False)
    known = open_run(world / "mf", load())
    assert former.changes == Former.of(known, known.recipe, data, everyone=False).changes
    facts = facts_of(tmp_path / "old-run")
    facts["data"]["path"] = str(tmp_path / "elsewhere")
    (tmp_path / "old-run" / "run.json").write_text(json.dumps(facts))
    run = open_run(tmp_path / "old-run", load())
    with pytest.raises(CoplError, match="does not say what it has learnt from"):
        Former.of(run, run.recipe, data, everyone=False)


def test_a_flipped_bit_of_what_was_learnt_is_told(tmp_path: Path) -> None:
    """It would seem to be other rows, of which the run is to forget all."""
    some = {split: np.arange(5, dtype=np.uint64) for split in ("train", "validation")}
    LearntRows("digest", some, some, np.arange(3, dtype=np.uint64)).save(tmp_path)
    path = tmp_path / LEARNT_FILE
    assert LearntRows.load(path).texts.tolist() == [0, 1, 2]
    flip(path)
    with pytest.raises(RunError, match=r"damaged .its checksum differs.; train the run again"):
        LearntRows.load(path)


def flip(path: Path) -> None:
    """Flip a bit near the end of a file."""
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
