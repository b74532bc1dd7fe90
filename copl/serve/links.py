"""What may follow an answer, as links of the OpenAPI document: readers, generated clients and fuzzers go on by them."""

from __future__ import annotations

from collections.abc import Mapping


def links(**named: Mapping[str, object]) -> dict[int | str, dict[str, object]]:
    """Return links of the successful answer of a route, by name, as its ``responses``."""
    return {200: {"links": dict(named)}}


def link(
    operation: str, description: str, *, body: Mapping[str, object] | None = None, **parameters: str
) -> Mapping[str, object]:
    """Return a link.

    Args:
        operation: name of the function behind the route that follows.
        description: what it is good for.
        body: the request's body; texts that begin with ``$`` are runtime expressions of OpenAPI, such as
            ``$response.body#/id``.
        parameters: its parameters, in the same way.
    """
    given = {"operationId": operation, "description": description, "parameters": parameters}
    return given if body is None else {**given, "requestBody": dict(body)}


WITHDRAW = link("withdraw", "Take it back.", user="$response.body#/user", event="$response.body#/events/0")
SCORE = link(
    "score",
    "Rewards of the same responses as of now.",
    user="$response.body#/user",
    body={
        "prompt": "$request.body#/comparisons/0/prompt",
        "responses": ["$request.body#/comparisons/0/chosen", "$request.body#/comparisons/0/rejected"],
    },
)
ANSWER = link(
    "compare",
    "Say that the first is better.",
    user="$response.body#/user",
    body={
        "comparisons": [
            {
                "prompt": "$response.body#/prompt",
                "chosen": "$response.body#/first",
                "rejected": "$response.body#/second",
            }
        ]
    },
)
"""Links of several routes, or of one, too long to stand there."""
