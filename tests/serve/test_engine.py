"""The one thread with the model: batches across requests, the same scores alone or in any batch, overload, health."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from copl.serve.engine import Engine, OverloadedError
from copl.serve.served import Asked, History
from copl.serve.server import listen
from copl.serve.settings import ServeOptions
from tests.serve.running import Running
from tests.serve.upstream import upstream

PROMPT = "How do I boil an egg?"


def texts_of(number: int) -> list[str]:
    return [f"Answer {number}: wait {place} minutes. " + "Really. " * (number + place) for place in range(3)]


@contextmanager
def busy(service: Running) -> Iterator[None]:
    """Keep the engine's thread busy, so that what is asked meanwhile waits."""
    begun, end = threading.Event(), threading.Event()

    def work(_: Any) -> None:
        begun.set()
        end.wait(60)

    future = service.service.engine.call(work)
    begun.wait(60)
    try:
        yield
    finally:
        end.set()
        future.result(60)


def ask(service: Running, number: int) -> list[float]:
    """Ask for rewards in one of the dialects."""
    user, texts = f"user {number % 5}", texts_of(number)
    if number % 4 == 0:
        body: dict[str, Any] = {"prompt": PROMPT, "responses": texts}
        answer = service.http.post(f"/v1/users/{user}/score", json=body).json()
        return list(answer["rewards"])
    if number % 4 == 1:
        answer = service.http.post("/score", json={"text_1": PROMPT, "text_2": texts, "user": user}).json()
        return [one["score"] for one in answer["data"]]
    if number % 4 == 2:
        body = {"query": [PROMPT + text for text in texts], "prompts": [PROMPT] * 3, "labels": [user, None, user]}
        return list(service.http.post("/v1/openrlhf", json=body).json()["rewards"])
    body = {"query": PROMPT, "documents": texts, "user": user, "raw_scores": True}
    answer = service.http.post("/rerank", json=body).json()
    return [one["relevance_score"] for one in sorted(answer["results"], key=lambda result: result["index"])]


def waiting(service: Running, count: int) -> bool:
    """Wait until so many requests wait for the model."""
    for _ in range(1000):
        if service.service.engine.load.num_jobs >= count:
            return True
        threading.Event().wait(0.01)
    return False


def test_requests_of_all_dialects_are_scored_in_one_batch_as_each_alone(
    serving: Callable[..., Running], other_run: Path, tmp_path: Path
) -> None:
    together = serving()
    said = {"comparisons": [{"prompt": PROMPT, "chosen": texts_of(1)[0], "rejected": texts_of(1)[1]}]}
    assert together.http.post("/v1/users/user 1/comparisons", json=said).status_code == 200
    with ThreadPoolExecutor(12) as pool:
        with busy(together):
            answers = [pool.submit(ask, together, number) for number in range(12)]
            assert waiting(together, 12)
        in_batch = [answer.result(60) for answer in answers]
    value = together.service.metrics.value
    assert value("copl_batch_texts_bucket", le="64.0") - value("copl_batch_texts_bucket", le="32.0") == 1
    alone = serving()  # it has read none of these texts before
    for number in reversed(range(12)):
        assert ask(alone, number) == pytest.approx(in_batch[number], abs=2e-6)
        assert ask(alone, number) == ask(alone, number)


def test_half_of_what_waits_is_scored_while_the_other_half_comes(serving: Callable[..., Running]) -> None:
    service = serving()
    value, nobody = service.service.metrics.value, History("nobody", (0, 0), ())
    before = {size: value("copl_batch_texts_bucket", le=size) for size in ("64.0", "128.0", "256.0")}
    with busy(service):
        answers = [
            service.service.engine.score([Asked(nobody, (PROMPT,) * 3, tuple(texts_of(number % 9)))])
            for number in range(60)
        ]
    rewards = [answer.result(60)[0].rewards for answer in answers]
    assert rewards[:9] * 6 == rewards[:54]
    after = {size: value("copl_batch_texts_bucket", le=size) - count for size, count in before.items()}
    assert after["128.0"] - after["64.0"] == 2, "180 texts, 90 at a time"
    assert after["256.0"] == after["128.0"]


