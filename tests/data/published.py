"""Small made-up copies of published data sets, in the row schemas they are published in.

No text is taken from anywhere; what is like the originals is the names and types of columns, and the files.
"""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
SMALL_USERS = {"num_users": 8, "num_unseen_users": 4, "num_heldout": 3}
"""Options by which the sources that simulate users get by on so few pairs."""


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines, gzipped where the name ends in ``.gz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def completion(text: str, ratings: Sequence[int | str]) -> Row:
    """A completion of UltraFeedback with its ratings in the order of `ASPECTS`."""
    annotations = {
        aspect: {"Rating": str(rating), "Rationale": "as annotated"}
        for aspect, rating in zip(ASPECTS, ratings, strict=True)
    }
    return {"model": "m", "response": text, "annotations": annotations, "critique": "good", "overall_score": 5.0}


def ultrafeedback_rows(
    pairs: Sequence[tuple[str, str, Sequence[int | str], str, Sequence[int | str]]],
) -> tuple[list[Row], list[Row]]:
    """Rows of UltraFeedback and of its binarised version for pairs: prompt, text and ratings of either side."""
    rated, binarised = [], []
    for prompt, chosen, first, rejected, second in pairs:
        completions = [completion("another answer", [3, 3, 3, 3]), completion(chosen, first)]
        completions.append(completion(rejected, second))
        rated.append({"source": "s", "instruction": prompt, "models": ["m"], "completions": completions})
        question = {"role": "user", "content": prompt}
        sides = {
            name: [question, {"role": "assistant", "content": text}]
            for name, text in (("chosen", chosen), ("rejected", rejected))
        }
        binarised.append({"source": "s", "prompt": prompt, **sides, "chosen-rating": 4.0, "rejected-rating": 3.0})
    return rated, binarised


def _ultrafeedback(directory: Path) -> Row:
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(120):
        first, second = rng.integers(1, 6, size=(2, len(ASPECTS))).tolist()
        pairs.append((f"Question {number}?", f"One answer to {number}.", first, f"The other to {number}.", second))
    rated, binarised = ultrafeedback_rows(pairs)
    return {
        "path": str(write_lines(directory / "ultrafeedback.jsonl", rated)),
        "binarized": str(write_parquet(directory / "binarized.parquet", binarised)),
        **SMALL_USERS,
    }


def tldr_row(
    post: str, first: str, second: str, worker: str = "w", policies: tuple[str, str] = ("sup1", "sup2")
) -> Row:
    """A comparison of two summaries."""
    summaries = [{"text": t, "policy": p, "note": None} for t, p in zip((first, second), policies, strict=True)]
    info = {"id": "t3", "post": post, "title": "t", "subreddit": "s", "site": None, "article": None}
    return {"info": info, "summaries": summaries, "choice": 1, "worker": worker, "batch": "b", "split": "train"}


def _tldr(directory: Path) -> Row:
    for split, numbers in (("train", range(40)), ("validation", range(40, 60))):
        rows = [
            tldr_row(f"A post about {n}.", f"About {n}.", f"It is about {n}, at length." + "!" * (n % 3), f"w{n % 4}")
            for n in numbers
        ]
        write_parquet(directory / "comparisons" / f"{split}-00000-of-00001.parquet", rows)
    return {"path": str(directory), **SMALL_USERS}


def _personalllm(directory: Path) -> Row:
    rng = np.random.default_rng(0)
    models = ("gemma_7b", "mistral_weqweasdas", "llama3_sfairx", "oasst_deberta_v3", "beaver_7b")
    for split, numbers in (("train", range(30)), ("test", range(30, 40))):
        rows = []
        for n in numbers:
            row: Row = {"prompt": f"Question {n}?", "subset": "s"}
            for k in range(1, 9):
                row |= {f"response_{k}": f"Answer {k} to {n}.", f"response_{k}_model": "m"}
                row |= {
                    f"response_{k}_{model}": float(score)
                    for model, score in zip(models, rng.normal(size=5), strict=True)
                }
            rows.append(row)
        write_parquet(directory / "data" / f"{split}-00000-of-00001.parquet", rows)
    return {"path": str(directory), "num_context": 8, **SMALL_USERS}


def utterance(user: str, conversation: str, turn: int, prompt: str, text: str, score: int, chosen: bool) -> Row:
    """One answer of PRISM."""
    return {
        "utterance_id": "ut", "interaction_id": "int", "conversation_id": conversation, "user_id": user, "turn": turn,
        "within_turn_id": 0, "conversation_type": "unguided", "user_prompt": prompt, "model_response": text,
        "model_name": "m", "model_provider": "p", "score": score, "if_chosen": chosen,
    }  # fmt: skip


