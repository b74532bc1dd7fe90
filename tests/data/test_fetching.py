"""Fetching of public data, from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from copl.data.fetching import PUBLICATIONS, Publication, fetch, publication
from copl.errors import DataError

CONTENT = {"a.csv": b"x,y\n1,2\n", "b.csv": b"z\n"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Publication]:
    """Two files on a server."""
    served = tmp_path / "served" / "set"
    served.mkdir(parents=True)
    for name, content in CONTENT.items():
        (served / name).write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=served.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield _publication(f"http://127.0.0.1:{server.server_port}/set")
    finally:
        server.shutdown()
        server.server_close()


def _publication(address: str) -> Publication:
    files = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    return Publication("set", "csv", address, "CC0", "nobody", files)


def test_files_are_fetched_once(published: Publication, tmp_path: Path) -> None:
    assert fetch(published, tmp_path / "out") == {"a.csv": "fetched", "b.csv": "fetched"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == CONTENT
    (tmp_path / "out" / "b.csv").unlink()
    assert fetch(published, tmp_path / "out") == {"a.csv": "there already", "b.csv": "fetched"}


def test_files_brought_along_need_no_connection(tmp_path: Path) -> None:
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    assert set(fetch(_publication("http://127.0.0.1:1/set"), tmp_path).values()) == {"there already"}


def test_without_a_connection_every_file_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        fetch(_publication("http://127.0.0.1:1/set"), tmp_path / "out")
    assert [fault.partition(": cannot be fetched")[0] for fault in error.value.faults] == [
        f"http://127.0.0.1:1/set/{name}" for name in CONTENT
    ]
    assert all(f"put it at {tmp_path / 'out' / n} " in f for n, f in zip(CONTENT, error.value.faults, strict=True))
    assert not (tmp_path / "out").exists()


def test_another_file_than_the_published_one_is_refused_and_nothing_written(
    published: Publication, tmp_path: Path
) -> None:
    (tmp_path / "served" / "set" / "b.csv").write_bytes(b"z\nedited\n")
    with pytest.raises(DataError, match=r"set/b\.csv: not the published file"):
        fetch(published, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_was_edited_here_is_not_overwritten(published: Publication, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.csv: not the published file"):
        fetch(published, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == b"mine"
    assert not (tmp_path / "b.csv").exists()


def test_a_missing_file_is_a_fault(published: Publication, tmp_path: Path) -> None:
    (tmp_path / "served" / "set" / "a.csv").unlink()
    with pytest.raises(DataError, match=r"a\.csv: cannot be fetched \(File not found\)"):
        fetch(published, tmp_path / "out")


def test_an_unknown_name_is_answered_with_a_suggestion() -> None:
    with pytest.raises(DataError, match=r"did you mean 'polis/taxes'\?"):
        publication("polis/taxis")


@pytest.mark.parametrize("entry", PUBLICATIONS, ids=lambda entry: entry.name)
def test_the_checksums_are_those_of_the_files_at_that_commit(entry: Publication, downloads: Path) -> None:
    assert set(fetch(entry, downloads / entry.name).values()) == {"there already"}
