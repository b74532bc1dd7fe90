"""Who may ask for whom: tokens by scope, forged users, limits of rate, size, host and origin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from copl.errors import OptionsError
from copl.serve.app import create_service
from copl.serve.settings import ServeOptions
from tests.serve.running import Running

ASKED = {"prompt": "How do I boil an egg?", "responses": ["Eight minutes.", "Ask a cook!"]}
RERANK = {"query": "How do I boil an egg?", "documents": ["Eight minutes.", "Ask a cook!"]}


@pytest.fixture
def service(serving: Callable[..., Running]) -> Running:
    return serving()


def test_with_a_token_there_is_no_way_without_one(service: Running) -> None:
    assert service.http.get("/v1/users/ann").status_code == 200
    admin = service.token("admin")
    for headers in (
        {},
        {"Authorization": "Bearer copl_wrong"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer"},
    ):
        answer = service.http.get("/v1/users/ann", headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert service.http.get("/v1/users/ann", headers=admin).status_code == 200
    assert service.http.get("/healthz").status_code == 200
    service.service.tokens.revoke(service.service.tokens.all()[0].id)
    assert service.http.get("/v1/users/ann", headers=admin).status_code == 401
    assert service.http.get("/v1/users/ann").status_code == 401, "a service whose tokens are revoked is not open"


def test_a_token_is_kept_as_a_hash(service: Running) -> None:
    header = service.token("service")["Authorization"]
    secret = header.removeprefix("Bearer ")
    path = service.service.log.url.removeprefix("sqlite:///")
    for ending in ("", "-wal"):
        with open(path + ending, "rb") as file:
            assert secret.encode() not in file.read()


def test_a_user_speaks_for_nobody_else(service: Running) -> None:
    ann = service.token("user", "ann")
    name = service.service.options.user_header
    forged: list[tuple[str, str, Any, dict[str, str]]] = [
        ("POST", "/v1/users/ben/score", ASKED, {}),
        ("GET", "/v1/users/ben", None, {}),
        ("DELETE", "/v1/users/ben", None, {}),
        ("GET", "/v1/users/ben/events", None, {}),
        ("POST", "/rerank", {**RERANK, "user": "ben"}, {}),
        ("POST", "/rerank", RERANK, {name: "ben"}),
        (
            "POST",
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "safety_identifier": "ben"},
            {},
        ),
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "user": "ben"}, {}),
        ("POST", "/v1/responses", {"input": "x", "user": "ben"}, {}),
        ("POST", "/v1/responses", {"input": "x", "safety_identifier": "ben"}, {}),
        ("POST", "/v1/responses", {"input": "x"}, {name: "ben"}),
        ("POST", "/v1/rewards", {"prompts": ["p"], "completions": ["c"], "user_id": ["ben"]}, {}),
        ("POST", "/v1/openrlhf", {"query": ["pc"], "prompts": ["p"], "labels": ["ben"]}, {}),
        ("GET", "/metrics", None, {}),
    ]
    for method, path, body, headers in forged:
        answer = service.http.request(method, path, json=body, headers={**ann, **headers})
        assert answer.status_code == 403, (method, path, answer.text)
    assert service.service.log.count_by_user() == {}
    assert service.http.post("/v1/users/ann/score", json=ASKED, headers=ann).status_code == 200
    assert service.http.post("/rerank", json={**RERANK, "user": "ann"}, headers=ann).status_code == 200


def test_the_order_of_those_who_name_a_user(service: Running) -> None:
    """Whoever is named counts: ann has said something, the others have not."""
    said = {"comparisons": [{"prompt": ASKED["prompt"], "chosen": "Ask a cook!", "rejected": "Eight minutes."}]}
    token = service.token("service")
    name = service.service.options.user_header
    assert service.http.post("/v1/users/ann/comparisons", json=said, headers=token).status_code == 200

    def scores(headers: dict[str, str], **body: str) -> list[float]:
        answer = service.http.post("/rerank", json={**RERANK, "raw_scores": True, **body}, headers={**token, **headers})
        return [result["relevance_score"] for result in answer.json()["results"]]

    of_ann, of_nobody = scores({}, user="ann"), scores({})
    assert of_ann != of_nobody
    assert scores({name: "ann"}, user="ben") == of_ann
    assert scores({name: "ben"}, user="ann") == of_nobody
    ann = service.token("user", "ann")["Authorization"]
    assert scores({"Authorization": ann}) == of_ann


def test_another_users_completion_is_not_to_be_seen(service: Running) -> None:
    from copl.data.events.log import Entry

    body = {"prompt": "p", "candidates": ["a", "b"], "shown": 0}
    service.service.log.append("ben", "c", [Entry("completion", "chatcmpl-1", body)])
    ann = service.token("user", "ann")
    answer = service.http.post("/v1/feedback", json={"completion_id": "chatcmpl-1", "chosen": 1}, headers=ann)
    assert answer.status_code == 404
    other = {"completion_id": "chatcmpl-1", "chosen": 1, "user": "cat"}
    assert service.http.post("/v1/feedback", json=other, headers=service.token("service")).status_code == 403
    assert service.service.log.count_by_user() == {"ben": 1}


def test_a_token_may_not_ask_more_often_than_agreed(serving: Callable[..., Running]) -> None:
    service = serving(rate=5.0, wait=False)
    token = service.token("service")
    answers = [service.http.get("/v1/models", headers=token) for _ in range(40)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert service.http.get("/v1/models", headers=service.token("service")).status_code == 200


def test_large_bodies_and_texts_are_refused(serving: Callable[..., Running]) -> None:
    service = serving(max_body=20_000, max_text=1000, max_texts=4, wait=False)
    path = "/v1/users/ann/score"
    assert service.http.post(path, content=b"x" * 20_001).status_code == 413
    assert service.http.post(path, content=iter([b"x" * 15_000] * 3)).status_code == 413
    assert service.http.post(path, json={"prompt": "p", "responses": ["x" * 1001]}).status_code == 413
    assert service.http.post(path, json={"prompt": "p", "responses": list("abcde")}).status_code == 413


def test_pages_of_other_hosts_may_not_ask_unless_named(serving: Callable[..., Running]) -> None:
    service = serving(origins=("https://chat.example",), wait=False)
    path = "/v1/models"
    foreign = service.http.get(path, headers={"Origin": "https://evil.example"})
    assert (foreign.status_code, foreign.headers.get("Access-Control-Allow-Origin")) == (403, None)
    named = service.http.get(path, headers={"Origin": "https://chat.example"})
    assert (named.status_code, named.headers["Access-Control-Allow-Origin"]) == (200, "https://chat.example")
    own = service.http.get(path, headers={"Origin": service.url})
    assert (own.status_code, own.headers.get("Access-Control-Allow-Origin")) == (200, None)
    for host in ("LOCALHOST:1", "127.0.0.2", "[::1]:8199"):
        assert service.http.get(path, headers={"Host": host}).status_code == 200
    rebound = service.http.get(path, headers={"Host": "evil.example"})
    assert rebound.status_code == 421
    behind_a_proxy = {"Host": "chat.example", **service.token("service")}
    assert service.http.get(path, headers={**behind_a_proxy, "Host": "127.0.0.1"}).status_code == 200
    assert service.http.get(path, headers=behind_a_proxy).status_code == 200


def test_off_loopback_only_with_tokens(run: Any, tmp_path: Any) -> None:
    options = ServeOptions(store=str(tmp_path / "s.sqlite"), host="0.0.0.0")
    with pytest.raises(OptionsError, match="copl serve token new"):
        create_service(run, options)


def test_a_user_who_is_forgotten_has_no_token_any_more(service: Running) -> None:
    ann = service.token("user", "ann")
    service.token("admin")
    assert service.http.delete("/v1/users/ann", headers=ann).status_code == 200
    assert service.http.get("/v1/users/ann", headers=ann).status_code == 401
    kept = [(token.scope, token.user, token.name, token.is_revoked) for token in service.service.tokens.all()]
    assert kept == [("user", None, "", True), ("admin", None, "", False)]


def test_of_a_user_who_had_a_token_and_is_forgotten_no_byte_is_left_in_the_store(service: Running) -> None:
    service.service.tokens.new("user", user="zoe-4711", name="the phone of zoe-4711")
    admin = service.token("admin")
    said = {"comparisons": [{"prompt": "zoe-4711?", "chosen": "Ask a cook!", "rejected": "Eight minutes."}]}
    assert service.http.post("/v1/users/zoe-4711/comparisons", json=said, headers=admin).status_code == 200
    assert service.http.delete("/v1/users/zoe-4711", headers=admin).status_code == 200
    place = Path(service.service.log.url.removeprefix("sqlite:///"))
    files = [path for path in place.parent.iterdir() if path.name.startswith(place.name)]
    assert place in files
    assert [path.name for path in files if b"zoe-4711" in path.read_bytes()] == []


def test_whoever_forgets_the_only_user_with_a_token_does_not_open_the_service(service: Running) -> None:
    ann = service.token("user", "ann")
    assert service.http.delete("/v1/users/ann", headers=ann).status_code == 200
    again = create_service(service.service.loader.run, service.service.options)  # as after a restart
    assert not again.gate.is_open
    again.log.close()


def test_the_header_names_a_user_in_any_script(service: Running) -> None:
    said = {"comparisons": [{"prompt": ASKED["prompt"], "chosen": "Ask a cook!", "rejected": "Eight minutes."}]}
    assert service.http.post("/v1/users/ünal/comparisons", json=said).status_code == 200
    name = service.service.options.user_header
    by_header = service.http.post("/rerank", json=RERANK, headers=[(name.encode(), "ünal".encode())])
    by_body, nobody = (service.http.post("/rerank", json={**RERANK, "user": user}) for user in ("ünal", "x"))
    assert by_header.json()["results"] == by_body.json()["results"] != nobody.json()["results"]


def test_nothing_secret_is_logged(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    header = service.token("service")
    with httpx.Client(base_url=service.url) as client:
        client.post("/v1/users/geheim%0aFAKE/score", json={"prompt": "geheimnis", "responses": ["a"]}, headers=header)
        client.post("/v1/users/x/score", content=b"geheimnis", headers=header)
    assert "geheim" not in caplog.text
    assert header["Authorization"].removeprefix("Bearer ") not in caplog.text
