"""Tensors on disk: what is written is read, and what else may lie there is told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import frozen
from safetensors.torch import save_file

from copl.errors import DataError, RunError
from copl.system.tensors import ANY_FLOATS, Expected, floats, integers, like, load_tensors, save_tensors

EXPECTED = {"users": floats("U", "D"), "counts": integers("U"), "met": Expected("bool", ("U", 2))}


def _whole() -> dict[str, torch.Tensor]:
    return {
        "users": torch.arange(6.0).reshape(3, 2),
        "counts": torch.tensor([1, 2, 3]),
        "met": torch.zeros(3, 2, dtype=torch.bool),
    }


@frozen
class Header:
    ids: tuple[str, ...]
    run: str


def test_what_is_written_is_read_whatever_lies_in_memory(tmp_path: Path) -> None:
    users = torch.arange(6.0).reshape(2, 3).T.requires_grad_()  # a view, and not in one piece
    tensors = {**_whole(), "users": users, "a.gain": users, "array": np.arange(4)[::-1]}
    path = tmp_path / "deep" / "er" / "t.safetensors"
    save_tensors(path, tensors, header=Header(("ä", "b"), "r"))
    read = load_tensors(path, EXPECTED, others={"a.": ANY_FLOATS, "array": integers(4)}, advice="-")
    assert read["users"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert read.array("array").tolist() == [3, 2, 1, 0]
    assert read.below("a.")["gain"].equal(read["users"])
    assert read.read_header(Header, advice="-") == Header(("ä", "b"), "r")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_may_be_there_is_known_by_its_name_or_by_how_it_begins(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t", {"users": torch.zeros(2), "pass.a": torch.zeros(1)})
    for others in ({"": ANY_FLOATS}, {"users": ANY_FLOATS, "pass.": ANY_FLOATS}):
        assert set(load_tensors(tmp_path / "t", {}, others=others, advice="-").tensors) == {"users", "pass.a"}
    for others in ({"use": ANY_FLOATS, "pass.": ANY_FLOATS}, {"users": ANY_FLOATS, "pass": ANY_FLOATS}):
        with pytest.raises(RunError, match="does not belong there"):
            load_tensors(tmp_path / "t", {}, others=others, advice="-")


def test_equal_tensors_give_equal_files(tmp_path: Path) -> None:
    contents = set()
    for number in range(8):
        tensors = dict(sorted(_whole().items(), reverse=bool(number % 2)))
        save_tensors(tmp_path / "t", tensors, header=Header(("a", "b"), "r"))
        contents.add((tmp_path / "t").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"users": None}, "users is missing"),
        (
            {"users": torch.zeros(3, 2, dtype=torch.int64)},
            "users: expected floating-point numbers (float32 or float64), got int64",
        ),
        (
            {"users": torch.zeros(3, 2, dtype=torch.float16)},
            "users: expected floating-point numbers (float32 or float64), got float16",
        ),
        ({"counts": torch.zeros(3)}, "counts: expected whole numbers, got float32"),
        ({"met": torch.zeros(3, 2)}, "met: expected truth values, got float32"),
        ({"users": torch.zeros(4)}, "users: expected shape [3, D], got [4]"),
        ({"users": torch.zeros(4, 2)}, "users: expected shape [3, D], got [4, 2]"),
        ({"met": torch.zeros(3, 3, dtype=torch.bool)}, "met: expected shape [3, 2], got [3, 3]"),
        ({"users": torch.full((3, 2), float("nan"))}, "users: holds what is no finite number"),
        ({"users": torch.full((3, 2), -float("inf"))}, "users: holds what is no finite number"),
        ({"more": torch.zeros(1)}, "more does not belong there"),
    ],
)
def test_what_is_not_what_was_meant_is_a_line(
    changes: dict[str, torch.Tensor | None], fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {name: tensor for name, tensor in {**_whole(), **changes}.items() if tensor is not None}
    save_file(tensors, path)
    with pytest.raises(RunError) as caught:
        load_tensors(path, EXPECTED, advice="train again")
    assert caught.value.faults == (f"{path}: {fault}; train again",)


def test_what_is_read_like_a_tensor_has_its_type_and_its_shape(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    for here, there in ((torch.float32, torch.float64), (torch.bfloat16, torch.float32), (torch.int64, torch.int32)):
        expected = {"one": like(torch.zeros(2, dtype=here))}
        save_file({"one": torch.ones(2, dtype=here)}, path)
        assert load_tensors(path, expected, advice="-")["one"].dtype == here
        save_file({"one": torch.ones(2, dtype=there)}, path)
        with pytest.raises(RunError, match=f"one: expected .* \\({str(here)[6:]}\\), got {str(there)[6:]}"):
            load_tensors(path, expected, advice="-")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    save_file({"users": torch.zeros(3), "counts": torch.zeros(3)}, tmp_path / "t")
    with pytest.raises(RunError) as caught:
        load_tensors(tmp_path / "t", EXPECTED, advice="-")
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    "content", [None, b"", b"\x00" * 100, b"\xff" * 8, b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00{"]
)
def test_what_is_no_file_of_tensors_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.safetensors: (missing|damaged, or not a file of tensors); make it again$"):
        load_tensors(path, EXPECTED, advice="make it again", error=DataError)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, _whole())
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError):
            load_tensors(path, EXPECTED, advice="-")


def test_a_directory_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(RunError, match="not a file"):
            load_tensors(path, EXPECTED, advice="-")


@pytest.mark.parametrize("header", [None, {"ids": ["a"]}, {"ids": ["a"], "run": 1}, {"ids": "ab", "run": "r"}])
def test_a_header_is_read_as_strictly(header: object, tmp_path: Path) -> None:
    save_tensors(tmp_path / "t", _whole(), header=header)
    with pytest.raises(RunError, match="header: "):
        load_tensors(tmp_path / "t", EXPECTED, advice="-").read_header(Header, advice="-")


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, _whole())
    code = """
import resource, signal, sys, torch
from pathlib import Path
from copl.system.tensors import save_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_tensors(Path(sys.argv[1]), {"users": torch.zeros(100_000)})
except OSError as error:
    print(error.filename, error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} File too large\n"
    assert load_tensors(path, EXPECTED, advice="-")["counts"].tolist() == [1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
