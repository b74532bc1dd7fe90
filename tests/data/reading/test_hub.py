from __future__ import annotations

import builtins
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copl.data.reading.hub import Published, PublishedOptions, PublishedRows, read_published, require_published
from copl.errors import DataError
from tests.data.published import write_lines, write_parquet

ROWS = [{"user": "a", "text": "x", "more": {"n": 1}}, {"user": "b", "text": "y", "more": None}]
SET = Published("somebody/something")


def read(path: Path, published: Published = SET, **wanted: Any) -> PublishedRows | None:
    return read_published(published, PublishedOptions(path=path), **{"columns": ("user", "text"), **wanted})


def rows_of(path: Path, published: Published = SET, **wanted: Any) -> list[dict[str, Any]]:
    found = read(path, published, **wanted)
    assert found is not None
    return [{"user": row["user"], "text": row["text"]} for row in found]


EXPECTED = [{"user": "a", "text": "x"}, {"user": "b", "text": "y"}]


def saved_to_disk(directory: Path, rows: list[dict[str, Any]]) -> Path:
    """What `datasets.Dataset.save_to_disk` writes."""
    directory.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(directory / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "f", "_split": None}
    (directory / "state.json").write_text(json.dumps(state))
    (directory / "dataset_info.json").write_text("{}")
    return directory


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", ROWS)
    write_lines(tmp_path / "a.jsonl.gz", ROWS)
    write_lines(tmp_path / "lines.json", ROWS)
    (tmp_path / "list.json").write_text(json.dumps(ROWS))
    (tmp_path / "a.csv").write_text("user,text\na,x\nb,y\n")
    write_parquet(tmp_path / "a.parquet", ROWS)
    for name in ("a.jsonl", "a.jsonl.gz", "lines.json", "list.json", "a.csv", "a.parquet"):
        assert rows_of(tmp_path / name) == EXPECTED, name
    assert rows_of(saved_to_disk(tmp_path / "saved", ROWS)) == EXPECTED


def test_columns_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    found = read(write_parquet(tmp_path / "a.parquet", ROWS), optional=("more",))
    assert found is not None
    assert [set(row) for row in found] == [{"user", "text", "more"}] * 2
    found = read(tmp_path / "a.parquet")
    assert found is not None
    assert [set(row) for row in found] == [{"user", "text"}] * 2


def test_a_directory_is_read_by_split_and_configuration(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", ROWS[:1])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", ROWS[1:])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", ROWS[1:])
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert rows_of(tmp_path) == EXPECTED
    assert rows_of(tmp_path, split="test") == EXPECTED[1:]
    assert read(tmp_path, split="validation") is None

    clone = tmp_path / "clone"
    write_lines(clone / "helpful-base" / "train.jsonl.gz", ROWS[:1])
    write_lines(clone / "harmless-base" / "train.jsonl.gz", ROWS[1:])
    assert rows_of(clone, Published("r", directory="harmless-base")) == EXPECTED[1:]
    write_lines(tmp_path / "configs" / "survey.jsonl", [{"age": 1}])
    write_lines(tmp_path / "configs" / "utterances.jsonl", ROWS)
    assert rows_of(tmp_path / "configs", Published("r", config="utterances")) == EXPECTED


