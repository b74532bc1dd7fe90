"""The run directory: born whole, locked while somebody writes, told apart from others, damaged in any way a fault."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from copl import Model
from copl.data.dataset import load_dataset, save_dataset
from copl.errors import DataError, RunError
from copl.plugins import load
from copl.records import PreferenceData
from copl.runs import directory as directory_module
from copl.runs.directory import Run, create_run, open_run
from copl.runs.facts import RunFacts
from copl.runs.pipeline import evaluate, load_data, train
from copl.runs.recipe import Recipe, merge, resolve
from copl.runs.reference import REFERENCE_FILE, reference_of
from copl.runs.reporting import report_run
from copl.system.progress import RunLog, SilentProgress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from copl.interfaces import Progress

RunCopl = Callable[..., tuple[int, str, str]]


@contextmanager
def silent(log: Path | None) -> Iterator[Progress]:
    yield SilentProgress(RunLog(log))


def recipe(seed: int = 1) -> Recipe:
    draft = {"method": {"name": "graph"}, "encoder": {"name": "mf", "num_steps": 2}}
    return resolve(draft, load(), seed=seed)


def trained(data: Path, out: Path, seed: int = 1) -> Run:
    run, _ = train(recipe(seed), data, out, open_progress=silent, cache=None)
    return run


def evaluated(run: Run, data: PreferenceData) -> Run:
    evaluate(run, data, plugins=load(), open_progress=silent, cache=None)
    return run


@pytest.fixture(scope="module")
def graph_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "graph"
    evaluated(trained(small_data, root), load_dataset(small_data))
    return root


def test_a_run_that_is_killed_before_it_has_a_name_begins_again(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    for place, exists in ((tmp_path / "new", False), (tmp_path / "empty", True)):
        if exists:
            place.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(directory_module, "write_document", killed)
            with pytest.raises(KilledError):
                create_run(place, recipe(), small_data, "f")
        assert create_run(place, recipe(), small_data, "f").root == place
        assert sorted(p.name for p in place.iterdir()) == ["config.toml", "run.json"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.toml").write_text("seed = 3\n")
    with pytest.raises(RunError, match="not a run directory"):
        create_run(mine, recipe(), small_data, "f")
    assert (mine / "config.toml").read_text() == "seed = 3\n"


def _train_and_wait(data: Path, out: Path, begun: Any) -> None:
    @contextmanager
    def endless(log: Path | None) -> Iterator[Progress]:
        begun.set()
        signal.pause()
        yield SilentProgress()

    train(recipe(), data, out, open_progress=endless, cache=None)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_is_written_by_one_process_at_a_time_which_is_named(small_data: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    other = context.Process(target=_train_and_wait, args=(small_data, tmp_path / "run", begun))
    other.start()
    try:
        assert begun.wait(60)
        with pytest.raises(RunError, match=rf"process {other.pid} on .* since .* is writing here; wait for it or"):
            trained(small_data, tmp_path / "run")
    finally:
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    run = trained(small_data, tmp_path / "run")  # what it left is in nobody's way
    assert run.facts.status == "finished"
    assert sorted(p.name for p in run.root.iterdir()) == [
        "config.toml",
        "graph",
        "learnt.safetensors",
        "log.jsonl",
        "reference.json",
        "run.json",
    ]


def test_training_again_by_newer_code_says_by_which(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(small_data, tmp_path / "run").facts
    assert trained(small_data, tmp_path / "run").facts == first
    monkeypatch.setattr("copl.runs.workspace.__version__", "9.9")
    monkeypatch.setattr("copl.runs.directory.__version__", "9.9")
    again = trained(small_data, tmp_path / "run").facts
    assert (first.versions["copl"], again.versions["copl"]) != ("9.9", first.versions["copl"])
    assert again.versions["copl"] == "9.9"
    assert (again.created, again.stages) == (first.created, {"graph": "computed"})


def test_a_run_that_was_made_before_there_was_an_option_goes_by_what_held_then(
    small_data: Path, tmp_path: Path
) -> None:
    draft = {"method": {"name": "btl"}, "backbone": {"name": "minilm"}}
    six, four = (resolve(merge(draft, {"backbone": {"layers": layers}}), load()) for layers in (6, 4))
    root = create_run(tmp_path / "run", six, small_data, "f").root
    config, facts = root / "config.toml", json.loads((root / "run.json").read_text())
    config.write_text(config.read_text().replace("layers = 6\n", ""))
    del facts["recipe"]["backbone"]["layers"]
    (root / "run.json").write_text(json.dumps(facts))
    assert open_run(root, load()).recipe.to_dict() == six.to_dict()
    assert create_run(root, open_run(root, load()).recipe, small_data, "f").root == root  # as `copl train --resume`
    with pytest.raises(RunError, match=r"backbone\.layers: 6 there, 4 now"):
        create_run(root, four, small_data, "f")


@pytest.mark.parametrize(
    ("file", "old", "new", "key"),
    [
        ("config.toml", "seed = 0", "seed = 1", "seed: 0 there, 1 now"),
        ("config.toml", "learning_rate = 0.01", "learning_rate = 0.1", "encoder.learning_rate"),
        ("run.json", '"name": "empirical"', '"name": "mean"', "adapter.name"),
    ],
)
def test_a_run_whose_recipe_was_changed_is_refused(
    small_run: Path, tmp_path: Path, file: str, old: str, new: str, key: str
) -> None:
    root = Path(shutil.copytree(small_run, tmp_path / "run"))
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(RunError, match=key) as raised:
        open_run(root, load())
    assert len(raised.value.faults) == 1


def test_measurements_that_were_changed_are_refused_until_they_are_made_anew(small_run: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(small_run, tmp_path / "run"))
    before = (root / "metrics.json").read_bytes()
    run = open_run(root, load())
    for changed in (before.replace(b'"value": 0.', b'"value": 0.9', 1), b"[]", before + b"\n"):
        (root / "metrics.json").write_bytes(changed)
        with pytest.raises(RunError, match=r"metrics\.json: is not what the last evaluation has written"):
            report_run(run, load_data(run)[0])
    evaluate(run, load_data(run)[0], plugins=load(), open_progress=silent, cache=None)
    assert (root / "metrics.json").read_bytes() == before
    report_run(run, load_data(run)[0])


def test_a_backbone_that_was_moved_may_be_named_anew(small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    draft = {"method": {"name": "btl"}, "backbone": {"name": str(tiny_model)}}
    root = create_run(tmp_path / "run", resolve(draft, load()), small_data, "f").root
    moved = tiny_model.rename(tiny_model.with_name("moved"))
    try:
        text = (root / "config.toml").read_text()
        (root / "config.toml").write_text(text.replace(str(tiny_model), str(moved)))
        assert open_run(root, load()).recipe.stages.parts["backbone"].options.path == str(moved)
    finally:
        moved.rename(tiny_model)


def test_reference_responses_that_were_changed_are_refused(small_run: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(small_run, tmp_path / "run"))
    kept = json.loads((root / REFERENCE_FILE).read_text())
    assert len(reference_of(open_run(root, load()))) == len(kept["texts"])
    kept["texts"][0] += "!"
    (root / REFERENCE_FILE).write_text(json.dumps(kept))
    with pytest.raises(RunError, match=r"reference\.json: damaged"):
        reference_of(open_run(root, load()))
    del kept["content"]
    (root / REFERENCE_FILE).write_text(json.dumps(kept))
    assert reference_of(open_run(root, load())).texts[0].endswith("!")  # of a version that kept no checksum


def test_a_finished_run_that_is_killed_while_trained_again_is_not_finished(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(small_data, tmp_path / "run")
    monkeypatch.setattr("copl.runs.workspace.__version__", "9.9")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained(small_data, tmp_path / "run")
    with pytest.raises(RunError, match="not finished"):
        Model.open(tmp_path / "run")
    trained(small_data, tmp_path / "run")
    Model.open(tmp_path / "run")


def files_of_stages(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*") if path.is_file() and path.parent.name != "evaluation")


def test_a_flipped_bit_in_any_file_of_a_stage_is_told_by_whatever_uses_it(
    run_copl: RunCopl, small_data: Path, tmp_path: Path
) -> None:
    root = trained(small_data, tmp_path / "run").root
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"user_id": "u", "prompt": "p", "response": "r"}) + "\n")
    adapted, scores, copy = tmp_path / "a.safetensors", tmp_path / "s.jsonl", tmp_path / "copy"
    files = files_of_stages(root)
    assert {path.name for path in files} == {
        "embeddings.safetensors",
        "gate_view.safetensors",
        "memory.safetensors",
        "nodes.json",
        "stage.json",
    }
    for path in files:
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        for command in (
            ("score", root, rows, "--out", scores, "--average-unknown"),
            ("adapt", root, small_data, "--out", adapted),
            ("export", root, "--out", copy),
            ("evaluate", root, "--no-cache"),
            ("train", small_data, "--resume", "--out", root, "--no-cache"),
        ):
            code, out, err = run_copl(*command)
            assert (code, out) == (2, ""), (path, command)
            assert len(err.splitlines()) == 1, err
            assert str(path) in err
        path.write_bytes(content)
    assert not any(path.exists() for path in (adapted, scores, copy, root / "metrics.json"))
    assert run_copl("score", root, rows, "--out", scores, "--average-unknown")[0] == 0


def edited(path: Path, change: Callable[[Any], object]) -> bytes:
    before = path.read_bytes()
    value = json.loads(before)
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))
    return before


@pytest.mark.parametrize("key", [field.name for field in attrs.fields(RunFacts)])
@pytest.mark.parametrize("value", [None, 7.5, [], {"a": {"b": None}}, "text"])
def test_a_wrong_value_in_run_json_is_a_line_with_its_key(
    key: str, value: Any, graph_run: Path, run_copl: RunCopl
) -> None:
    before = edited(graph_run / "run.json", lambda facts: facts.update({key: value}))
    try:
        code, _, err = run_copl("report", graph_run)
    finally:
        (graph_run / "run.json").write_bytes(before)
    fits = isinstance(value, type(json.loads(before)[key])) and key not in ("status", "data", "components", "measured")
    if not (fits or (key in ("seconds", "measured") and value is None) or (key in ("stages",) and value == {})):
        assert code == 2, value
        file = "metrics.json" if key == "measured" and value == "text" else f"run.json: {key}"
        assert all(line.startswith(f"copl: {graph_run}/{file}") for line in err.splitlines()), err


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"\xff", b"[" * 90_000, b'{"format": 1}', b"1" * 6000])
@pytest.mark.parametrize("name", ["run.json", "metrics.json", "evaluation/stage.json", "evaluation/diagnostics.json"])
def test_own_json_that_is_none_is_a_line(content: bytes, name: str, graph_run: Path, run_copl: RunCopl) -> None:
    path = graph_run / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        code, out, err = run_copl("report", graph_run)
    finally:
        path.write_bytes(before)
    assert (code, out) == (2, "")
    assert all(line.startswith(f"copl: {path}") for line in err.splitlines()), err


@pytest.mark.parametrize(
    "line", [b"{", b"null", b"[]", b"\xff\xfe", b'{"stage": {"deep": 1}}', b'{"loss": NaN}', b"9" * 5000]
)
def test_a_line_of_the_log_that_is_none_is_skipped(line: bytes, graph_run: Path, run_copl: RunCopl) -> None:
    log = graph_run / "log.jsonl"
    before = log.read_bytes()
    log.write_bytes(before + line)
    RunLog(log).write("graph", {"loss": float("inf"), "step": 3})
    after = log.read_bytes()
    code, _, err = run_copl("report", graph_run)
    log.write_bytes(before)
    assert after.splitlines()[:-1] == [*before.splitlines(), line]
    assert set(json.loads(after.splitlines()[-1])) == {"time", "stage", "step"}
    assert code == 0, err


def test_measuring_on_other_data_is_said_and_never_happens_unasked(
    run_copl: RunCopl, small_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    save_dataset(load_dataset(small_data), data)
    run = trained(data, tmp_path / "run")
    assert load_data(run)[1]
    options = {"num_seen_users": 40, "num_unseen_users": 10, "num_prompts": 30}
    save_dataset(load().registry("source").create("facets", options).load(seed=5), data, overwrite=True)
    with pytest.raises(DataError, match=r"not the data set any more that .* was trained on"):
        load_data(run)
    code, out, err = run_copl("evaluate", run.root, "--no-cache")
    assert (code, out) == (2, "")
    assert "made anew since" in err
    assert not (run.root / "metrics.json").exists()
    code, _, err = run_copl("evaluate", run.root, "--data", data, "--no-cache")
    assert code == 0
    said = f"measured on {data}, which is not the data set that the run was trained on"
    assert said in err
    assert said in (run.root / "report.html").read_text()
    with pytest.raises(RunError, match="evaluated on other data"):
        report_run(run, load_dataset(small_data))
    shutil.rmtree(data)
    with pytest.raises(DataError, match=r"here was the data set that .* was trained on, which this needs; put it back"):
        load_data(run)


def test_adapted_users_belong_to_one_run(graph_run: Path, small_data: Path, run_copl: RunCopl, tmp_path: Path) -> None:
    model, other = Model.open(graph_run), Model.open(trained(small_data, tmp_path / "other", seed=2).root)
    twin = Model.open(trained(small_data, tmp_path / "twin").root)
    support = load_dataset(small_data).split("support")
    newcomers, path = model.adapt(support), tmp_path / "new.safetensors"
    model.save_adapted(newcomers, path)
    assert model.load_adapted(path).embeddings.equal(newcomers.embeddings)
    content = path.read_bytes()
    flipped = tmp_path / "flipped.safetensors"
    for place in (-1, content.index(newcomers.user_ids[0].encode())):  # of a tensor, of an id
        changed = bytearray(content)
        changed[place] ^= 1
        flipped.write_bytes(bytes(changed))
        with pytest.raises(RunError, match="damaged"):
            model.load_adapted(flipped)
    assert twin.load_adapted(path).user_ids == newcomers.user_ids  # the same model by another name
    with pytest.raises(RunError, match=rf"adapted for another run than {other.run.root}; adapt them for this one"):
        other.load_adapted(path)
    user = newcomers.user_ids[0]
    with pytest.raises(RunError, match="adapted for another run"):
        other.score(user, "p", ["r"], adapted=newcomers)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"user_id": user, "prompt": "p", "response": "r"}) + "\n")
    for root, expected in ((graph_run, 0), (other.run.root, 2)):
        code, _, err = run_copl("score", root, rows, "--users", path, "--out", tmp_path / f"{expected}.jsonl")
        assert code == expected, err
    assert not (tmp_path / "2.jsonl").exists()
    ann = model.online("ann")
    ann.add("p", chosen="a", rejected="b")
    model.save_adapted(ann.adapted, path)
    assert model.load_adapted(path).user_ids == ("ann",)


def test_equal_runs_leave_equal_files(graph_run: Path, small_data: Path, tmp_path: Path) -> None:
    again = evaluated(trained(small_data, tmp_path / "again"), load_dataset(small_data)).root
    for path in [*files_of_stages(graph_run), *graph_run.glob("evaluation/*"), graph_run / "metrics.json"]:
        assert (again / path.relative_to(graph_run)).read_bytes() == path.read_bytes(), path


def test_a_stage_that_was_killed_before_it_got_its_name_is_no_part_of_the_fitted_method(
    graph_run: Path, small_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(graph_run, killed := tmp_path / "killed")
    shutil.move(killed / "evaluation", killed / "evaluation.partial")
    assert open_run(killed, load()).fingerprint == open_run(graph_run, load()).fingerprint
    again = evaluated(open_run(killed, load()), load_dataset(small_data)).root
    assert (again / "evaluation/stage.json").read_bytes() == (graph_run / "evaluation/stage.json").read_bytes()
