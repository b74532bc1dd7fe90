"""Kill, restart, a new run under load, a trainer beside the service: nothing lost, nothing twice, nothing mixed."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from copl import Model
from copl.data.events.log import EventLog
from copl.errors import UnknownUserWarning
from copl.plugins import load
from tests.serve.processes import process
from tests.serve.running import Running

PROMPT, TEXTS = "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water. Then wait.", "Ask a cook!"]


def vote(number: int) -> dict[str, Any]:
    chosen, rejected = (TEXTS[0], TEXTS[1 + number % 2])
    return {"comparisons": [{"prompt": f"{PROMPT} {number}", "chosen": chosen, "rejected": rejected}]}


def test_every_acknowledged_vote_is_there_once_after_kills(run: Path, tmp_path: Path) -> None:
    store = tmp_path / "events.sqlite"
    acknowledged: set[str] = set()
    rng = random.Random(0)
    for round_ in range(3):
        with process(run, store) as (server, url):

            def send(first: int, url: str = url) -> None:
                with httpx.Client(base_url=url, timeout=20) as client:
                    for number in range(first, first + 200):
                        key = f"k{number}"
                        try:
                            path = f"/v1/users/user {number % 7}/comparisons"
                            answer = client.post(path, json=vote(number), headers={"Idempotency-Key": key})
                        except httpx.HTTPError:
                            return
                        if answer.status_code == 200:
                            acknowledged.add(key)

            # each round sends again what the round before may not have got through
            threads = [threading.Thread(target=send, args=(100 * round_ + 1000 * worker,)) for worker in range(4)]
            for thread in threads:
                thread.start()
            begun = len(acknowledged)
            for _ in range(6000):
                if len(acknowledged) > begun:
                    break
                threading.Event().wait(0.01)
            threading.Event().wait(rng.random())
            server.send_signal(signal.SIGKILL)
            for thread in threads:
                thread.join(30)
    assert acknowledged
    log = EventLog(store)
    keys = [event.key for _, events in log.by_user() for event in events]
    log.close()
    assert len(keys) == len(set(keys))
    assert acknowledged <= set(keys)


def test_states_after_a_restart_are_those_of_a_replay(serving: Callable[..., Running], run: Path) -> None:
    first = serving()
    for number in range(4):
        assert first.http.post("/v1/users/ann/comparisons", json=vote(number)).status_code == 200
    body = {"prompt": PROMPT, "responses": TEXTS}
    before = first.http.post("/v1/users/ann/score", json=body).json()["rewards"]
    second = serving()
    assert second.http.post("/v1/users/ann/score", json=body).json()["rewards"] == pytest.approx(before, abs=2e-6)
    model = Model.open(run)
    rows = [{"user_id": "ann", **vote(number)["comparisons"][0]} for number in range(4)]
    with pytest.warns(UnknownUserWarning, match="user 'ann' has said nothing that tells"):  # of texts nobody knows
        replayed = model.score("ann", PROMPT, TEXTS, adapted=model.online("ann", rows).adapted)
    assert before == pytest.approx(replayed, abs=2e-6)
    assert second.http.post("/v1/users/ann/comparisons", json=vote(9)).status_code == 200
    seen = first.http.get("/v1/users/ann").json()
    assert seen["num_comparisons"] == 5, "what one service hears, the other knows at once"


def test_a_data_set_is_made_while_people_go_on_voting(serving: Callable[..., Running]) -> None:
    service = serving()
    ended = threading.Event()
    statuses: list[int] = []

    def write() -> None:
        number = 0
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while not ended.is_set() and number < 500:
                answer = client.post(f"/v1/users/user {number % 5}/comparisons", json=vote(number))
                statuses.append(answer.status_code)
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    store = service.service.log.url.removeprefix("sqlite:///")
    sizes = []
    try:
        while len(sizes) < 5 and writer.is_alive():
            if len(statuses) >= 20 * (len(sizes) + 1):
                data = load().registry("source").create("events", {"store": store}).load(seed=0)
                sizes.append(len(data.responses))
    finally:
        ended.set()
        writer.join(60)
    assert set(statuses) == {200}
    assert sizes == sorted(sizes)
    assert sum(service.service.log.count_by_user().values()) == len(statuses)


def test_a_new_run_takes_over_without_an_error_and_no_answer_mixes_two(
    serving: Callable[..., Running], run: Path, other_run: Path, tmp_path: Path
) -> None:
    current = tmp_path / "current"
    current.symlink_to(run)
    service = serving(of=current, refresh=0.2)
    models = {model.fingerprint: model for model in (Model.open(run), Model.open(other_run))}
    user = sorted(models[service.http.get("/readyz").json()["run"]].method.seen_users())[0]
    expected = {name: model.score(user, PROMPT, TEXTS) for name, model in models.items()}
    assert len(models) == 2
    answers: list[dict[str, Any]] = []
    ended = threading.Event()

    def score() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while not ended.is_set():
                answer = client.post(f"/v1/users/{user}/score", json={"prompt": PROMPT, "responses": TEXTS})
                answers.append({**answer.json(), "status": answer.status_code})
                threading.Event().wait(0.005)

    threads = [threading.Thread(target=score) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        new = tmp_path / "new"
        new.symlink_to(other_run)
        new.rename(current)
        for _ in range(1200):
            if answers and answers[-1].get("run") == Model.open(other_run).fingerprint:
                break
            threading.Event().wait(0.1)
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert {answer["status"] for answer in answers} == {200}
    assert {answer["run"] for answer in answers} == set(models)
    for answer in answers:
        assert answer["rewards"] == pytest.approx(expected[answer["run"]], abs=2e-6)
    served = service.service.engine.served
    assert served is not None
    assert served.model.run.root == other_run.resolve(), "whatever the link is set to next"
    (before,) = {*models} - {answers[-1]["run"]}
    assert service.http.get("/v1/admin/overview").json()["previous"]["run"] == before


def test_a_run_that_cannot_be_served_leaves_the_one_before(
    serving: Callable[..., Running], run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    current = tmp_path / "current"
    current.symlink_to(run)
    service = serving(of=current)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{}")
    current.unlink()
    current.symlink_to(broken)
    assert service.http.post("/v1/admin/refresh").json() == {"status": "looking"}
    for _ in range(200):
        if "cannot be served" in caplog.text:
            break
        threading.Event().wait(0.05)
    assert "the one before stays" in caplog.text
    assert service.http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nowhere"], "not a run directory"),
        (["RUN", "--host", "0.0.0.0"], "needs tokens"),
        (["RUN", "--upstream", "x"], "expected an address"),
        (["RUN", "--store", "mysql://a:geheim@h/d"], "only sqlite and postgresql"),
        (["RUN", "--port", "99999"], "--port"),
        (["RUN", "--generator", "no-such"], "--generator no-such"),
        (["token", "new", "RUN", "--scope", "user"], "--user"),
        (["token", "new", "RUN", "--scope", "root"], "expected user, service, admin"),
        (["token", "new"], "name the RUN"),
        (["token", "revoke", "7", "RUN"], "no such store"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    run: Path, tmp_path: Path, run_copl: Callable[..., tuple[int, str, str]], arguments: list[str], fault: str
) -> None:
    given = [str(run) if word == "RUN" else word for word in arguments]
    if "--store" not in given and arguments != ["token", "new"]:
        given += ["--store", str(tmp_path / "s.sqlite")]
    code, out, err = run_copl("serve", *given)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert fault in line
    assert "geheim" not in line


def test_tokens_are_made_listed_and_revoked(
    run: Path, tmp_path: Path, run_copl: Callable[..., tuple[int, str, str]]
) -> None:
    store = ["--store", str(tmp_path / "s.sqlite")]
    code, secret, err = run_copl(
        "serve", "token", "new", "--scope", "user", "--user", " ann ", "--name", "her phone", *store
    )
    assert (code, secret.startswith("copl_"), "cannot be shown again" in err) == (0, True, True)
    _, out, _ = run_copl("serve", "token", "list", "--json", *store)
    assert '"user": "ann"' in out
    assert secret.strip() not in out
    assert run_copl("serve", "token", "revoke", 1, *store)[0] == 0
    code, _, err = run_copl("serve", "token", "revoke", 1, *store)
    assert code == 2
    assert "token 1: there is none in force" in err
    assert "revoked" in run_copl("serve", "token", "list", *store)[1]
