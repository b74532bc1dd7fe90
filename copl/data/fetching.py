"""Public data that is not shipped: fetched from where its authors publish it, at one commit, checked by checksum.

A file that lies there already is checked and not fetched again, so files brought along from another machine do as well.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import final

from attrs import frozen

from copl.errors import DataError, suggest
from copl.system.files import sha256, write_atomically

DOWNLOADS = Path("downloads")
"""Where fetched data goes unless told otherwise, below it by name."""

_SECONDS = 60
_POLIS = (
    "https://raw.githubusercontent.com/compdemocracy/openData/0bc2ce0f32c673f68da20b57bce15c457aa787b5",
    "CC BY 4.0",
    "Data was gathered using the Polis software (compdemocracy.org/polis) and is sub-licensed under CC BY 4.0 with "
    "Attribution to The Computational Democracy Project",
)


@final
@frozen
class Publication:
    """Files that somebody publishes.

    Attributes:
        name: what `copl` calls them.
        source: the source that reads them, with ``path`` naming their directory.
        address: URL that the names of the files are appended to.
        licence: their licence, as published.
        attribution: whom the licence asks to name.
        files: SHA-256 of each file by its name.
    """

    name: str
    source: str
    address: str
    licence: str
    attribution: str
    files: Mapping[str, str]


def _polis(name: str, directory: str, comments: str, votes: str, summary: str) -> Publication:
    address, licence, attribution = _POLIS
    files = {"comments.csv": comments, "participants-votes.csv": votes, "summary.csv": summary}
    return Publication(f"polis/{name}", "polis", f"{address}/{directory}", licence, attribution, files)


PUBLICATIONS = (
    _polis(
        "bowling-green",
        "american-assembly.bowling-green",
        "b5d72fbb1b15d66c624da51849aef3d5691358b6ec646035b9ca41c6b9f936f0",
        "63c6e30c36d9f5338516f3a0c77b08e3518c20b707b321e26c54cd6218a2ab4d",
        "35cd93ea32bdc0926351ca093de981ef1af9043fc563d837ef082d509cb89141",
    ),
    _polis(
        "land-bank",
        "ssis.land-bank-farmland.2rumnecbeh.2021-08-01",
        "32999cfd0d28b4de2d14af463b9554a3c5d5e29453b93a5d45e7f92a034525ca",
        "53dee2b88eecad44b02539b651430c2eb8930e6a566bca0b6edb5bab7f78edbb",
        "a606972c8089c758ddc8915999eef1a8f77b87d1c3251296b49cc14bf22f27c7",
    ),
    _polis(
        "taxes",
        "scoop-hivemind.taxes",
        "cf53851ef9475bae8e8f493da7ef167feac69c893e6b730a14c1b8e3465dd4c5",
        "2922308b181957bf63f8bf619973e93709d72c2dd41ac14370cca5632f2d5ea8",
        "d093104dc6080fa43ebbc9e1156ec6367d70f54b2e4041fced795ced651d2da3",
    ),
    _polis(
        "austria-climate",
        "austria-climate.5twd2jsnkf.2022-08-08",
        "77f014d129c289b462e64f13fa42332b374832902b7b1943d85371b76628583a",
        "61b399ee97abab45a016a31cce39b7925d95563e217e9d66b10f50b92a061f9b",
        "b0a08672041a971991a85a5d1074b0bdb0798d9736d2132cd380e0439b777d7d",
    ),
    _polis(
        "biodiversity",
        "scoop-hivemind.biodiversity",
        "de84b8c9d9b4b70d4929ee0603aa242ba60f53cc456dbf03a62719f1abc16165",
        "58aaff458ef8dc5679e683e990c8aab3c56bcca82a7929b06b1559d4a04f29e0",
        "d4200eed905ad960a254a894923fd1753e1ca61145084356697957795585f2a5",
    ),
    _polis(
        "football-concussions",
        "football-concussions",
        "80e4e937e6a308263bdf57eb608b3f6c9c3d1a936819dd554d9d647f63ced291",
        "45da638eabff37cd8b45c32fbb81eb02c69b273f4f0bfada7ce0c43e884df38f",
        "d61aaf54a79d4572e18a1e40c258366752167b1a83a8df4b762ce20dbb65b71d",
    ),
    _polis(
        "ubi",
        "scoop-hivemind.ubi",
        "f47dcf4fde68bd9da3fdff0981e62b6ec5d2673e8e82144fefd4c82ce8953a8e",
        "040ede14de517774974f37738b7043cb339cab498b8b11a0be6f2e81ff1be51b",
        "8a17c635bc6685625ba8e59fc14eb5abf15e51dc33b040eef42bae05a17fe313",
    ),
    Publication(
        "llmfao",
        "llmfao",
        "https://raw.githubusercontent.com/dustalov/llmfao/9e224e94a40129fd6e1e1529b962307e84af40da",
        "CC BY 4.0",
        "LLMFAO by Dmitry Ustalov, github.com/dustalov/llmfao",
        {
            "crowd-comparisons.csv": "106564a4bf06f047a4662979384313c22d9b4ca901e780f9e8419f8e5581adb1",
            "models.jsonl": "a94ddd33e2034f87505b548c4ff6bea81513efe6888f24960c958546b6279669",
            "prompts.jsonl": "917d233b18976244edf967be9d252ff344c024d9d4ed07780f12190becc3e9fc",
            "results.jsonl": "a0336dfc740d2e513bf111911681f5eb214f41b1e6426cec76791f576df42df2",
        },
    ),
)


def publication(name: str, known: Iterable[Publication] = PUBLICATIONS) -> Publication:
    """Return the publication of that name.

    Raises:
        DataError: there is none.
    """
    by_name = {entry.name: entry for entry in known}
    if name not in by_name:
        raise DataError(f"{name}: no data of that name{suggest(name, by_name)}; there are {', '.join(by_name)}")
    return by_name[name]


def fetch(published: Publication, directory: Path) -> dict[str, str]:
    """Bring all files of a publication to a directory.

    Args:
        published: the files.
        directory: where they go; made where missing.

    Returns:
        for each file ``fetched``, or ``there already``.

    Raises:
        DataError: one fault for each file that cannot be had or is another than the published one. Nothing has been
            written then.
    """
    states: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    faults: list[str] = []
    for name, checksum in published.files.items():
        path = directory / name
        try:
            if path.exists():
                states[name] = "there already"
                _compare(str(path), sha256(path), checksum)
            else:
                states[name] = "fetched"
                contents[name] = _download(f"{published.address}/{name}", path)
                _compare(f"{published.address}/{name}", hashlib.sha256(contents[name]).hexdigest(), checksum)
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    for name, content in contents.items():
        write_atomically(directory / name, partial(Path.write_bytes, data=content))
    return states


def advice(path: Path) -> str:
    """Return how to get what is missing at a path, or nothing where it cannot be fetched.

    >>> advice(Path("../downloads/polis/taxes"))
    '; get it by: copl data fetch polis/taxes --out ../downloads/polis/taxes'
    >>> advice(Path("votes"))
    ''
    """
    for entry in PUBLICATIONS:
        if path.as_posix().endswith((DOWNLOADS / entry.name).as_posix()):
            return f"; get it by: copl data fetch {entry.name} --out {path}"
    return ""


def _download(url: str, path: Path) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            content: bytes = answer.read()
    except OSError as error:  # no connection, no such address, an answer other than the file
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(
            f"{url}: cannot be fetched ({reason}); without a connection, fetch it elsewhere, put it at {path} and run "
            "the same command again, which then only checks it"
        ) from error
    return content


def _compare(where: str, checksum: str, expected: str) -> None:
    if checksum != expected:
        raise DataError(
            f"{where}: not the published file (SHA-256 {checksum[:12]}…, published {expected[:12]}…); it was cut short "
            "or edited: remove it and fetch it again"
        )
