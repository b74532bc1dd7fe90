from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.dataset import dataset_fingerprint, load_dataset, save_dataset
from copl.errors import DataError
from copl.records import SPLITS, Comparisons, PreferenceData, ResponseTable, UserTable
from copl.records.judgements import KINDS, Judgements
from tests.data.example import assert_same, edited, example

TEXT = st.text(max_size=8)


@st.composite
def data_sets(draw: st.DrawFn) -> PreferenceData:
    ids = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True))
    groups = draw(st.lists(st.none() | TEXT, min_size=len(ids), max_size=len(ids)))
    responses = draw(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5, unique=True))
    row = st.tuples(
        st.integers(0, len(ids) - 1),
        st.integers(0, len(responses) - 1),
        st.integers(0, len(responses) - 1),
        st.floats(0.1, 9.0),
        st.sampled_from([-1, 0, 1]),
        st.just(math.nan) | st.floats(0, 2e9),
    )
    judgement = st.tuples(
        st.integers(0, len(KINDS) - 1),
        st.integers(0, len(ids) - 1),
        st.integers(0, len(responses) - 1),
        st.integers(-1, len(responses) - 1),
        st.floats(-10, 10),
        st.floats(0.1, 9.0),
        st.just(math.nan) | st.floats(0, 2e9),
    )
    judgements = {}
    for name in draw(st.lists(st.sampled_from(list(SPLITS)), unique=True)):
        drawn = draw(st.lists(judgement, min_size=1, max_size=5))
        judgements[name] = Judgements(*zip(*drawn, strict=True))
    splits = {}
    for name in draw(st.lists(st.sampled_from(list(SPLITS)), unique=True)):
        rows = draw(st.lists(row, max_size=5))
        columns = zip(*rows, strict=True) if rows else ((),) * 6
        splits[name] = Comparisons(*columns)
    provenance = draw(
        st.dictionaries(TEXT, st.none() | st.integers(-9, 9) | TEXT | st.lists(TEXT, max_size=2), max_size=2)
    )
    prompts, texts = zip(*responses, strict=True)
    tables = UserTable(ids, groups), ResponseTable(prompts, texts)
    return PreferenceData(draw(TEXT), *tables, splits, provenance, judgements)


@settings(max_examples=40)
@given(data_sets())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: PreferenceData) -> None:
    directory = tmp_path_factory.mktemp("data") / "set"
    save_dataset(data, directory)
    assert_same(load_dataset(directory), data)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux tells of them")
