"""The reward function that trainers call: for text and for messages, any batch, any thread, and by TRL itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl import Model
from copl.align.policies import extra
from copl.errors import CoplError, DataError, UnknownUserWarning

PROMPTS = ["Tea?", "Tea?", "How do I boil an egg?", "How do I boil an egg?"]
TEXTS = ["Coffee then.", "A good walk.", "Place the egg in cold water.", "Why?"]


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return Model.open(trained_run)


@pytest.fixture(scope="module")
def users(model: Model) -> list[str]:
    return list(model.method.seen_users())[:2]


def as_messages(texts: Sequence[str], role: str) -> list[list[dict[str, str]]]:
    return [[{"role": role, "content": text}] for text in texts]


def test_a_completion_gets_the_score_of_its_user(model: Model, users: list[str]) -> None:
    reward = model.reward_function()
    ids = [users[0], users[1], users[0], users[1]]
    found = reward(prompts=PROMPTS, completions=TEXTS, user_id=ids, completion_ids=[[1]] * 4, trainer_state=None)
    rows = zip(ids, PROMPTS, TEXTS, strict=True)
    assert found == pytest.approx([model.score(user, prompt, [text])[0] for user, prompt, text in rows], abs=1e-6)
    assert all(type(value) is float for value in found)
    conversational = reward(
        prompts=as_messages(PROMPTS, "user"), completions=as_messages(TEXTS, "assistant"), user_id=ids
    )
    assert conversational == found
    scaled = model.reward_function(calibrated=True)(prompts=PROMPTS, completions=TEXTS, user_id=ids)
    assert scaled == pytest.approx(
        [model.score(u, p, [t], calibrated=True)[0] for u, p, t in zip(ids, PROMPTS, TEXTS, strict=True)], abs=1e-6
    )


def test_batches_and_threads_change_nothing(trained_run: Path, users: list[str]) -> None:
    reward = Model.open(trained_run).reward_function(user=users[0])
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(reward, prompts=[p], completions=[t]) for p, t in zip(PROMPTS, TEXTS, strict=True)]
        alone = [call.result()[0] for call in calls]
    together = Model.open(trained_run).reward_function(user=users[0])(prompts=PROMPTS[::-1], completions=TEXTS[::-1])
    assert together[::-1] == pytest.approx(alone, abs=1e-6)


def test_unknown_users_get_the_average_and_are_told_of_once(model: Model, users: list[str]) -> None:
    reward = model.reward_function()
    with pytest.warns(UnknownUserWarning, match="'nobody', '' is neither") as caught:
        first = reward(prompts=PROMPTS[:3], completions=TEXTS[:1] * 3, user_id=["nobody", None, users[0]])
    assert len(caught) == 1
    assert first[0] == first[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reward(prompts=PROMPTS[:1], completions=TEXTS[:1], user_id=["another"])
    adapted = model.adapt([{"user_id": 7, "prompt": "Tea?", "chosen": TEXTS[0], "rejected": TEXTS[1]}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.reward_function(adapted=adapted)(prompts=PROMPTS[:1], completions=TEXTS[:1], user_id=7)
        model.reward_function(adapted=adapted)(prompts=PROMPTS[:1], completions=TEXTS[:1], user_id=np.int64(7))


@pytest.mark.parametrize("text", ["", "   ", "\x00", "\ud800", "\u200b", "x" * 5000, "e\u0301", "<|im_end|>"])
def test_whatever_a_policy_writes_has_a_reward(model: Model, users: list[str], text: str) -> None:
    reward = model.reward_function(user=users[0], calibrated=True)
    [plain] = reward(prompts=["Tea?"], completions=[text])
    [message] = reward(prompts=["Tea?"], completions=as_messages([text], "assistant"))
    assert plain == message
    assert abs(plain) < 1e6


def test_messages_before_the_last_belong_to_the_prompt(model: Model, users: list[str]) -> None:
    reward = model.reward_function(user=users[0])
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "kettle"}]}
    told, last = (
        {"role": "tool", "content": "hot"},
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": "Tea."}],
        },
    )
    found = reward(prompts=["Tea?"], completions=[[call, told, last]])
    prompt = [{"role": "user", "content": "Tea?"}, told]
    assert found == pytest.approx(model.score(users[0], prompt, ["Tea."]), abs=1e-6)


def test_a_completion_is_worth_what_its_answer_is_whatever_was_thought_before(model: Model, users: list[str]) -> None:
    reward = model.reward_function(user=users[0])
    answer, silent = reward(prompts=["Tea?"] * 2, completions=["Coffee then.", ""])
    thought = "<think>Tea? Hm.</think>\nCoffee then."
    asked = as_messages(["Tea?"] * 3, "user")
    written = [thought, "Tea? Hm.\n</think>\n\nCoffee then.", "<think>Tea? Hm"]
    expected = pytest.approx([answer, answer, silent], abs=1e-6)
    assert reward(prompts=asked, completions=as_messages(written, "assistant")) == expected
    assert reward(prompts=["Tea?"] * 3, completions=written) == expected
    opened = reward(prompts=["Tea? <think>\n"] * 2, completions=["Hm</think>Coffee then.", "Hm"])
    assert opened == pytest.approx([answer, silent], abs=1e-6)
    said_before = [{"role": "assistant", "content": thought}, {"role": "user", "content": "No."}]
    plain = [{"role": "assistant", "content": "Coffee then."}, said_before[1]]
    found = [reward(prompts=[[*asked[0], *turns]], completions=["Tea."]) for turns in (said_before, plain)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"prompts": [[{"role": "user", "content": [{"type": "image"}]}]], "completions": ["c"], "user_id": ["a"]},
            "completion 1: a part of type 'image', but rewards are of text",
        ),
        ({"prompts": ["p"], "completions": ["c", "d"], "user_id": ["a"]}, "1 prompts but 2 completions"),
        ({"prompts": ["p"], "completions": ["c"]}, "no column 'user_id'"),
        ({"prompts": ["p"], "completions": ["c"], "user_id": ["a", "b"]}, "2 values for 1 completions"),
        ({"prompts": ["p"], "completions": ["c"], "user_id": [1.5]}, "user_id of completion 1: expected text"),
        ({"prompts": ["p"], "completions": [3], "user_id": ["a"]}, "completion 1: expected text or chat messages"),
        ({"prompts": [[]], "completions": ["c"], "user_id": ["a"]}, "completion 1: expected text or chat messages"),
        (
            {"prompts": [" "], "completions": [""], "user_id": ["a"]},
            "completion 1: neither its prompt nor the completion",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(model: Model, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        model.reward_function()(**arguments)


def test_nothing_written_is_nothing_earned(model: Model) -> None:
    assert model.reward_function()(prompts=[], completions=[], user_id=[]) == []


def test_the_extra_is_named_where_trl_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(CoplError, match=r"pip install 'copl\[align\]'"):
        extra.trl()


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
@pytest.mark.filterwarnings("ignore")  # of other packages
def test_trl_trains_a_step_with_it(kind: str, model: Model, users: list[str], tiny_model: Path, tmp_path: Path) -> None:
    trl = extra.trl()
    datasets = pytest.importorskip("datasets")
    seen: list[dict[str, Any]] = []
    reward = model.reward_function(calibrated=True)

    def listening(**arguments: Any) -> list[float]:
        seen.append(arguments)
        return reward(**arguments)

    listening.__name__ = reward.__name__
    options = {
        "output_dir": str(tmp_path),
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 5,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    rows = datasets.Dataset.from_list([{"prompt": "Tea?", "user_id": user} for user in users])
    trainer = getattr(trl, f"{kind}Trainer")(
        model=str(tiny_model), reward_funcs=listening, args=getattr(trl, f"{kind}Config")(**options), train_dataset=rows
    )
    trainer.train()
    [call] = seen
    assert sorted(call["user_id"]) == sorted(users * 2)
    expected = model.reward_function(calibrated=True)(
        prompts=call["prompts"], completions=call["completions"], user_id=call["user_id"]
    )
    logged = next(record for record in trainer.state.log_history if "reward" in record)
    assert logged["reward"] == pytest.approx(sum(expected) / 4, abs=1e-5)
    assert "rewards/personal_reward/mean" in logged


@pytest.mark.filterwarnings("ignore")  # of other packages
def test_online_dpo_trains_a_step_with_it(model: Model, users: list[str], tiny_model: Path, tmp_path: Path) -> None:
    extra.trl()
    datasets = pytest.importorskip("datasets")
    online_dpo = pytest.importorskip("trl.experimental.online_dpo")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked: list[list[str]] = []
    reward = model.reward_function(calibrated=True)

    def listening(**arguments: Any) -> list[float]:
        asked.append(arguments["user_id"])
        return reward(**arguments)

    options = online_dpo.OnlineDPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        max_new_tokens=5,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = online_dpo.OnlineDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        reward_funcs=listening,
        args=options,
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        train_dataset=datasets.Dataset.from_list([{"prompt": "Tea?", "user_id": user} for user in users]),
    )
    trainer.train()
    [ids] = asked
    assert sorted(ids) == sorted(users * 2)
    assert ids[:2] == ids[2:]  # two completions a prompt
