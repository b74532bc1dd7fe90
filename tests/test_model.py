"""What `Model` is given is read as rows are: the same user and the same texts, whatever their type and spelling."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from copl import Model
from copl.data.dataset import load_dataset, save_dataset
from copl.data.reading.rows import parse_rows
from copl.data.reading.table import table_of_objects
from copl.data.sources.tables import RowOptions, data_of_rows
from copl.errors import DataError, RunError
from copl.interfaces import Progress
from copl.model import UnknownUserWarning
from copl.plugins import load
from copl.records import AdaptedUsers
from copl.runs.pipeline import train
from copl.runs.recipe import resolve
from copl.system.progress import RunLog, SilentProgress

PROMPT, TEXTS = "Café?", ["Oui.", "Non."]


@contextmanager
def silent(log: Path | None) -> Iterator[Progress]:
    yield SilentProgress(RunLog(log))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A graph of users 1 to 6, known by numbers; the even ones say yes."""
    rows = [
        {"user_id": user, "prompt": PROMPT, "chosen": TEXTS[user % 2], "rejected": TEXTS[1 - user % 2], "split": split}
        for user in range(1, 7)
        for split in ("train", "test")
    ]
    directory = tmp_path_factory.mktemp("model")
    table = table_of_objects("rows", rows, list(range(len(rows))), "row")
    save_dataset(
        data_of_rows(parse_rows(table), RowOptions(duplicates="keep"), source="rows", name="r", seed=0), directory / "d"
    )
    recipe = resolve({"method": {"name": "graph"}, "encoder": {"name": "mf", "num_steps": 30}}, load())
    train(recipe, directory / "d", directory / "run", open_progress=silent, cache=None)
    return Model.open(directory / "run")


@pytest.mark.parametrize("user", [2, np.int64(2), np.uint8(2), " 2", "2\u00a0"])
def test_a_number_is_the_user_whose_rows_have_its_digits(model: Model, user: Any) -> None:
    assert model.score(user, PROMPT, TEXTS) == model.score("2", PROMPT, TEXTS)
    yes, no = model.score(user, PROMPT, TEXTS)
    assert yes > no
    followed = model.online(user)
    assert followed.user_id == "2"
    assert followed.adapted.how == model.online("2").adapted.how
    row = {"user_id": user, "prompt": PROMPT, "chosen": TEXTS[1], "rejected": TEXTS[0]}
    assert followed.add_rows([row]).user_ids == ("2",)
    question = model.next_question(user, [(PROMPT, *TEXTS)])
    assert question.information == model.next_question("2", [(PROMPT, *TEXTS)]).information


MESSAGE = {"role": "user", "content": "Café?\n"}


@pytest.mark.parametrize("prompt", [" Café? ", "Cafe\u0301?\r\n", [MESSAGE], (MESSAGE,)])
def test_the_same_input_has_the_same_score(model: Model, prompt: Any) -> None:
    spelt = ["Oui.\u200b", "\u00a0Non."]
    assert model.score("1", prompt, spelt) == model.score("1", PROMPT, TEXTS)
    assert model.score("1", prompt, [*spelt, "Why not?"])[2] == model.score("1", PROMPT, ["Why not?"])[0]


def test_a_user_nothing_is_known_of_is_said_to_be_one(model: Model) -> None:
    with pytest.warns(
        UnknownUserWarning, match="user 'nobody' is neither trained nor adapted: these are the scores of"
    ):
        model.score("nobody", PROMPT, TEXTS)
    adapted = model.adapt([{"user_id": 77, "prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1]}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score(77, PROMPT, TEXTS, adapted=adapted)
    silent = attrs.evolve(adapted, confidence=np.zeros(1))
    with pytest.warns(UnknownUserWarning, match="user '77' has said nothing that tells: these are the scores of"):
        model.score(77, PROMPT, TEXTS, adapted=silent)


def test_one_text_is_no_list_of_responses(model: Model) -> None:
    with pytest.raises(DataError, match="one text where a list of texts belongs"):
        model.score("1", PROMPT, "Hot pan.")


@pytest.mark.parametrize("user", [None, 1.0, True, ["1"]])
def test_what_is_no_id_is_refused_everywhere(model: Model, user: Any) -> None:
    for call in (
        lambda: model.score(user, PROMPT, TEXTS),
        lambda: model.online(user),
        lambda: model.next_question(user, [(PROMPT, *TEXTS)]),
        lambda: model.export(user, Path("never-written")),
    ):
        with pytest.raises(DataError, match="user: expected text or a whole number, got"):
            call()


def test_keys_of_rows_that_are_not_read_are_warned_of(model: Model) -> None:
    row = {"user_id": "n", "prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1], "wieght": 3}
    with pytest.warns(UserWarning, match=r"Column 'wieght' .* was not read \(did you mean 'weight'\?\)"):
        model.adapt([row])


def test_rewards_that_are_no_numbers_are_refused(small_run: Path) -> None:
    model = Model.open(small_run)
    nowhere = model.method.space.trained.users[:1] * float("nan")  # type: ignore[attr-defined]
    users = AdaptedUsers(("u",), nowhere, ("",), np.zeros(1), np.ones(1))
    known = load_dataset(model.run.data_directory).responses
    with pytest.raises(RunError, match="no finite numbers"):
        model.score("u", known.prompts[0], list(known.texts[:1]), adapted=users)