def test_a_data_set_is_read_without_further_threads(saved: Path) -> None:
    """One that still holds the bytes of a file when the program ends would end it with an abort."""
    program = """
import os, sys
from pathlib import Path
from copl.data.dataset import load_dataset
before = len(os.listdir("/proc/self/task"))
load_dataset(Path(sys.argv[1]))
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", program, str(saved)], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_the_description_can_be_read_by_a_person(saved: Path) -> None:
    described = json.loads((saved / "dataset.json").read_text(encoding="utf-8"))
    assert described["counts"] == {
        "users": 2, "responses": 3, "splits": {"train": 2, "test": 1}, "judgements": {}
    }  # fmt: skip
    assert described["version"] == 2
    names = ("responses", "users", "comparisons", "judgements")
    assert set(described["files"]) == {f"{name}.parquet" for name in names}
    assert pq.read_table(saved / "comparisons.parquet").column("split").to_pylist() == ["train", "train", "test"]


def test_version_1_is_read(saved: Path) -> None:
    """A data set as it was written before there were times and judgements."""
    rows = pq.read_table(saved / "comparisons.parquet").drop_columns(["time"])
    _rewrite(saved, "comparisons.parquet", rows)
    (saved / "judgements.parquet").unlink()
    described = json.loads((saved / "dataset.json").read_text(encoding="utf-8"))
    del described["files"]["judgements.parquet"], described["counts"]["judgements"]
    (saved / "dataset.json").write_text(json.dumps({**described, "version": 1}))
    assert_same(load_dataset(saved), example())
    assert dataset_fingerprint(saved)


def test_the_fingerprint_tells_contents_apart(saved: Path, tmp_path: Path) -> None:
    save_dataset(example(), tmp_path / "same")
    save_dataset(example(("a", "b", "d")), tmp_path / "other")
    assert dataset_fingerprint(saved) == dataset_fingerprint(tmp_path / "same")
    assert dataset_fingerprint(saved) != dataset_fingerprint(tmp_path / "other")


def test_half_a_surrogate_pair_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="surrogate"):
        save_dataset(example(("a", "\ud800", "c")), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def _cut(directory: Path) -> None:
    path = directory / "responses.parquet"
    path.write_bytes(path.read_bytes()[:-30])


def _change(directory: Path) -> None:
    path = directory / "users.parquet"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(bytes(content))


def _cut_description(directory: Path) -> None:
    path = directory / "dataset.json"
    path.write_text(path.read_text(encoding="utf-8")[:40], encoding="utf-8")


def _put(entry: str) -> Callable[[Path], None]:
    def put(directory: Path) -> None:
        text = (directory / "dataset.json").read_text(encoding="utf-8")
        (directory / "dataset.json").write_text(text.replace('"name": "example"', entry), encoding="utf-8")

    return put


def _pipe(name: str) -> Callable[[Path], None]:
    def pipe(directory: Path) -> None:
        (directory / name).unlink()
        os.mkfifo(directory / name)

    return pipe


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"responses\.parquet: cut short at"),
        (_change, r"users\.parquet: its checksum"),
        (
            lambda d: (d / "comparisons.parquet").unlink(),
            r"comparisons\.parquet: no such file; make",
        ),
        (lambda d: (d / "dataset.json").unlink(), "not a data set: it has no dataset.json"),
        (_cut_description, r"dataset\.json: damaged: not JSON: "),
        (edited("version", 3), "version is 3, this version of copl reads 1 or 2"),
        (edited("format", "foreign"), "format is 'foreign', this version of copl reads 'copl dataset'"),
        (edited("files", {}), r"files: responses\.parquet is not listed"),
        (
            edited("counts", {"users": 1, "responses": 1, "splits": {"tarin": 1}}),
            "unknown split 'tarin'",
        ),
        (
            edited("counts", {"users": None, "responses": 1, "splits": {}}),
            "users: expected a whole number, got nothing",
        ),
        (edited("provenance", []), "provenance: expected a table of values"),
        (edited("provenance", {"notes": 5}), r"provenance: notes: expected a list, got 5"),
        (
            edited("provenance", {"counts": {"ties": "many"}}),
            r"provenance: counts.*expected a whole number, got 'many'",
        ),
        (edited("provenance", {"positions": []}), "provenance: positions"),
        (edited("provenance", {"findings": [{"what": "x"}]}), r"provenance: findings\[0\]\.severity: missing"),
        (_put('"name": ' + "1" * 5000), "a whole number of 5000 digits"),
        (edited("name", math.nan), "NaN is no number"),
        (lambda d: (d / "dataset.json").write_bytes(b"\xff{}"), "not text in UTF-8"),
        (lambda d: (d / "dataset.json").write_text("[" * 100_000), "nested too deeply"),
        (_pipe("dataset.json"), "dataset.json: is a pipe or a device"),
        (_pipe("users.parquet"), "is a pipe or a device"),
    ],
)
def test_each_damage_is_one_clear_line(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(saved)
    assert len(caught.value.faults) == (4 if "severity" in message else 1)
    assert "\n" not in caught.value.faults[0]


def test_all_damaged_files_are_named_at_once(saved: Path) -> None:
    _cut(saved)
    _change(saved)
    with pytest.raises(DataError) as caught:
        load_dataset(saved)
    assert len(caught.value.faults) == 2


def test_a_path_that_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        load_dataset(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        dataset_fingerprint(tmp_path / "file")


def _rewrite(directory: Path, name: str, table: object) -> None:
    import hashlib

    pq.write_table(table, directory / name)
    content = (directory / name).read_bytes()
    files = json.loads((directory / "dataset.json").read_text(encoding="utf-8"))["files"]
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edited("files", files)(directory)


def test_rows_that_point_nowhere_are_faults(saved: Path) -> None:
    table = pq.read_table(saved / "comparisons.parquet")
    _rewrite(saved, "comparisons.parquet", table.set_column(2, "chosen", pa.array([0, 7, 1], pa.int64())))
    with pytest.raises(DataError, match=r"'chosen' refers to rows that are not there \(0 to 2 are\)"):
        load_dataset(saved)


def test_a_foreign_table_is_a_fault(saved: Path) -> None:
    _rewrite(saved, "users.parquet", pa.table({"name": ["u"]}))
    with pytest.raises(DataError, match=r"users\.parquet: not a table of this format"):
        load_dataset(saved)


def test_an_unknown_split_is_not_written(tmp_path: Path) -> None:
    data = PreferenceData("x", UserTable([], []), ResponseTable([], []), {"dev": Comparisons.empty()})
    with pytest.raises(DataError, match="unknown split 'dev'"):
        save_dataset(data, tmp_path / "set")
