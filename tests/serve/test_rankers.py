"""Rerankers' and trainers' dialects with their clients: Cohere's, vLLM's shapes, OpenRLHF's, a function for TRL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cohere
import numpy as np
import pytest

from copl import Model
from copl.errors import UnknownUserWarning
from tests.serve.running import Running

PROMPT, TEXTS = "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water. Then wait.", "Ask a cook!"]


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return Model.open(run)


@pytest.fixture(scope="module")
def user(model: Model) -> str:
    return sorted(model.method.seen_users())[1]


@pytest.fixture(scope="module")
def expected(model: Model, user: str) -> list[float]:
    return model.score(user, PROMPT, TEXTS)


def test_cohere_reranks_with_its_own_client(shared_service: Running, user: str, expected: list[float]) -> None:
    header = {shared_service.service.options.user_header: user}
    order = sorted(range(3), key=lambda place: -expected[place])
    chances = [1 / (1 + math.exp(-expected[place])) for place in order[:2]]
    asked: dict[str, Any] = {"model": "rerank-v3.5", "query": PROMPT, "documents": TEXTS, "top_n": 2}
    for kind in (cohere.Client, cohere.ClientV2):
        with kind(api_key="none", base_url=shared_service.url) as client:
            answer = client.rerank(**asked, request_options={"additional_headers": header})
        assert [result.index for result in answer.results] == order[:2]
        assert [result.relevance_score for result in answer.results] == pytest.approx(chances, abs=1e-5)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_as_jina_and_vllm_have_it(shared_service: Running, user: str, expected: list[float], path: str) -> None:
    body = {"model": "m", "query": PROMPT, "documents": [{"text": text} for text in TEXTS], "user": user}
    answer = shared_service.http.post(path, json={**body, "raw_scores": True}).json()
    assert {result["index"]: result["relevance_score"] for result in answer["results"]} == pytest.approx(
        dict(enumerate(expected)), abs=1e-5
    )
    assert all(result["document"]["text"] == TEXTS[result["index"]] for result in answer["results"])
    assert answer["id"]
    assert answer["usage"]["total_tokens"] > 0
    bare = shared_service.http.post(path, json={**body, "return_documents": False}).json()
    assert all(result["document"] is None for result in bare["results"])


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")])
def test_score_as_vllm_has_it(
    shared_service: Running, user: str, expected: list[float], names: tuple[str, str]
) -> None:
    first, second = names
    for path, prompts in (("/score", PROMPT), ("/v1/score", [PROMPT] * 3)):
        answer = shared_service.http.post(path, json={"model": "m", first: prompts, second: TEXTS, "user": user}).json()
        assert (answer["object"], [one["index"] for one in answer["data"]]) == ("list", [0, 1, 2])
        assert [one["score"] for one in answer["data"]] == pytest.approx(expected, abs=1e-5)


def test_openrlhf_gets_rewards_by_label_or_by_address(
    shared_service: Running, user: str, expected: list[float]
) -> None:
    template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    plain = {"query": [PROMPT + text + "</s>" for text in TEXTS], "prompts": [PROMPT] * 3}
    for path, labels in (
        ("/v1/openrlhf", [user] * 3),
        ("/v1/openrlhf", [{"user_id": user}] * 3),
        ("/v1/openrlhf", [f'{{"user_id": "{user}"}}'] * 3),
        (f"/v1/users/{user}/openrlhf", [None] * 3),
    ):
        answer = shared_service.http.post(path, json={**plain, "labels": labels}).json()
        assert answer["rewards"] == pytest.approx(expected, abs=1e-5)
        assert answer["scores"] == pytest.approx([1 / (1 + math.exp(-reward)) for reward in expected], abs=1e-5)
        assert answer["extra_logs"] == {}
    prompt = template.format(PROMPT)
    one = {"query": [prompt + TEXTS[0] + "<|im_end|>"], "prompts": [prompt], "labels": [user]}
    assert shared_service.http.post("/v1/openrlhf", json=one).status_code == 200
    long = f"There is one pan, and no clock. {PROMPT}"  # too long for the trainer, which cuts its beginning off
    whole, cut = ({"query": [(long + TEXTS[0])[start:]], "prompts": [long], "labels": [user]} for start in (0, 9))
    given = [shared_service.http.post("/v1/openrlhf", json=one).json()["rewards"] for one in (whole, cut)]
    assert given[0] == pytest.approx(given[1], abs=1e-5)
    wrong = {"query": ["something else"], "prompts": [PROMPT], "labels": [user]}
    assert shared_service.http.post("/v1/openrlhf", json=wrong).status_code == 422


def test_trl_gets_rewards_by_a_function_with_a_column_of_users(
    shared_service: Running, user: str, expected: list[float], model: Model
) -> None:
    from copl.serve.remote import RemoteReward

    reward = RemoteReward(shared_service.url, batch=2)
    users = [user, None, user]
    more: dict[str, Any] = {"completion_ids": [[1]] * 3, "trainer_state": None}
    with pytest.warns(UnknownUserWarning, match="user '' is neither trained nor adapted") as caught:
        got = reward(prompts=[PROMPT] * 3, completions=TEXTS, user_id=users, **more)
    assert len(caught) == 1
    assert [got[0], got[2]] == pytest.approx([expected[0], expected[2]], abs=1e-5)
    messages = [[{"role": "user", "content": PROMPT}]] * 3
    answers = [[{"role": "assistant", "content": text}] for text in TEXTS]
    assert reward(prompts=messages, completions=answers, user_id=users) == pytest.approx(got, abs=1e-5)
    assert reward.__name__ == "copl"


def test_over_http_whatever_a_policy_writes_has_the_reward_that_it_has_here(
    shared_service: Running, user: str, model: Model
) -> None:
    from copl.serve.remote import RemoteReward

    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "kettle"}]}
    told = [call, {"role": "tool", "content": "hot\x00"}, {"role": "assistant", "content": [{"text": "Tea."}]}]
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": PROMPT}]
    batch: dict[str, Any] = {
        "prompts": [PROMPT, PROMPT, f" {PROMPT}\r\n", "", messages, PROMPT, messages],
        "completions": ["", " \u200b", "a\x00b\ud800", "No.", [call], told, TEXTS[0]],
    }
    expected = model.reward_function(user=user)(**batch)
    assert len({*expected}) > 3
    reward = RemoteReward(shared_service.url, batch=3)
    assert reward(**batch, user_id=[user] * 7) == pytest.approx(expected, abs=1e-5)
    assert RemoteReward(shared_service.url, user=user)(**batch) == pytest.approx(expected, abs=1e-5)
    plain = {name: [one for place, one in enumerate(column) if place != 2] for name, column in batch.items()}
    answer = shared_service.http.post("/v1/rewards", json={**plain, "user": user})  # by another client than ours
    assert answer.json()["rewards"] == pytest.approx(expected[:2] + expected[3:], abs=1e-5)
    empty = {"query": [PROMPT + "</s>"], "prompts": [PROMPT], "labels": [user]}
    answer = shared_service.http.post("/v1/openrlhf", json=empty)
    assert answer.json()["rewards"] == pytest.approx(expected[:1], abs=1e-5)
    with pytest.warns(UnknownUserWarning):
        numbered = model.reward_function()(prompts=[PROMPT], completions=TEXTS[:1], user_id=[np.int64(7)])
    with pytest.warns(UnknownUserWarning, match="user '7' is neither"):
        found = reward(prompts=[PROMPT], completions=TEXTS[:1], user_id=np.int64(7))
    assert found == pytest.approx(numbered, abs=1e-5)


def test_a_function_for_trl_says_in_one_line_what_is_wrong(shared_service: Running) -> None:
    from copl.errors import CoplError
    from copl.serve.remote import RemoteReward

    with pytest.raises(CoplError, match="1 prompts but 3 completions"):
        RemoteReward(shared_service.url)(prompts=[PROMPT], completions=TEXTS, user_id=["a"])
    with pytest.raises(CoplError, match="cannot be reached"):
        RemoteReward("http://127.0.0.1:9")(prompts=[PROMPT], completions=TEXTS[:1], user_id=["a"])


def test_long_completions_are_sent_in_parts_that_the_service_takes(shared_service: Running) -> None:
    from copl.serve.remote import RemoteReward

    text = "Kräutertee. " * 15_000  # 255,000 bytes of JSON in ASCII; the service takes 4 MiB at once
    with pytest.warns(UnknownUserWarning):
        rewards = RemoteReward(shared_service.url)(prompts=[PROMPT] * 25, completions=[text] * 25, user_id="ann")
    assert len(set(rewards)) == 1
    assert len(rewards) == 25