def test_health_and_figures_answer_while_the_model_works(shared_service: Running) -> None:
    with busy(shared_service):
        for path in ("/healthz", "/readyz", "/metrics"):
            assert shared_service.http.get(path).status_code == 200
        assert "copl_queue_requests 0.0" in shared_service.http.get("/metrics").text


def test_too_much_is_refused_with_a_time_to_come_again(serving: Callable[..., Running]) -> None:
    service = serving(queue=2)
    with ThreadPoolExecutor(2) as pool:
        with busy(service):
            answers = [pool.submit(ask, service, number) for number in range(2)]
            assert waiting(service, 2)
            refused = service.http.post("/score", json={"text_1": PROMPT, "text_2": ["a"]})
            assert refused.status_code == 503
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert "2 requests wait" in refused.json()["error"]["message"]
        assert all(len(answer.result(60)) == 3 for answer in answers), "what was accepted is answered"


def test_an_answer_that_was_on_its_way_to_somebody_who_is_forgotten_is_not_kept(
    serving: Callable[..., Running],
) -> None:
    asked = {"messages": [{"role": "user", "content": PROMPT}], "user": "ann"}
    with upstream() as (url, _), ThreadPoolExecutor(2) as pool:
        service = serving(upstream=url)
        with busy(service):
            answer = pool.submit(service.http.post, "/v1/chat/completions", json=asked)
            assert waiting(service, 1)
            forgotten = pool.submit(service.http.delete, "/v1/users/ann")
            assert waiting(service, 2)
        assert (answer.result(60).status_code, forgotten.result(60).status_code) == (200, 200)
        said = {"completion_id": answer.result().json()["id"], "chosen": 0}
        assert service.http.post("/v1/feedback", json=said).status_code == 404
        assert service.service.log.of_user("ann") == []
        assert service.http.post("/v1/chat/completions", json=asked).status_code == 200
        assert len(service.service.log.of_user("ann")) == 1, "who comes again is kept again"


def test_refused_requests_and_faults_are_counted(serving: Callable[..., Running]) -> None:
    service = serving(max_body=1000)
    assert service.http.post("/score", content=b" " * 2000).status_code == 413
    assert service.counted(route="none", status="413") == 1
    service.service.log.count_by_day = None  # type: ignore[method-assign,assignment]  # a bug of ours
    assert service.http.get("/v1/admin/overview").status_code == 500
    assert service.counted(route="/v1/admin/overview", status="500") == 1


def test_before_the_model_is_loaded_the_port_answers_and_what_is_said_is_stored(
    serving: Callable[..., Running],
) -> None:
    service = serving(wait=False)
    with_model = service.http.get("/readyz").status_code == 200
    assert service.http.get("/healthz").json() == {"status": "ok"}
    said = {"comparisons": [{"prompt": PROMPT, "chosen": "a", "rejected": "b"}]}
    assert service.http.post("/v1/users/ann/comparisons", json=said).status_code == 200
    scored = service.http.post("/v1/users/ann/score", json={"prompt": PROMPT, "responses": ["a"]})
    assert with_model or scored.status_code == 200 or scored.headers["Retry-After"] == "1"


def test_an_answer_in_two_packets_does_not_wait_for_the_first_to_be_confirmed() -> None:
    with listen(ServeOptions(port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP, "without it asyncio leaves Nagle's algorithm on, for 40 ms each"


def test_whoever_asks_as_soon_as_the_address_is_told_is_not_refused() -> None:
    with listen(ServeOptions(port=0)) as listening, socket.create_connection(listening.getsockname(), timeout=10):
        pass


def test_an_engine_without_a_model_or_stopped_refuses() -> None:
    engine = Engine(max_jobs=1, max_texts=1)
    engine.start()
    with pytest.raises(OverloadedError, match="being loaded"):
        engine.call(lambda served: None)
    engine.stop()
    with pytest.raises(OverloadedError, match="being stopped"):
        engine.call(lambda served: None)


def test_a_fault_is_told_to_whoever_asked_and_the_thread_goes_on(shared_service: Running) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shared_service.service.engine.call(fail).result(60)
    assert len(ask(shared_service, 0)) == 3