def _prism(directory: Path) -> Row:
    rows = [
        utterance(f"user{u}", f"c{u}-{c}", 0, f"Question {c} of {u}?", f"Answer {k}, {c} to {u}.", 90 - 20 * k, k == 0)
        for u in range(8)
        for c in range(6)
        for k in range(3)
    ]
    write_lines(directory / "utterances.jsonl", rows)
    write_lines(directory / "survey.jsonl", [{"user_id": f"user{u}", "age": "18-24 years old"} for u in range(8)])
    return {"path": str(directory)}


def _hh_rlhf(directory: Path) -> Row:
    for group in ("helpful", "harmless"):
        for split, numbers in (("train", range(60)), ("test", range(60, 70))):
            rows = [
                {
                    "chosen": f"\n\nHuman: A {group} question {n}?\n\nAssistant: A good answer to {n}.",
                    "rejected": f"\n\nHuman: A {group} question {n}?\n\nAssistant: A bad one to {n}.",
                }
                for n in numbers
            ]
            write_lines(directory / f"{group}-base" / f"{split}.jsonl.gz", rows)
    return {"path": str(directory), "comparisons_per_user": 10}


def arena_row(judge: str, prompt: str, first: str, second: str, winner: str, language: str = "English") -> Row:
    """A conversation of one turn of Chatbot Arena."""
    sides = {
        side: [{"content": prompt, "role": "user"}, {"content": text, "role": "assistant"}]
        for side, text in (("conversation_a", first), ("conversation_b", second))
    }
    return {
        "question_id": "q", "model_a": "a", "model_b": "b", "winner": winner, "judge": judge, **sides, "turn": 1,
        "anony": True, "language": language, "tstamp": 1.0,
    }  # fmt: skip


def _chatbot_arena(directory: Path) -> Row:
    winners = ("model_a", "model_b", "tie", "model_a", "model_b", "tie (bothbad)")
    rows = [
        arena_row(f"arena_user_{n % 7}", f"Question {n}?", f"Answer a to {n}.", f"Answer b to {n}.", winners[n % 6])
        for n in range(120)
    ]
    write_parquet(directory / "data" / "train-00000-of-00001.parquet", rows)
    return {"path": str(directory)}


def _trl(directory: Path) -> Row:
    rows = []
    for n in range(80):
        prompt = [{"role": "user", "content": f"Question {n}?"}]
        sides = {
            side: [*prompt, {"role": "assistant", "content": f"A {side} answer to {n}."}]
            for side in ("chosen", "rejected")
        }
        rows.append({"annotator": f"a{n % 6}", **sides})
    return {"path": str(write_lines(directory / "train.jsonl", rows)), "user": "annotator"}


def _opinions(directory: Path, column: str, values: Callable[[int, int], float]) -> Row:
    rows = [
        {"user_id": f"u{user}", "response": f"Statement {n}.", column: values(user, n)}
        for user in range(10)
        for n in range(30)
    ]
    return {"path": str(write_lines(directory / f"{column}s.jsonl", rows))}


def _ratings(directory: Path) -> Row:
    return _opinions(directory, "rating", lambda user, n: (user * n) % 5 + 1)


def _votes(directory: Path) -> Row:
    return _opinions(directory, "vote", lambda user, n: (user + n) % 3 - 1)


def reference_pair(num_users: int = 6, num_texts: int = 12) -> tuple[dict[int, Row], list[Row]]:
    """Responses and users as the published CoPL code pickles them, NumPy's text and arrays among them."""
    total: dict[int, Row] = {}
    for n in range(num_texts):
        text = f"Human: Question {n // 2}?\n\nAssistant: Answer {n % 2}."
        scores = np.array([0.5, n])
        total[n] = {"ids": [1, 2], "mask": [1, 1], "full_text": text, "controversial": True, "score": scores}
    pairs = [(n, n + 1) for n in range(0, num_texts, 2)]
    users = [
        {
            "user_type": np.str_("84"[user % 2]),
            "user": user,
            "context": pairs[: len(pairs) // 2],
            "context_unseen": pairs[len(pairs) // 2 : -2],
            "target": pairs[-2:],
        }
        for user in range(num_users)
    ]
    return total, users


def _reference_pickle(directory: Path) -> Row:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "UF-P-2-6-ALL.pkl"
    path.write_bytes(pickle.dumps(reference_pair()))
    return {"path": str(path)}


_WRITERS: Mapping[str, Callable[[Path], Row]] = {
    "ultrafeedback-p": _ultrafeedback,
    "tldr": _tldr,
    "personalllm": _personalllm,
    "prism": _prism,
    "hh-rlhf": _hh_rlhf,
    "chatbot-arena": _chatbot_arena,
    "trl": _trl,
    "ratings": _ratings,
    "votes": _votes,
    "reference-pickle": _reference_pickle,
}

PUBLISHED = tuple(_WRITERS)
"""Sources of which `write_copy` writes a small copy."""


def write_copy(source: str, directory: Path) -> Row:
    """Write a small copy of a data set and return the options by which its source reads it.

    Args:
        source: one of `PUBLISHED`.
        directory: where to write it.
    """
    return _WRITERS[source](directory)
