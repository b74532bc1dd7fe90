"""The page in a real Chromium: try, teach, you, operators; by keyboard, on a phone, in the dark."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from copl.data.dataset import load_dataset
from tests.serve.running import Running
from tests.serve.upstream import TEXTS, upstream

CHROMIUM = Path("/usr/bin/chromium")
PICTURES = os.environ.get("COPL_SCREENSHOTS")
"""Directory to leave pictures of the page in, for a person to look at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip("no /usr/bin/chromium (Debian: apt-get install chromium)")
    with api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page as somebody; a fault in its script fails the test."""
    faults: list[str] = []
    contexts = []

    def open_page(service: Running, user: str, part: str = "try", **how: Any) -> Any:
        context = browser.new_context(**how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # for what hangs: a busy machine takes its time
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Security Policy" in said.text else None)
        page.on("requestfailed", lambda request: faults.append(request.url))
        page.on(
            "request",
            lambda request: None if request.url.startswith((service.url, "data:")) else faults.append(request.url),
        )
        page.goto(f"{service.url}/#{part}")
        page.get_by_label("You are").fill(user)
        page.get_by_role("button", name="Go").click()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


@pytest.fixture
def service(serving: Callable[..., Running]) -> Iterator[Running]:
    with upstream() as (url, _):
        yield serving(upstream=url)


def idle(page: Any) -> None:
    page.locator("body:not([aria-busy])").wait_for()


def test_five_answers_change_a_persons_own_order(service: Running, visit: Callable[..., Any], small_data: Path) -> None:
    responses = load_dataset(small_data).responses
    prompt = list(dict.fromkeys(responses.prompts))[2]
    texts = [text for one, text in zip(responses.prompts, responses.texts, strict=True) if one == prompt][:4]
    page = visit(service, "ann <b>&amp;")
    page.get_by_label("Your question").fill(prompt)
    page.get_by_text("Bring the answers along").click()
    page.get_by_label("One answer a paragraph").fill("\n\n".join(texts))
    page.get_by_role("button", name="Ask").click()
    page.locator("#ranking li").nth(3).wait_for()
    before = page.locator("#ranking li p").all_text_contents()
    assert sorted(before) == sorted(texts)
    assert page.locator("#left").text_content() == before[0]
    page.get_by_role("button", name=f"This is the best: {before[-1][:60]}").click()
    idle(page)
    for _ in range(4):  # somebody whose taste is the very opposite
        shown = [page.locator(side).text_content() for side in ("#left", "#right")]
        side = max(
            ("#left-better", before.index(shown[0])), ("#right-better", before.index(shown[1])), key=lambda x: x[1]
        )
        page.locator(side[0]).click()
        idle(page)
    after = page.locator("#ranking li p").all_text_contents()
    assert sorted(after) == sorted(texts)
    assert after.index(before[-1]) < 3, "what was last, and chosen five times, is last no more"
    assert after.index(before[0]) > 0, "what was first, and rejected each time, is first no more"
    assert 3 <= service.http.get("/v1/users/ann%20%3Cb%3E&amp;").json()["num_comparisons"] <= 6


def test_the_language_model_writes_and_the_choice_stands_beside_everybodys(
    service: Running, visit: Callable[..., Any]
) -> None:
    page = visit(service, "gil")
    page.get_by_label("Your question").fill("How do I boil an egg?")
    page.get_by_role("button", name="Ask").click()
    page.locator("#ranking li").nth(3).wait_for()
    assert sorted(page.locator("#ranking li p").all_text_contents()) == sorted(TEXTS)
    picture(page, "try")
    page.locator("#right-better").click()
    page.get_by_text("This is your order now").wait_for()
    assert service.http.get("/v1/users/gil").json()["num_comparisons"] == 1


def test_teaching_by_keyboard_makes_the_system_surer(service: Running, visit: Callable[..., Any]) -> None:
    page = visit(service, "ben", "teach", color_scheme="dark")
    page.locator("#question").wait_for()
    sure = float(page.locator("#sure").get_attribute("value") or page.evaluate("document.getElementById('sure').value"))
    picture(page, "teach-dark")
    for number, key in enumerate("12101", start=1):
        page.locator("body").press(key)
        page.get_by_text(f"{number} answer").wait_for()
        idle(page)
    assert page.evaluate("document.getElementById('sure').value") > sure
    assert service.http.get("/v1/users/ben").json()["num_events"] == 5
    page.get_by_role("tab", name="Teach").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="You").get_attribute("aria-selected") == "true"
    page.locator("#map .me").wait_for()
    idle(page)
    picture(page, "you-dark")


def test_what_was_said_is_seen_withdrawn_and_forgotten_on_a_phone(service: Running, visit: Callable[..., Any]) -> None:
    said = [
        {"prompt": "p <script>alert(1)</script>", "chosen": f"<img src=x onerror=alert({n})>", "rejected": "b"}
        for n in range(2)
    ]
    service.http.post("/v1/users/cat/comparisons", json={"comparisons": said})
    service.http.post(
        "/v1/users/cat/comparisons",
        json={"comparisons": [{"prompt": "Tea?", "chosen": "Yes.", "rejected": "No.", "tie": True}]},
    )
    shown = service.http.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": "Egg?"}], "user": "cat"}
    ).json()
    service.http.post("/v1/feedback", json={"completion_id": shown["id"], "chosen": 1})
    page = visit(service, "cat", "you", viewport={"width": 375, "height": 720})
    page.locator("#events button").nth(3).wait_for()
    choice, tie = (page.locator("#events li").nth(place) for place in (0, 1))
    assert shown["copl"]["candidates"][1] in choice.inner_text()
    assert "Egg?" in choice.inner_text()
    assert tie.locator(".liked, .disliked").count() == 0, "of a tie neither is"
    assert page.locator("#events img, #events script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    picture(page, "you-phone")
    page.locator("#events button").nth(3).click()
    page.get_by_text("Withdrawn.").wait_for()
    assert service.http.get("/v1/users/cat").json()["num_comparisons"] == len(TEXTS) - 1 + 2
    page.get_by_role("button", name="Forget me").click()
    page.get_by_role("button", name="Yes, forget everything").click()
    page.get_by_text("You are forgotten.").wait_for()
    assert service.http.get("/v1/users/cat").json()["forgotten"] is True


def test_operators_see_users_and_runs_and_others_do_not(service: Running, visit: Callable[..., Any]) -> None:
    service.http.post("/v1/users/dan/ratings", json={"ratings": [{"prompt": "p", "response": "a", "rating": 1}]})
    page = visit(service, "dan", "operators")
    page.locator("#users td").first.wait_for()
    assert page.locator("#users td").first.inner_text() == "dan"
    assert "rating" in page.locator("#days").inner_text()
    picture(page, "operators")
    header = service.token("user", "dan")["Authorization"]
    other = visit(service, "dan")
    other.locator("#token").fill(header.removeprefix("Bearer "))
    other.get_by_role("button", name="Go").click()
    other.get_by_text("Hello, dan.").wait_for()
    assert other.get_by_role("tab", name="Operators").count() == 0
    assert other.locator("#user").get_attribute("readonly") is not None


def test_without_a_writer_a_person_brings_the_answers_along(
    serving: Callable[..., Running], visit: Callable[..., Any]
) -> None:
    page = visit(serving(generator="none"), "eve", viewport={"width": 375, "height": 720}, color_scheme="dark")
    page.get_by_label("Your question").fill("How do I boil an egg?")
    page.get_by_label("One answer a paragraph").fill("Eight minutes.\n\nAsk a cook!\n\nPlace the egg in water.")
    page.get_by_role("button", name="Ask").click()
    page.locator("#ranking li").nth(2).wait_for()
    picture(page, "try-phone-dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_whoever_has_said_no_name_is_asked_for_one_and_a_part_opened_meanwhile_is_loaded(
    service: Running, visit: Callable[..., Any]
) -> None:
    page = visit(service, "", "you")
    asked = page.get_by_text("Say who you are first")
    asked.wait_for()
    assert not page.locator("#map").is_visible()
    page.get_by_role("tab", name="Try").click()
    assert not asked.is_visible()
    page.get_by_role("tab", name="Teach").click()
    assert asked.is_visible()
    picture(page, "nobody-teach")
    page.get_by_label("You are").fill("gus")
    page.get_by_role("button", name="Go").click()
    page.get_by_role("tab", name="You").click()  # while the question is fetched
    page.get_by_text("I know nothing of you yet").wait_for()
    assert not asked.is_visible()


def test_everything_to_press_has_a_name_and_every_field_a_label(service: Running, visit: Callable[..., Any]) -> None:
    page = visit(service, "fay")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, meter, svg[role=img]')].filter((one) =>
             !(one.textContent.trim() || one.getAttribute('aria-label') || one.getAttribute('aria-labelledby')
               || (one.labels && one.labels.length))).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelectorAll('[role=tabpanel]:not([hidden])').length") == 1


def test_the_page_is_one_host_with_a_strict_policy(service: Running) -> None:
    answer = service.http.get("/")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "style=" not in answer.text
    assert "http" not in answer.text.replace(service.url, "")
    for path in ("/page/style.css", "/page/page.js", "/page/icon.svg"):
        assert service.http.get(path).status_code == 200
