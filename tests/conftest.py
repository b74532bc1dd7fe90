"""Fixtures shared by the tests of the whole pipeline: a small data set and a tiny language model, made once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from copl import cli

settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")

gc.set_threshold(100_000, 50, 100)  # what the libraries of one process leave is looked through a tenth as often

SHARED = Path(__file__).resolve().parents[1] / "../shared"
FETCHED = {
    "polis/bowling-green": "polis/american-assembly.bowling-green",
    "polis/land-bank": "polis/ssis.land-bank-farmland.2rumnecbeh.2021-08-01",
    "polis/taxes": "polis/scoop-hivemind.taxes",
    "polis/austria-climate": "polis-report/austria-climate.5twd2jsnkf.2022-08-08",
    "polis/biodiversity": "polis-report/scoop-hivemind.biodiversity",
    "polis/football-concussions": "polis-report/football-concussions",
    "polis/ubi": "polis-report/scoop-hivemind.ubi",
    "llmfao": "llmfao",
}
"""Data by the name it is fetched by, and where it lies below ../shared/data."""


def pytest_collection_finish() -> None:
    """Leave thousands of collected tests and all imported modules out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the user's cache of stages; backbones, which are checked by checksum, are shared."""
    cache = tmp_path_factory.getbasetemp() / "copl-cache"
    for command in ("train", "evaluate", "demo", "ablate"):
        monkeypatch.setattr(f"copl.commands.{command}.shared_cache", lambda no_cache: None if no_cache else cache)


@pytest.fixture
def run_copl(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `copl` with arguments and gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["copl", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        else:
            code = 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a small data set from the embedded corpus, with every split."""
    from copl.data.dataset import save_dataset
    from copl.plugins import load

    directory = tmp_path_factory.mktemp("data") / "facets"
    options = {"num_seen_users": 40, "num_unseen_users": 10, "num_prompts": 30}
    data = load().registry("source").create("facets", options).load(seed=0)
    save_dataset(data, directory)
    return directory


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """Directory of a random causal language model of a few thousand weights that knows the words of `small_data`."""
    from copl.data.dataset import load_dataset
    from copl.testing.tiny_model import write_tiny_model

    responses = load_dataset(small_data).responses
    texts = [*responses.texts, *responses.prompts]
    return write_tiny_model(tmp_path_factory.mktemp("model"), texts)


@pytest.fixture(scope="session")
def personal_run(small_data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run of `copl` on `small_data`, of few steps on a tiny backbone; nobody may change it."""
    from copl.commands.parts.display import open_progress
    from copl.plugins import load
    from copl.runs.pipeline import train
    from copl.runs.recipe import resolve

    draft = {
        "encoder": {"name": "latent-groups"},
        "backbone": {"name": str(tiny_model)},
        "reward": {"max_steps": 2, "eval_every": 1, "batch_size": 4, "max_length": 64},
    }
    out = tmp_path_factory.mktemp("personal") / "run"
    train(resolve(draft, load()), small_data, out, open_progress=open_progress, cache=None)
    return out


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """Directory of an evaluated run of method ``graph`` on `small_data`; a test that changes it takes a copy."""
    from copl.commands.parts.display import open_progress
    from copl.data.dataset import load_dataset
    from copl.plugins import load
    from copl.runs.pipeline import evaluate, train
    from copl.runs.recipe import resolve
    from copl.runs.reporting import report_run

    draft = {"method": {"name": "graph"}, "encoder": {"name": "gcf", "num_epochs": 10}}
    root = tmp_path_factory.mktemp("runs") / "graph"
    run, method = train(resolve(draft, load()), small_data, root, open_progress=open_progress, cache=None)
    data = load_dataset(small_data)
    evaluate(run, data, plugins=load(), open_progress=open_progress, cache=None, method=method)
    report_run(run, data)
    return root


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, small_data: Path, tiny_model: Path) -> Path:
    """Directory of a run of method `copl` on the tiny model, adapters and gate trained for a few steps; read only."""
    from contextlib import nullcontext

    from copl.plugins import load
    from copl.runs.pipeline import train
    from copl.runs.recipe import resolve
    from copl.system.progress import SilentProgress

    draft = {
        "encoder": {"name": "gcf", "num_epochs": 5},
        "gate": {"name": "topk", "num_experts": 3},
        "backbone": {"name": str(tiny_model)},
        "mixture": {"shared_rank": 2, "expert_rank": 2},
        "reward": {
            "max_steps": 8,
            "eval_every": 4,
            "batch_size": 8,
            "trainable_layers": 1,
            "max_length": 96,
            "warm_start": False,  # so that a step is better than none, and the adapters are not zero
        },
    }
    out = tmp_path_factory.mktemp("runs") / "trained"
    silent = nullcontext(SilentProgress())
    train(resolve(draft, load(), seed=1), small_data, out, open_progress=lambda log: silent, cache=None)
    return out


@pytest.fixture
def shared() -> Path:
    """The folder of real data beside a checkout; a test that needs it is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `downloads` of a checkout, alone in it, with all that can be fetched."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout")
    directory = tmp_path_factory.mktemp("checkout") / "downloads"
    for name, place in FETCHED.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).symlink_to((SHARED / "data" / place).resolve())
    return directory


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Callable[..., Path]:
    """Writes a random classifier with the tokenizer of the tiny model, and returns its directory."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, LlamaConfig
    from transformers import LlamaForSequenceClassification as LlamaClassifier

    def write(kind: str, num_labels: int) -> Path:
        directory = tmp_path_factory.mktemp(kind)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        sizes |= {"vocab_size": len(tokenizer), "num_labels": num_labels, "initializer_range": 0.5}
        torch.manual_seed(0)
        if kind == "bert":
            net: Any = BertForSequenceClassification(BertConfig(**sizes, max_position_embeddings=64))
        else:
            net = LlamaClassifier(LlamaConfig(**sizes, pad_token_id=1, max_position_embeddings=64))
        net.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return directory

    return write
