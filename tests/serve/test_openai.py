"""OpenAI's dialect with OpenAI's client: choices by user, streams, models, errors, and feedback on what was shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from copl import Model
from copl.data.chat import decode_prompt
from tests.serve.running import Running
from tests.serve.upstream import TEXTS, upstream

ASKED: list[Any] = [{"role": "user", "content": "How do I boil an egg?"}]


@pytest.fixture(scope="module")
def service(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from copl.serve.settings import ServeOptions
    from tests.serve.running import running

    store = str(tmp_path_factory.mktemp("store") / "events.sqlite")
    with upstream() as (url, _), running(run, ServeOptions(store=store, upstream=url)) as one:
        yield one


@pytest.fixture
def client(service: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_best_candidate_comes_back_first_as_the_model_judges(client: openai.OpenAI, run: Path) -> None:
    model = Model.open(run)
    user = sorted(model.method.seen_users())[0]
    answer = client.chat.completions.create(model="tiny", messages=ASKED, n=4, user=user)
    texts = [choice.message.content or "" for choice in answer.choices]
    assert sorted(texts) == sorted(TEXTS)
    rewards = model.score(user, ASKED, texts)
    assert rewards == sorted(rewards, reverse=True)
    assert answer.model == "tiny"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20
    (one,) = client.chat.completions.create(model="tiny", messages=ASKED, user=user).choices
    assert one.message.content == texts[0], "the best of four, unless told otherwise"


def test_users_who_say_different_things_are_answered_differently(service: Running, client: openai.OpenAI) -> None:
    margins = {}
    for user, liked in (("ann", TEXTS[0]), ("ben", TEXTS[3]), ("nobody", None)):
        answer = client.chat.completions.create(model="tiny", messages=ASKED, n=4, user=user)
        if liked is not None:
            place = [choice.message.content for choice in answer.choices].index(liked)
            said = service.http.post("/v1/feedback", json={"completion_id": answer.id, "chosen": place}).json()
            assert (said["user"], said["kind"], said["new"]) == (user, "choice", True)
        answer = client.chat.completions.create(model="tiny", messages=ASKED, n=4, user=user)
        chosen: Any = answer.model_extra
        rewards = dict(zip(chosen["copl"]["candidates"], chosen["copl"]["rewards"], strict=True))
        margins[user] = rewards[TEXTS[0]] - rewards[TEXTS[3]]
    assert margins["ann"] > margins["nobody"] > margins["ben"]


def test_a_stream_makes_up_the_chosen_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=ASKED, user="streamed").choices[0].message.content
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=ASKED, user="streamed", stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage is not None
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("body", "kind", "comparisons"),
    [
        ({"chosen": 2}, "choice", 3),
        ({"rating": 1}, "thumb", 3),
        ({"rating": -1}, "thumb", 3),
        ({"edit": "Nine minutes."}, "edit", 1),
        ({"withdraw": True}, "withdrawal", 0),
    ],
)
def test_feedback_of_every_kind(
    service: Running, client: openai.OpenAI, body: dict[str, Any], kind: str, comparisons: int
) -> None:
    user = f"feedback {kind}"
    answer = client.chat.completions.create(model="tiny", messages=ASKED, n=4, user=user)
    before = service.http.get(f"/v1/users/{user}").json()["num_comparisons"]
    said = service.http.post("/v1/feedback", json={"completion_id": answer.id, **body, "user": user})
    assert said.json()["kind"] == kind
    assert service.http.get(f"/v1/users/{user}").json()["num_comparisons"] - before in (comparisons, 0)
    service.http.post("/v1/feedback", json={"completion_id": answer.id, "withdraw": True})
    assert service.http.get(f"/v1/users/{user}").json()["num_comparisons"] == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"completion_id": "chatcmpl-nowhere", "chosen": 0}, 404),
        ({"chosen": 64}, 422),
        ({"chosen": 0, "rating": 1}, 422),
        ({}, 422),
        ({"rating": 5}, 422),
        ({"chosen": 0, "user": "somebody else"}, 403),
    ],
)
def test_feedback_that_cannot_be_is_refused(
    service: Running, client: openai.OpenAI, body: dict[str, Any], status: int
) -> None:
    answer = client.chat.completions.create(model="tiny", messages=ASKED, n=2, user="careful")
    before = service.http.get("/v1/users/careful").json()["num_events"]
    assert service.http.post("/v1/feedback", json={"completion_id": answer.id, **body}).status_code == status
    assert service.http.get("/v1/users/careful").json()["num_events"] == before


def test_an_answer_for_nobody_is_the_average_users_and_takes_no_feedback(
    service: Running, client: openai.OpenAI
) -> None:
    answer = client.chat.completions.create(model="tiny", messages=ASKED)
    assert (answer.model_extra or {})["copl"]["unpersonalised"] == 0
    assert service.http.post("/v1/feedback", json={"completion_id": answer.id, "chosen": 1}).status_code == 404
    assert "" not in service.service.log.count_by_user(), "what nobody could have forgotten is not kept"


def test_a_response_is_the_best_candidate_and_takes_feedback(service: Running, client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", instructions="Be brief.", input="How do I boil?", user="responder")
    chosen = (answer.model_extra or {})["copl"]
    assert (answer.status, answer.model, answer.output_text) == ("completed", "tiny", chosen["candidates"][0])
    assert answer.id.startswith("resp_")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 20
    said = service.http.post("/v1/feedback", json={"completion_id": answer.id, "chosen": 2}).json()
    assert (said["user"], said["kind"], said["new"]) == ("responder", "choice", True)
    (kept,) = [event for event in service.service.log.of_user("responder") if event.kind == "completion"]
    assert decode_prompt(kept.body["prompt"]) == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I boil?"},
    ]  # fmt: skip


def test_the_stream_of_a_response_is_put_together_by_the_client(client: openai.OpenAI) -> None:
    again: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": "How do"}, {"type": "input_text", "text": "I?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "What?"}]},
        {"role": "user", "content": "An egg."},
    ]  # fmt: skip
    whole = client.responses.create(model="tiny", input=again, user="streamed").output_text
    with client.responses.stream(model="tiny", input=again, user="streamed") as stream:
        events = list(stream)
        assert stream.get_final_response().output_text == whole
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole
    assert [event.sequence_number for event in events] == list(range(len(events)))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": []}, openai.UnprocessableEntityError, "input: expected text"),
        ({"input": ""}, openai.BadRequestError, "input.0: no text"),
        ({"input": "a\x00b"}, openai.UnprocessableEntityError, "prompt"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            openai.BadRequestError,
            "only parts of type text",
        ),
        ({"input": [{"type": "function_call_output"}]}, openai.UnprocessableEntityError, "input"),
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, "send the whole conversation"),
        ({"tools": [{"type": "web_search"}]}, openai.BadRequestError, "tools: not offered"),
        ({"text": {"format": {"type": "json_object"}}}, openai.BadRequestError, "text.format: not offered"),
        ({"background": True}, openai.BadRequestError, "background: not offered"),
        ({"user": "x" * 257}, openai.UnprocessableEntityError, "at most 256"),
    ],
)
def test_a_response_that_cannot_be_is_refused_in_one_line(
    client: openai.OpenAI, change: dict[str, Any], error: type[openai.APIStatusError], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        client.responses.create(**{"model": "tiny", "input": "How?", **change})
    body: Any = raised.value.body
    assert "\n" not in body["message"]


def test_what_the_upstream_thought_is_put_aside(serving: Callable[..., Running]) -> None:
    apart: Any = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "Nine."},
    ]
    with upstream(["<think>An egg?</think>\n\nEight minutes.", "<think>An egg? Hm", apart]) as (url, _):
        service = serving(upstream=url)
        body = {"model": "tiny", "messages": ASKED, "candidates": 3}
        answer = service.http.post("/v1/chat/completions", json=body).json()
        assert {*answer["copl"]["candidates"]} == {"Eight minutes.", "Nine."}
        assert answer["choices"][0]["message"]["content"] in ("Eight minutes.", "Nine.")
    cut = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "<think>An egg? Hm"}}
    with upstream(choices=[cut]) as (url, _):
        refused = serving(upstream=url).http.post("/v1/chat/completions", json={**body, "candidates": 1})
        assert refused.status_code == 502
        assert "gave no text: it was at its limit before it came to an answer" in refused.json()["error"]["message"]


def test_an_answer_that_was_cut_off_says_so(serving: Callable[..., Running]) -> None:
    cut = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "First, "}}
    with upstream(choices=[cut]) as (url, _):
        service = serving(upstream=url)
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
            (choice,) = client.chat.completions.create(
                model="tiny", messages=ASKED, extra_body={"candidates": 1}
            ).choices
            assert (choice.message.content, choice.finish_reason) == ("First,", "length")
            answer = client.responses.create(model="tiny", input="How?", extra_body={"candidates": 1})
            assert (answer.status, answer.output_text) == ("incomplete", "First,")
            assert answer.incomplete_details is not None
            assert answer.incomplete_details.reason == "max_output_tokens"
            events = list(client.responses.create(model="tiny", input="How?", stream=True))
            assert events[-1].type == "response.incomplete"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "copl"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.models.retrieve("huge")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"messages": []}, openai.UnprocessableEntityError),
        ({"messages": [{"role": "user", "content": ""}]}, openai.BadRequestError),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            openai.BadRequestError,
        ),
        ({"n": 0}, openai.UnprocessableEntityError),
        ({"n": 65}, openai.UnprocessableEntityError),
        ({"temperature": 9}, openai.UnprocessableEntityError),
        ({"user": "x" * 257}, openai.UnprocessableEntityError),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, openai.UnprocessableEntityError),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError),
        ({"logprobs": True}, openai.BadRequestError),
    ],
)
def test_errors_are_those_of_the_client_with_one_line(
    client: openai.OpenAI, change: dict[str, Any], error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(**{"model": "tiny", "messages": ASKED, **change})
    body: Any = raised.value.body
    assert body["message"]
    assert "\n" not in body["message"]
    assert body["code"] == raised.value.status_code


def test_parts_of_text_are_one_text(client: openai.OpenAI) -> None:
    parts: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "How do I"}, {"type": "text", "text": "boil?"}]}
    ]
    assert client.chat.completions.create(model="tiny", messages=parts).choices


def test_an_upstream_that_writes_one_at_a_time_is_asked_again(serving: Callable[..., Running]) -> None:
    with upstream(most=1) as (url, asked):
        service = serving(upstream=url, upstream_model="real")
        shape = {"type": "json_object"}
        body = {"model": "alias", "messages": ASKED, "n": 3, "seed": 7, "temperature": 0.5, "response_format": shape}
        answer = service.http.post("/v1/chat/completions", json=body).json()
        assert len(answer["choices"]) == 3
        assert [one["model"] for one in asked] == ["real"] * 4
        assert sorted(one["seed"] for one in asked) == [7, 8, 9, 10]
        assert {one["temperature"] for one in asked} == {0.5}
        assert [one["response_format"] for one in asked] == [shape] * 4


def test_an_upstream_that_fails_midway_has_written_enough(serving: Callable[..., Running]) -> None:
    with upstream(most=1, num_sound=2) as (url, asked):
        service = serving(upstream=url)
        body = {"messages": ASKED, "user": "ann", "candidates": 12}
        answer = service.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["copl"]["candidates"]) == 2
        assert len(asked) < 1 + 2 * 11, "no more is asked of an upstream that fails"


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"choices": None}, 502, "gave no text"),
        ({"choices": []}, 502, "gave no text"),
        ({"choices": [{"index": 0, "message": None}]}, 502, "gave something that is no chat completion"),
        ({"choices": [{"index": 0, "message": {"role": "assistant", "content": None}}]}, 502, "gave no text"),
        ({"choices": "text"}, 502, "gave something that is no chat completion"),
        ({"usage": None, "model": None}, 200, ""),
        ({"usage": {"prompt_tokens": None}}, 200, ""),
    ],
)
def test_whatever_an_upstream_leaves_out_is_no_fault_of_the_service(
    serving: Callable[..., Running], changes: dict[str, Any], status: int, says: str
) -> None:
    with upstream(**changes) as (url, _):
        service = serving(upstream=url, wait=status == 200)
        answer = service.http.post("/v1/chat/completions", json={"messages": ASKED, "candidates": 2})
        assert answer.status_code == status, answer.text
        assert says in answer.text


def test_the_id_of_a_completion_is_a_key_like_any_other(service: Running) -> None:
    made = service.http.post("/v1/chat/completions", json={"messages": ASKED, "user": "key"}).json()["id"]
    said = {"completion_id": made, "rating": 1}
    sent = [service.http.post("/v1/feedback", json=said, headers={"Idempotency-Key": made}) for _ in range(2)]
    assert [answer.json()["new"] for answer in sent] == [True, False]


@pytest.mark.parametrize(("status", "expected"), [(500, 502), (401, 502), (400, 400), (429, 503)])
def test_an_upstream_that_fails_is_said_in_one_line(
    serving: Callable[..., Running], status: int, expected: int
) -> None:
    with upstream(status=status) as (url, _):
        service = serving(upstream=url, wait=False)
        answer = service.http.post("/v1/chat/completions", json={"model": "x", "messages": ASKED})
        assert answer.status_code == expected
        assert "upstream" in answer.json()["error"]["message"]


def test_without_a_writer_a_completion_is_refused(serving: Callable[..., Running]) -> None:
    service = serving(generator="none", wait=False)
    answer = service.http.post("/v1/chat/completions", json={"model": "x", "messages": ASKED})
    assert answer.status_code == 400
    assert "--upstream" in answer.json()["error"]["message"]


def test_embedded_generators_write_where_there_is_no_upstream(serving: Callable[..., Running]) -> None:
    service = serving(generator="facets")
    prompt = "How can I pay off my credit card faster?"
    asked = {"messages": [{"role": "user", "content": prompt}], "candidates": 6, "seed": 3, "user": "ann"}
    first = service.http.post("/v1/chat/completions", json=asked)
    assert first.status_code == 200, first.text
    chosen = first.json()["copl"]
    assert len(set(chosen["candidates"])) == 6
    assert chosen["rewards"] == sorted(chosen["rewards"], reverse=True)
    assert first.json()["model"] == "facets"
    assert service.http.post("/v1/chat/completions", json=asked).json()["copl"]["candidates"] == chosen["candidates"]
    shaped = service.http.post("/v1/chat/completions", json=asked | {"response_format": {"type": "json_object"}})
    assert (shaped.status_code, "response_format" in shaped.json()["error"]["message"]) == (400, True)
    question = service.http.get("/v1/users/ann/question", params={"prompt": prompt})
    assert question.json()["first"] != question.json()["second"]
    other = service.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Who are you?"}]})
    assert other.status_code == 400
    assert "generator" in other.json()["error"]["message"]


def test_what_an_upstream_writes_is_kept_in_one_spelling_or_not_at_all(serving: Callable[..., Running]) -> None:
    """Else a choice between texts that are the same as read would leave a user without a state."""
    with upstream(["Yes. ", " Yes.", "a\x00b", "No.\r\n"]) as (url, _):
        service = serving(upstream=url)
        asked = {"messages": ASKED, "n": 4, "user": "ann"}
        answer = service.http.post("/v1/chat/completions", json=asked).json()
        texts = [choice["message"]["content"] for choice in answer["choices"]]
        assert sorted(texts) == ["No.", "Yes.", "Yes."]
        said = {"completion_id": answer["id"], "chosen": texts.index("Yes.")}
        assert service.http.post("/v1/feedback", json=said).status_code == 200
        assert service.http.get("/v1/users/ann").json()["num_comparisons"] == 1
        assert service.http.post("/v1/chat/completions", json=asked).status_code == 200
    with upstream(["\x00"]) as (url, _):
        service = serving(upstream=url, wait=False)
        assert service.http.post("/v1/chat/completions", json=asked).status_code == 502
