"""The quick start of docs/serve.md, done for real: the program on a run, and the Python of the page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from copl import Model
from copl.data.dataset import load_dataset
from tests.serve.processes import process

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def url(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the program, which writes answers itself."""
    store = tmp_path_factory.mktemp("store") / "events.sqlite"
    with (
        process(run, store, "--generator", "facets") as (_, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for _ in range(1200):
            if client.get("/readyz").status_code == 200:
                break
            time.sleep(0.1)
        yield address


def test_the_python_of_the_page_speaks_to_the_program(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block.replace("http://127.0.0.1:8199", url), "docs/serve.md", "exec"), {})
    answers = capsys.readouterr().out.strip()
    assert answers
    assert "None" not in answers


def test_users_of_different_taste_get_different_answers_to_the_same_messages(
    url: str, run: Path, small_data: Path
) -> None:
    model, data = Model.open(run), load_dataset(small_data)
    rows, seen = data.users.rows, sorted(model.method.seen_users())
    users = {data.users.groups[rows[user]]: user for user in seen}.values()
    assert len(users) > 1
    prompts = list(dict.fromkeys(data.responses.prompts))[:3]
    num_different = 0
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for prompt in prompts:
            candidates, shown = set(), set()
            for user in users:
                asked = [{"role": "user", "content": prompt}]
                made = client.chat.completions.create(model="", messages=asked, user=user, seed=7)  # type: ignore[arg-type]  # plain messages
                texts = made.model_extra["copl"]["candidates"]  # type: ignore[index]  # the service adds it
                rewards = model.score(user, prompt, texts)
                assert made.choices[0].message.content == texts[0]
                assert rewards[0] == max(rewards), "each gets what the model takes for the best of the same texts"
                candidates.add(tuple(sorted(texts)))
                shown.add(texts[0])
            assert len(candidates) == 1, "the same texts for everybody"
            num_different += len(shown) > 1
    assert num_different, "nobody is answered otherwise than anybody else"