def test_a_saved_dictionary_of_splits(tmp_path: Path) -> None:
    saved_to_disk(tmp_path / "d" / "train", ROWS[:1])
    saved_to_disk(tmp_path / "d" / "validation", ROWS[1:])
    (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    assert rows_of(tmp_path / "d") == EXPECTED[:1]
    assert rows_of(tmp_path / "d", split="validation") == EXPECTED[1:]
    assert read(tmp_path / "d", split="test") is None


def test_a_copy_without_a_training_part_is_a_fault(tmp_path: Path) -> None:
    write_lines(tmp_path / "test.jsonl", ROWS)
    with pytest.raises(DataError, match="has no split 'train'"):
        require_published(SET, PublishedOptions(path=tmp_path), columns=("user",))


def damaged_parquet(path: Path) -> Path:
    content = write_parquet(path, ROWS).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def damaged_gzip(path: Path) -> Path:
    path.write_bytes(gzip.compress(b'{"user": "a", "text": "x"}\n' * 500)[:-20])
    return path


def damaged_arrow(path: Path) -> Path:
    saved = saved_to_disk(path, ROWS) / "data-00000-of-00001.arrow"
    saved.write_bytes(saved.read_bytes()[:100])
    return path


def without_files(path: Path) -> Path:
    saved = saved_to_disk(path, ROWS)
    (saved / "data-00000-of-00001.arrow").unlink()
    return saved


def content(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "none", "no such file"),
        (lambda d: d, "holds no file of .jsonl"),
        (lambda d: content(d / "a.txt", b"x"), "unknown kind of file '.txt'"),
        (lambda d: damaged_parquet(d / "a.parquet"), "not a whole Parquet file"),
        (lambda d: damaged_gzip(d / "a.jsonl.gz"), "the compressed file is cut short or damaged"),
        (lambda d: content(d / "a.jsonl.gz", b"no gzip"), "no gzip file"),
        (lambda d: damaged_arrow(d / "a"), "not a whole Arrow file"),
        (lambda d: without_files(d / "a"), "data-00000-of-00001.arrow are missing"),
        (lambda d: content(d / "a.json", b"[{]"), "not JSON, or cut short"),
        (lambda d: content(d / "a.json", b"[1]"), "a list of objects is expected"),
        (lambda d: content(d / "a.jsonl", b'{"user": "a", "text": "x"}\n{"us'), "line 2: the file is cut short"),
        (lambda d: content(d / "a.jsonl", b'{"user": "a", "text": "x"}\n7\n'), "line 2: a JSON number where"),
        (lambda d: content(d / "a.jsonl", b'{"user": "\xe4"}\n'), "line 1: byte 0xe4 is not UTF-8"),
        (lambda d: content(d / "a.jsonl", b'{"user": "a", "test": "x"}\n'), "no column 'text'.*did you mean 'test'"),
        (lambda d: content(d / "a.csv", b"user,text\n1,\"x\n"), "a quote is not closed"),
        (lambda d: content(d / "a.csv.gz", gzip.compress(b"user,text\n1,\"x\n")), "a quote is not closed"),
    ],
)  # fmt: skip
def test_faults_of_a_copy(tmp_path: Path, make: Any, message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        rows_of(path)
    assert all(str(tmp_path) in fault and "\n" not in fault for fault in caught.value.faults)


def test_ids_are_numbers_or_text_throughout(tmp_path: Path) -> None:
    write_lines(tmp_path / "one.jsonl", [{"user": 7, "text": "x"}, {"user": None, "text": "y"}])
    write_lines(tmp_path / "two.jsonl", [{"user": "7", "text": "z"}])
    message = r"two.jsonl: line 1: column 'user' holds text, but a number in .*one.jsonl: line 1"
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path, ids=("user",))
    assert len(rows_of(tmp_path)) == 3


def test_without_the_package_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match=r"somebody/something: .*pip install 'copl\[hub\]'.*path=") as caught:
        read_published(SET, PublishedOptions(), columns=())
    assert len(caught.value.faults) == 1


@pytest.mark.filterwarnings("ignore")
def test_the_hub_is_read_with_its_own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the extra hub is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_parquet(tmp_path / "set" / "train.parquet", ROWS)
    published = Published(str(tmp_path / "set"))  # a directory is a name the package understands, too
    found = read_published(published, PublishedOptions(), columns=("user", "text"))
    assert found is not None
    assert list(found) == EXPECTED
    assert read_published(published, PublishedOptions(), columns=("user",), split="test") is None
    with pytest.raises(DataError, match="cannot be loaded from the Hugging Face Hub"):
        read_published(Published(str(tmp_path / "nowhere")), PublishedOptions(), columns=())


def test_a_parquet_file_without_rows_has_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": pa.array([], pa.string()), "text": pa.array([], pa.string())}), tmp_path / "a.pq")
    assert rows_of(tmp_path / "a.pq") == []
