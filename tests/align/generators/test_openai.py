"""The official client against a real server on this machine: what is asked, what comes back, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, final

import pytest

from copl.align.generators.openai import OpenAiGenerator, OpenAiOptions
from copl.errors import BackboneError
from copl.interfaces import CutText
from copl.system.progress import LineProgress, SilentProgress

pytest.importorskip("openai")


@final
class Service(ThreadingHTTPServer):
    """Answers each request by what it is given; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.reply: Callable[[int, dict[str, Any]], tuple[int, Any]] = lambda number, body: (200, said(body))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def said(body: dict[str, Any], text: str | None = None) -> dict[str, Any]:
    words = f"{body['seed']}: {body['messages'][-1]['content']}" if text is None else text
    choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}


def ended(body: dict[str, Any], reason: str, **message: Any) -> dict[str, Any]:
    """Return a completion without text."""
    whole = said(body)
    about = {"role": "assistant", "content": None, "reasoning_content": "Tea? Hm.", **message}
    return {**whole, "choices": [{"index": 0, "message": about, "finish_reason": reason}]}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        service: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service.asked.append(body)
        service.keys.add(self.headers["Authorization"])
        status, reply = service.reply(len(service.asked), body)
        content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    served = Service()
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def ask(service: Service, prompts: list[str], num: int = 2, **options: Any) -> list[tuple[str, ...]]:
    generator = OpenAiGenerator(OpenAiOptions(model="m", base_url=service.url, **options))
    try:
        return generator.candidates(prompts, num=num, seed=0, progress=SilentProgress())
    finally:
        generator._client.close()


