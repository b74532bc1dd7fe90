"""The native dialect over real HTTP: scores as of what was said, questions, withdrawal, forgetting."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copl import Model
from copl.data.dataset import load_dataset
from tests.serve.running import Running

PROMPT, TEXTS = "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water. Then wait.", "Ask a cook!"]


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return Model.open(run)


@pytest.fixture
def service(shared_service: Running) -> Running:
    return shared_service


def scores(service: Running, user: str, texts: list[str] = TEXTS) -> list[float]:
    answer = service.http.post(f"/v1/users/{user}/score", json={"prompt": PROMPT, "responses": texts})
    assert answer.status_code == 200, answer.text
    rewards: list[float] = answer.json()["rewards"]
    return rewards


def compare(service: Running, user: str, chosen: str, rejected: str, **headers: str) -> dict[str, Any]:
    body = {"comparisons": [{"prompt": PROMPT, "chosen": chosen, "rejected": rejected}]}
    answer = service.http.post(f"/v1/users/{user}/comparisons", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def test_scores_are_those_of_the_model(service: Running, model: Model) -> None:
    user = next(iter(model.method.seen_users()))
    answer = service.http.post(f"/v1/users/{user}/score", json={"prompt": PROMPT, "responses": TEXTS}).json()
    expected = model.score(user, PROMPT, TEXTS)
    assert answer["rewards"] == pytest.approx(expected, abs=1e-5)
    assert (answer["known"], answer["best"]) == (True, max(range(3), key=expected.__getitem__))
    assert answer["run"] == model.fingerprint


def test_a_newcomer_is_the_average_user_until_the_first_word_and_followed_at_once(
    service: Running, model: Model
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert scores(service, "new-1") == pytest.approx(model.score("nobody at all", PROMPT, TEXTS), abs=1e-5)
    assert compare(service, "new-1", TEXTS[0], TEXTS[1])["new"] is True
    compare(service, "new-1", TEXTS[2], TEXTS[1])
    said = [
        {"user_id": "new-1", "prompt": PROMPT, "chosen": text, "rejected": TEXTS[1]} for text in (TEXTS[0], TEXTS[2])
    ]
    expected = model.score("new-1", PROMPT, TEXTS, adapted=model.online("new-1", said).adapted)
    assert scores(service, "new-1") == pytest.approx(expected, abs=1e-5)
    seen = service.http.get("/v1/users/new-1").json()
    assert (seen["known"], seen["num_events"], seen["num_comparisons"]) == (True, 2, 2)


def test_a_vote_withdrawn_leaves_the_scores_of_before(service: Running) -> None:
    before = scores(service, "back")
    event = compare(service, "back", TEXTS[0], TEXTS[1])["events"][0]
    assert scores(service, "back") != before
    assert service.http.delete(f"/v1/users/back/events/{event}").json()["new"] is True
    assert scores(service, "back") == before
    assert service.http.delete(f"/v1/users/back/events/{event}").json()["new"] is False
    events = service.http.get("/v1/users/back/events").json()["events"]
    assert [(event["kind"], event["in_force"]) for event in events] == [("withdrawal", False), ("comparison", False)]
    assert service.http.delete("/v1/users/back/events/999999").status_code == 404


def test_a_request_sent_again_counts_once(service: Running) -> None:
    first = compare(service, "again", TEXTS[0], TEXTS[1], **{"Idempotency-Key": "k"})
    again = compare(service, "again", TEXTS[0], TEXTS[1], **{"Idempotency-Key": "k"})
    assert (first["events"], first["new"], again["new"]) == (again["events"], True, False)
    body = {"comparisons": [{"prompt": PROMPT, "chosen": TEXTS[1], "rejected": TEXTS[0]}]}
    answer = service.http.post("/v1/users/again/comparisons", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 409
    assert service.http.get("/v1/users/again").json()["num_events"] == 1


def test_ties_and_ratings_reach_the_scores_as_the_library_has_them(service: Running, model: Model) -> None:
    ratings = [{"prompt": PROMPT, "response": text, "rating": n} for n, text in enumerate(TEXTS)]
    assert service.http.post("/v1/users/rater/ratings", json={"ratings": ratings}).status_code == 200
    tie = {"prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[2], "tie": True}
    assert service.http.post("/v1/users/rater/comparisons", json={"comparisons": [tie]}).status_code == 200
    assert service.http.get("/v1/users/rater").json()["num_comparisons"] == 4
    followed = model.online("rater")
    for n, text in enumerate(TEXTS):
        followed.rate(PROMPT, text, n)
    followed.tie(PROMPT, TEXTS[0], TEXTS[2])
    expected = model.score("rater", PROMPT, TEXTS, adapted=followed.adapted)
    assert scores(service, "rater") == pytest.approx(expected, abs=1e-5)


def test_the_question_is_the_one_of_the_model_and_what_was_answered_is_not_asked_again(
    service: Running, model: Model
) -> None:
    candidates = [
        {"prompt": PROMPT, "first": first, "second": second}
        for first, second in [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[2]), (TEXTS[0], TEXTS[2])]
    ]
    expected = model.next_question("asked", [(c["prompt"], c["first"], c["second"]) for c in candidates])
    asked = service.http.post("/v1/users/asked/question", json={"candidates": candidates}).json()
    assert (asked["index"], asked["first"]) == (expected.index, expected.first)
    assert asked["information"] == pytest.approx(expected.information, abs=1e-6)
    for _ in range(3):
        asked = service.http.post("/v1/users/asked/question", json={"candidates": candidates}).json()
        compare(service, "asked", asked["first"], asked["second"])
    assert service.http.post("/v1/users/asked/question", json={"candidates": candidates}).status_code == 404


def test_what_is_damaged_in_the_store_is_named_and_nobody_else_is_disturbed(service: Running) -> None:
    compare(service, "unlucky", TEXTS[0], TEXTS[1])
    compare(service, "lucky", TEXTS[0], TEXTS[1])
    with service.service.log.writing() as connection:
        connection.exec_driver_sql("UPDATE copl_events SET body = '{' WHERE user_id = 'unlucky'")
    answer = service.http.get("/v1/users/unlucky/events")
    assert answer.status_code == 500
    assert "is damaged; put back a copy of the store" in answer.json()["error"]["message"]
    assert service.http.get("/v1/users/lucky/events").status_code == 200
    service.service.log.forget("unlucky")


def test_without_candidates_the_texts_of_the_run_are_asked_about(service: Running) -> None:
    first = service.http.get("/v1/users/pool/question").json()
    body = {"comparisons": [{"prompt": first["prompt"], "chosen": first["second"], "rejected": first["first"]}]}
    service.http.post("/v1/users/pool/comparisons", json=body)
    second = service.http.get("/v1/users/pool/question").json()
    assert (first["prompt"], first["first"], first["second"]) != (second["prompt"], second["first"], second["second"])
    assert second["confidence"] > first["confidence"]


def test_a_trained_user_is_not_asked_what_training_knows(service: Running, model: Model, small_data: Path) -> None:
    data = load_dataset(small_data)
    rows, table = data.split("train").comparisons, data.responses
    user, chosen, rejected = data.users.ids[int(rows.user[0])], int(rows.chosen[0]), int(rows.rejected[0])
    pair = {"prompt": table.prompts[chosen], "first": table.texts[rejected], "second": table.texts[chosen]}
    other = {"prompt": PROMPT, "first": TEXTS[0], "second": TEXTS[1]}
    asked = service.http.post(f"/v1/users/{user}/question", json={"candidates": [pair, other]}).json()
    assert (asked["index"], asked["first"]) == (1, TEXTS[0])
    alone = {"candidates": [pair]}
    assert service.http.post(f"/v1/users/{user}/question", json=alone).status_code == 404
    assert service.http.post("/v1/users/somebody else/question", json=alone).status_code == 200


def test_whoever_is_forgotten_is_the_average_user_even_if_trained(
    serving: Callable[..., Running], model: Model
) -> None:
    service = serving()
    user = sorted(model.method.seen_users())[3]
    average = scores(service, "nobody at all")
    compare(service, user, TEXTS[0], TEXTS[1])
    assert scores(service, user) != pytest.approx(average, abs=1e-7)
    answer = service.http.delete(f"/v1/users/{user}").json()
    assert (answer["status"], answer["num_events"]) == ("forgotten", 1)
    assert scores(service, user) == average
    seen = service.http.get(f"/v1/users/{user}").json()
    assert (seen["known"], seen["forgotten"], seen["num_events"]) == (False, True, 0)
    compare(service, user, TEXTS[0], TEXTS[1])
    assert scores(service, user) == scores_of_newcomer(service, TEXTS[0], TEXTS[1])


def scores_of_newcomer(service: Running, chosen: str, rejected: str) -> list[float]:
    compare(service, "a newcomer", chosen, rejected)
    return scores(service, "a newcomer")


def test_what_training_has_heard_already_is_not_counted_again(service: Running, model: Model) -> None:
    from copl.data.dataset import load_dataset

    data = load_dataset(model.run.data_directory)
    part = data.split("train").comparisons
    user = data.users.ids[int(part.user[0])]
    before = scores(service, user)
    texts, prompts = data.responses.texts, data.responses.prompts
    row = int(part.chosen[0]), int(part.rejected[0])
    body = {"comparisons": [{"prompt": prompts[row[0]], "chosen": texts[row[0]], "rejected": texts[row[1]]}]}
    assert service.http.post(f"/v1/users/{user}/comparisons", json=body).status_code == 200
    assert scores(service, user) == before


@pytest.mark.parametrize(
    "user",
    [
        "a/b",
        "a/events",
        "a/events/1",
        "%2F",
        "%252f",
        "ü ñ",
        "%2e%2e",
        "a?b=c",
        "x" * 256,
        "<script>",
        "' OR 1=1 --",
        "🙂",
    ],
)
def test_ids_of_any_kind_are_users(service: Running, user: str) -> None:
    from urllib.parse import quote

    path = quote(user, safe="")
    compare(service, path, TEXTS[0], TEXTS[1])
    assert service.http.get(f"/v1/users/{path}").json()["num_events"] == 1


def test_what_lies_below_a_user_is_no_user(service: Running) -> None:
    compare(service, "below", TEXTS[0], TEXTS[1])
    compare(service, "below%2Fevents", TEXTS[0], TEXTS[1])
    for path in ("below/events", "below/comparisons"):
        answer = service.http.delete(f"/v1/users/{path}")
        assert answer.status_code == 405, path
        assert "DELETE" not in answer.headers["Allow"]
    for path in ("below/nothing", "below/events/1/2", "", "/"):
        assert service.http.delete(f"/v1/users/{path}").status_code == 404, path
    assert {service.http.get(f"/v1/users/{user}").json()["num_events"] for user in ("below", "below%2Fevents")} == {1}
    forgotten = service.http.delete("/v1/users/below%2Fevents").json()
    assert (forgotten["user"], forgotten["num_events"]) == ("below/events", 1)
    assert service.http.get("/v1/users/below").json()["num_events"] == 1


def test_head_answers_as_get_without_a_body(service: Running) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/v1/me", "/", "/v1/users/head/events", "/v1/nothing", "/rerank"):
        asked, told = service.http.get(path), service.http.head(path)
        assert told.status_code == asked.status_code, path
        assert told.content == b""
        same = ("Content-Type", "Content-Length", "X-Content-Type-Options", "Allow")
        if path != "/metrics":  # they count these requests
            assert [told.headers.get(name) for name in same] == [asked.headers.get(name) for name in same]


def test_prompts_are_text_or_messages_of_one_spelling(service: Running) -> None:
    messages = [{"role": "user", "content": f" {PROMPT}\r\n"}]
    asked = {"prompt": messages, "responses": TEXTS}
    assert service.http.post("/v1/users/spelt/score", json=asked).json()["rewards"] == scores(service, "spelt")
