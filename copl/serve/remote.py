"""A reward function for TRL that asks a service, so that the trainer's machine needs neither the run nor its model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

from copl.data.completions import UnknownUsers, read_completions, read_users
from copl.data.reading.faults import Faults
from copl.errors import CoplError, OptionsError, one_line

_PATIENCE = 120.0
_MOST_BYTES = 3 << 20
"""Of texts that are sent at once; a service takes 4 MiB with all that stands around them, unless told otherwise."""


@final
class RemoteReward:
    """Rewards of completions, each for its own user; give it to ``GRPOTrainer(reward_funcs=…)``.

    A column ``user_id`` of the data set names the user of each prompt. Prompts and completions are text or messages.

    Args:
        url: address of the service, such as ``http://127.0.0.1:8199``.
        token: its token, of scope service where there are several users.
        user: the user of rows that name none; the average user unless given.
        batch: completions that are sent at once; fewer where they are long, for a service takes so many bytes.
    """

    __name__ = "copl"  # what TRL calls the reward in its log

    def __init__(self, url: str, *, token: str | None = None, user: str | None = None, batch: int = 256) -> None:
        try:
            import httpx  # noqa: F401  # a missing extra is told before training begins
        except ImportError as error:
            raise OptionsError("asking a service needs httpx: pip install 'copl[serve]'") from error
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._url, self._headers = url.rstrip("/"), headers
        self._user, self._batch = user, batch
        self._unknown = UnknownUsers()

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], user_id: Any = None, **columns: Any
    ) -> list[float]:
        """Return the reward of each completion, as `copl.Model.reward_function` does where the run is.

        Users nobody knows get the average user's, with one `UnknownUserWarning`.

        Args:
            prompts: text, or chat messages, of each completion [N].
            completions: text, or chat messages of which the last is the response [N].
            user_id: the user's id of each, or one for all.
            columns: what else TRL hands over; not regarded.

        Raises:
            CoplError: one fault for each argument that is none of this, or the service refuses or cannot be reached.
        """
        faults = Faults("reward function")
        pairs = read_completions(prompts, completions, faults)
        users = read_users(user_id, len(pairs), "user_id", faults)
        faults.raise_any()
        rewards: list[float] = []
        for part in self._parts(pairs):
            body = {
                "prompts": [prompt for prompt, _ in pairs[part]],
                "completions": [text for _, text in pairs[part]],
                "user_id": [user or None for user in users[part]],
                "user": self._user,
            }
            answer = self._ask(body)
            self._unknown.tell(answer["unknown"])
            rewards += answer["rewards"]
        return rewards

    def _parts(self, pairs: Sequence[tuple[str, str]]) -> Iterator[slice]:
        """Yield what of the pairs is sent at once."""
        start, total = 0, 0
        for place, pair in enumerate(pairs):
            size = sum(len(json.dumps(text)) for text in pair)  # as long as any writing of them in JSON
            if place > start and (place - start == self._batch or total + size > _MOST_BYTES):
                yield slice(start, place)
                start, total = place, 0
            total += size
        if pairs:
            yield slice(start, len(pairs))

    def _ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                answer = httpx.post(f"{self._url}/v1/rewards", json=body, headers=self._headers, timeout=_PATIENCE)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise CoplError(f"{self._url}: cannot be reached: {one_line(str(error))}") from error
            seconds = answer.headers.get("retry-after", "")
            if answer.status_code in (429, 503) and seconds.isdecimal() and time.monotonic() < deadline:
                time.sleep(int(seconds))
                continue
            if answer.status_code != 200:
                raise CoplError(f"{self._url}: {_fault(answer)}")
            content: dict[str, Any] = answer.json()
            return content


def _fault(answer: Any) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"answers with status {answer.status_code}"