def test_each_candidate_is_a_request_with_a_seed_of_its_own(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    chat = '[{"role":"system","content":"Be brief."},{"role":"user","content":"coffee?"}]'
    written = ask(service, ["tea?", chat], num=3, system="Be kind.", max_tokens=7, temperature=0.5)
    assert [{text.partition(": ")[2] for text in texts} for texts in written] == [{"tea?"}, {"coffee?"}]
    assert len({body["seed"] for body in service.asked}) == 6
    assert {(body["max_tokens"], body["temperature"], body["model"]) for body in service.asked} == {(7, 0.5, "m")}
    roles = {tuple(message["role"] for message in body["messages"]) for body in service.asked}
    assert roles == {("system", "user"), ("system", "system", "user")}
    assert service.keys == {"Bearer secret"}
    assert ask(service, ["tea?", chat], num=2, system="Be kind.") == [texts[:2] for texts in written]


def test_a_service_is_told_what_it_knows(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(service, ["tea?"], num=1)
    [asked] = service.asked
    assert {name: asked[name] for name in asked.keys() - {"messages", "seed"}} == {
        "model": "m", "max_tokens": 512, "temperature": 1.0, "top_p": 1.0,
    }  # fmt: skip
    settings = [
        OpenAiGenerator(OpenAiOptions(model="m", **given))._settings for given in ({}, {"top_p": 0.5, "max_tokens": 7})
    ]
    assert settings == [{"max_completion_tokens": 512}, {"max_completion_tokens": 7, "top_p": 0.5}]
    monkeypatch.setenv("OPENAI_BASE_URL", service.url)
    assert OpenAiGenerator(OpenAiOptions(model="m"))._settings["max_tokens"] == 512


def test_other_options_are_another_writer() -> None:
    given: list[dict[str, Any]] = [{}, {"temperature": 0.5}, {"max_tokens": 3}, {"system": "Be kind."}, {"top_p": 0.5}]
    prints = [OpenAiGenerator(OpenAiOptions(model="m", **values)).fingerprint() for values in given]
    assert len({*prints}) == 5
    assert OpenAiGenerator(OpenAiOptions(model="m", concurrency=1)).fingerprint() == prints[0]


def test_a_busy_service_is_asked_again(service: Service) -> None:
    service.reply = lambda number, body: (503, {}) if number <= 2 else (200, said(body, "yes"))
    assert ask(service, ["tea?"], num=1, concurrency=1) == [("yes",)]
    assert len(service.asked) == 3


def test_thoughts_are_put_aside_and_what_was_cut_says_so(service: Service) -> None:
    def reply(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        whole = said(body, "<think>Tea? Hm.</think>\n\nYes.")
        reason = "length" if number == 2 else "stop"
        return 200, {**whole, "choices": [{**whole["choices"][0], "finish_reason": reason}]}

    service.reply = reply
    ((one, other),) = ask(service, ["tea?"], num=2, concurrency=1)
    assert one == other == "Yes."
    assert [isinstance(text, CutText) for text in (one, other)] == [False, True]
    apart = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Yes."}]
    service.reply = lambda number, body: (200, ended(body, "stop", content=apart))
    assert ask(service, ["tea?"], num=1) == [("Yes.",)]


def test_a_candidate_without_a_text_is_left_out_and_told(service: Service) -> None:
    service.reply = lambda number, body: (200, ended(body, "length") if number % 2 else said(body, f"yes {number}"))
    told: list[str] = []
    asks = OpenAiGenerator(OpenAiOptions(model="m", base_url=service.url, concurrency=1))
    assert asks.candidates(["tea?", "bread?"], num=2, seed=0, progress=LineProgress(told.append)) == [
        ("yes 2",),
        ("yes 4",),
    ]
    asks._client.close()
    (line,) = [line for line in told if "left out" in line]
    assert line.startswith("write candidates: 2 of 4 candidates are left out: generator openai: the service at")
    assert "it was still thinking" in line


def test_what_no_file_can_hold_is_taken_out(service: Service) -> None:
    service.reply = lambda number, body: (200, said(body, " yes\x00 \ud800! "))
    assert ask(service, ["tea?"], num=1) == [("yes ?!",)]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (lambda body: (401, {"error": {"message": "wrong key"}}), "answers 401: .*wrong key"),
        (lambda body: (200, said(body, " ")), "gave no text to 'tea\\?'"),
        (lambda body: (200, {**said(body), "choices": []}), "gave no text"),
        (
            lambda body: (200, ended(body, "length", content="<think>Tea? Hm")),
            "after 512 tokens it was still thinking; .*max_tokens=2048",
        ),
        (
            lambda body: (200, ended(body, "length")),
            "after 512 tokens it was still thinking; .*max_tokens=2048",
        ),
        (lambda body: (200, ended(body, "content_filter")), "to 'tea\\?': its filter held the text back"),
        (lambda body: (200, ended(body, "stop", refusal="I\nwon't.")), "to 'tea\\?': it refuses \\(I won't\\.\\)"),
        (lambda body: (200, b"<html>"), "gave something that is no chat completion|gave no text"),
        (lambda body: (200, {"object": "nonsense"}), "gave something that is no chat completion|gave no text"),
    ],
)
def test_what_goes_wrong_is_one_line(service: Service, reply: Any, fault: str) -> None:
    service.reply = lambda number, body: reply(body)
    with pytest.raises(BackboneError, match=fault) as caught:
        ask(service, ["tea?"], retries=0)
    assert len(caught.value.faults) == 1
    assert service.url in str(caught.value)


def test_nobody_there_and_no_key(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    away = OpenAiGenerator(OpenAiOptions(model="m", base_url="http://127.0.0.1:9/v1", retries=0))
    with pytest.raises(BackboneError, match="cannot be reached"):
        away.candidates(["tea?"], num=1, seed=0, progress=SilentProgress())
    away._client.close()
    with pytest.raises(BackboneError, match="http://host:port/v1: Invalid port"):
        OpenAiGenerator(OpenAiOptions(model="m", base_url="http://host:port/v1")).candidates(
            ["tea?"], num=1, seed=0, progress=SilentProgress()
        )
    with pytest.raises(BackboneError, match="set OPENAI_API_KEY to your key"):
        OpenAiGenerator(OpenAiOptions(model="m")).candidates(["tea?"], num=1, seed=0, progress=SilentProgress())
