"""An OpenAI-compatible server that writes the same few answers, for tests."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEXTS = (
    "Eight minutes.",
    "Place the egg in cold water. Then wait.",
    "Ask a cook! It is fun, and you will laugh a lot.",
    "First, boil water. Second, add the egg. For example, a large one.",
)


@contextmanager
def upstream(
    texts: Sequence[str] = TEXTS, *, most: int = 64, status: int = 200, num_sound: int | None = None, **changes: Any
) -> Iterator[tuple[str, list[Any]]]:
    """Run the server; give its address and the list of what it was asked.

    Args:
        texts: what it writes, in turn.
        most: choices it gives at once, whatever is asked for.
        status: what it answers with.
        num_sound: after so many answers it fails.
        changes: fields of its answers that are otherwise.
    """
    asked: list[Any] = []
    turns = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def _answer(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status if num_sound is None or len(asked) <= num_sound else 500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._answer({"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "x"}]})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(request)
            num = min(request.get("n") or 1, most)
            choices = [
                {
                    "index": place,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": texts[next(turns) % len(texts)]},
                }
                for place in range(num)
            ]
            usage = {"prompt_tokens": 3, "completion_tokens": 5 * num, "total_tokens": 3 + 5 * num}
            head = {"id": "x", "object": "chat.completion", "created": 0, "model": "tiny"}
            self._answer({**head, "choices": choices, "usage": usage, **changes})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
