"""Malformed and hostile requests across dialects: the right status, one clear line, nothing written; and a fuzzer."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from copl.serve.settings import ServeOptions
from tests.serve.running import Running, running
from tests.serve.upstream import upstream

SCORE, SAY, RATE = "/v1/users/ann/score", "/v1/users/ann/comparisons", "/v1/users/ann/ratings"
CHAT, BACK, REWARDS, RLHF = "/v1/chat/completions", "/v1/feedback", "/v1/rewards", "/v1/openrlhf"
ASK, ANSWER = "/v1/users/ann/question", "/v1/responses"
PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
TEXT = [{"role": "user", "content": "x"}]
POST = f"POST {SCORE} HTTP/1.1\r\nHost: localhost\r\n".encode()
DEEP = "[" * 100_000 + "]" * 100_000

BODIES: list[tuple[str, Any, set[int]]] = [
    (SCORE, b"", {422}),
    (SCORE, b"{", {400}),
    (SCORE, b"\xff\xfe\x00", {400}),
    (SCORE, DEEP.encode(), {400, 422}),
    (SCORE, b"[]", {422}),
    (SCORE, b"null", {422}),
    (SCORE, b'"text"', {422}),
    (SCORE, b"1" * 5000, {400, 422}),
    (SCORE, {}, {422}),
    (SCORE, {"prompt": "p"}, {422}),
    (SCORE, {"prompt": "p", "responses": []}, {422}),
    (SCORE, {"prompt": "p", "responses": "text"}, {422}),
    (SCORE, {"prompt": "p", "responses": [1]}, {422}),
    (SCORE, {"prompt": "p", "responses": [None]}, {422}),
    (SCORE, {"prompt": "p", "responses": [" "]}, {422}),
    (SCORE, {"prompt": "p", "responses": ["a\x00b"]}, {422}),
    (SCORE, b'{"prompt": "p", "responses": ["\\ud800"]}', {422}),
    (SCORE, {"prompt": "", "responses": ["a"]}, {422}),
    (SCORE, {"prompt": [], "responses": ["a"]}, {422}),
    (SCORE, {"prompt": [{"role": "user"}], "responses": ["a"]}, {422}),
    (SCORE, {"prompt": [{"role": "user", "content": 7}], "responses": ["a"]}, {422}),
    (SCORE, {"prompt": 7, "responses": ["a"]}, {422}),
    (SCORE, {"prompt": "p", "responses": ["a"], "responce": ["b"]}, {422}),
    (SCORE, {"prompt": "p", "responses": ["x" * 300_000]}, {413}),
    (SCORE, {"prompt": "p", "responses": ["a"] * 2000}, {413}),
    (SAY, {"comparisons": []}, {422}),
    (SAY, {"comparisons": [PAIR, {**PAIR, "chosen": "b"}]}, {422}),
    (SAY, {"comparisons": [PAIR, {"prompt": "p", "chosen": "a"}]}, {422}),
    (SAY, {"comparisons": [{**PAIR, "tie": "perhaps"}]}, {422}),
    (SAY, {"comparisons": [{**PAIR, "user": "ben"}]}, {422}),
    (SAY, {"comparisons": {"0": PAIR}}, {422}),
    (SAY, {"comparisons": [{**PAIR, "prompt": "\ud800"}]}, {422}),
    (RATE, b'{"ratings": [{"prompt": "p", "response": "a", "rating": NaN}]}', {422}),
    (RATE, b'{"ratings": [{"prompt": "p", "response": "a", "rating": 1e999}]}', {422}),
    (RATE, {"ratings": [{"prompt": "p", "response": "a", "rating": "five"}]}, {422}),
    (RATE, {"ratings": [{"prompt": "p", "response": "a", "rating": True}]}, {422}),
    (ASK, {"candidates": []}, {422}),
    (ASK, {"candidates": [{"prompt": "p", "first": "a", "second": "a"}]}, {422}),
    (ASK, {"candidates": [{"prompt": "p", "first": "a"}]}, {422}),
    (CHAT, {}, {422}),
    (CHAT, {"messages": []}, {422}),
    (CHAT, {"messages": [{"role": "", "content": "x"}]}, {422}),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, {400}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, {400}),
    (CHAT, {"messages": TEXT, "n": 0}, {422}),
    (CHAT, {"messages": TEXT, "n": 1_000_000}, {422}),
    (CHAT, {"messages": TEXT, "n": "many"}, {422}),
    (CHAT, {"messages": TEXT, "temperature": -1}, {422}),
    (CHAT, b'{"messages": [{"role": "user", "content": "x"}], "temperature": Infinity}', {422}),
    (CHAT, {"messages": TEXT, "user": ["ann"]}, {422}),
    (CHAT, {"messages": TEXT, "user": "\x00"}, {422}),
    (CHAT, {"messages": TEXT, "user": "x" * 1000}, {422}),
    (CHAT, {"messages": TEXT, "tools": [{}]}, {400}),
    (ANSWER, {}, {422}),
    (ANSWER, {"input": None}, {422}),
    (ANSWER, {"input": [{"role": "user"}]}, {422}),
    (ANSWER, {"input": [{"role": "user", "content": [{"type": "input_text", "text": None}]}]}, {400}),
    (ANSWER, b'{"input": "\\ud800"}', {422}),
    (ANSWER, {"input": "x", "text": []}, {422}),
    (ANSWER, {"input": "x", "candidates": 0}, {422}),
    (ANSWER, {"input": "x" * 300_000}, {413}),
    (ANSWER, {"input": "x", "conversation": {"id": "c"}}, {400}),
    (BACK, {"completion_id": "' OR 1=1 --", "chosen": 0}, {404}),
    (BACK, {"completion_id": "", "chosen": 0}, {422}),
    (BACK, {"completion_id": "c", "chosen": -1}, {422}),
    (BACK, {"completion_id": "c", "chosen": 1.5}, {422}),
    (BACK, {"completion_id": "c", "chosen": True}, {422}),
    (BACK, {"completion_id": "c", "rating": True}, {422}),
    (BACK, b'{"completion_id": "c", "rating": NaN}', {422}),
    (BACK, {"completion_id": "c", "withdraw": False}, {422}),
    ("/rerank", {"query": "q", "documents": []}, {422}),
    ("/rerank", {"query": "q", "documents": ["a"], "top_n": 0}, {422}),
    ("/rerank", {"query": "q", "documents": [{"title": "a"}]}, {422}),
    ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, {400}),
    ("/score", {"text_1": "a", "text_2": []}, {422}),
    ("/score", {"text_1": "a", "text_2": [{"image": "x"}]}, {422}),
    (REWARDS, {"prompts": ["p"], "completions": ["a", "b"]}, {422}),
    (REWARDS, {"prompts": ["p"], "completions": ["a"], "user_id": [True]}, {422}),
    (REWARDS, {"prompts": ["p"], "completions": [[{"role": "assistant", "content": 7}]]}, {422}),
    (RLHF, {"query": ["other"], "prompts": ["p"]}, {422}),
    (RLHF, {"query": ["pa", "pb"], "prompts": ["p"]}, {422}),
    (RLHF, {"query": ["pa"], "prompts": ["p"], "labels": [[1]]}, {422}),
]


@pytest.fixture(scope="module")
def service(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = str(tmp_path_factory.mktemp("store") / "events.sqlite")
    with upstream() as (url, _), running(run, ServeOptions(store=store, upstream=url)) as one:
        yield one


@pytest.mark.parametrize(("path", "body", "statuses"), BODIES)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    service: Running, path: str, body: Any, statuses: set[int]
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = service.http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in statuses, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 1100
    assert "Traceback" not in answer.text
    assert service.service.log.count_by_user() == {}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/feedback", 405),
        ("GET", "/v1/users/%00", 422),
        ("GET", "/v1/users/%ff", 400),
        ("POST", "/v1/users/ann%c3/score", 400),
        ("GET", "/v1/users/" + "x" * 300, 422),
        ("DELETE", "/v1/users/ann/events/0", 422),
        ("DELETE", "/v1/users/ann/events/99999999999999999999", 422),
        ("DELETE", "/v1/users/ann/events/first", 422),
        ("GET", "/v1/users/ann/question?prompt=", 422),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/page/..%2f..%2f__init__.py", 404),
        ("POST", "/v1/users/%20/score", 422),
    ],
)
def test_paths_that_are_none(service: Running, method: str, path: str, status: int) -> None:
    body = {"prompt": "p", "responses": ["a"]} if method == "POST" else None
    answer = service.http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    message = answer.json()["error"]["message"]
    assert "\n" not in message
    assert status not in (404, 405) or "GET /openapi.json" in message


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_keys_that_are_none(service: Running, key: str) -> None:
    body = {"comparisons": [PAIR]}
    assert service.http.post(SAY, json=body, headers={"Idempotency-Key": key}).status_code == 422
    assert service.service.log.count_by_user() == {}


def test_a_client_that_goes_away_in_its_request_has_said_nothing(service: Running) -> None:
    body = json.dumps({"comparisons": [PAIR]}).encode()
    head = f"POST {SAY} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    port = httpx.URL(service.url).port
    for framing, sent in (
        (f"Content-Length: {len(body) + 1}", body),
        ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(body), body)),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(f"{head}{framing}\r\n\r\n".encode() + sent)
    assert service.http.get("/v1/users/ann").json()["num_events"] == 0


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999999\r\n\r\n", 413),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /v1/users/ann%0d%0aX: HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ],
)  # fmt: skip
def test_what_is_no_http_is_refused(service: Running, raw: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(service.url).port), timeout=30) as connection:
        connection.sendall(raw)
        answer = connection.recv(4096)
    assert answer.split(b" ")[1] == str(status).encode(), answer
    assert service.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/png"]
)
def test_bodies_of_other_types_are_refused(service: Running, content_type: str) -> None:
    content = json.dumps({"comparisons": [PAIR]}).encode()
    answer = service.http.post(SAY, content=content, headers={"Content-Type": content_type})
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]["message"]
    assert service.service.log.count_by_user() == {}


def test_a_body_that_is_no_json_by_its_type_is_told_so(service: Running) -> None:
    answer = service.http.post(SCORE, content=b'{"prompt": "p", "responses": ["a"]}')
    assert answer.status_code == 422
    assert "application/json" in answer.json()["error"]["message"]


def test_a_fuzzer_of_the_document_finds_no_fault_of_the_service(serving: Callable[..., Running]) -> None:
    with upstream() as (url, _):
        service = serving(upstream=url)
        schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) > 15
        for operation in operations:
            fuzz(service, operation)


PLAIN: dict[str, dict[str, Any]] = {
    CHAT: {"messages": TEXT, "user": "ann", "tools": None},
    BACK: dict.fromkeys(("user", "safety_identifier", "rating", "edit", "withdraw")),
}
"""What bodies have in any case, so that something follows from them."""


def test_a_fuzzer_that_goes_on_by_the_links_of_the_document_finds_no_fault(serving: Callable[..., Running]) -> None:
    with upstream() as (url, _):
        service = serving(upstream=url)
        answered: Counter[tuple[str, int]] = Counter()
        for paths in ("completions|feedback|events", "comparisons|ratings|question|events|score|users/{user}$"):
            walk(service, paths, answered)
    for label in ("POST /v1/feedback", "POST /v1/users/{user}/comparisons", "DELETE /v1/users/{user}/events/{event}"):
        assert answered[label, 200], answered


def walk(service: Running, paths: str, answered: Counter[tuple[str, int]]) -> None:
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json").include(path_regex=paths)

    @schema.hook  # type: ignore[untyped-decorator]
    def map_body(context: Any, body: Any) -> Any:
        return {**body, **PLAIN.get(context.operation.path, {})} if isinstance(body, dict) else body

    class Workflow(schema.as_state_machine()):  # type: ignore[misc]  # the class is made of the document
        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            assert response.status_code < 500, (case.operation.label, response.status_code, response.text)
            answered[case.operation.label, response.status_code] += 1

    Workflow.run(settings=settings(generated(10), stateful_step_count=8))


def generated(max_examples: int) -> settings:
    return settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def fuzz(service: Running, operation: Any) -> None:
    @given(case=operation.as_strategy())
    @generated(4)
    def each(case: Any) -> None:
        answer = case.call(base_url=service.url)
        assert answer.status_code < 500, (operation.label, answer.status_code, answer.text)

    each()
