"""`examples/ray_serve.py`: two replicas of Ray Serve on one PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ray_serve.py"
PROMPT, TEXTS = "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water. Then wait."]


@pytest.fixture
def address(postgresql: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ray[serve]'")
    pytest.importorskip(
        "ray.serve", reason="Ray Serve is not installed: pip install 'ray[serve]'", exc_type=ImportError
    )
    from ray import serve

    variables = {"COPL_RUN": str(run), "COPL_STORE": postgresql, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        spec = importlib.util.spec_from_file_location("copl_ray_serve", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        serve.run(module.app)
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, in all its processes
def test_what_one_replica_hears_the_other_knows(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        ready: set[int] = set()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(ready) < 20:
            if client.get("/readyz").status_code == 200:
                ready.add(len(ready))
            else:
                time.sleep(0.2)
        asked = {"prompt": PROMPT, "responses": TEXTS}
        said = {"comparisons": [{"prompt": PROMPT, "chosen": TEXTS[1], "rejected": TEXTS[0]}]}
        before = client.post("/v1/users/ray/score", json=asked).json()["rewards"]
        for number in range(4):
            answer = client.post("/v1/users/ray/comparisons", json=said, headers={"Idempotency-Key": "once"}).json()
            assert answer["new"] is (number == 0)
        after = [client.post("/v1/users/ray/score", json=asked).json()["rewards"] for _ in range(8)]
        assert after[0] != before
        assert all(one == pytest.approx(after[0], abs=1e-6) for one in after), "whichever replica answers"
