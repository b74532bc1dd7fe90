"""The picture of `benchmarks.data_need`: gains over the best that knows no users, a map a sharing and kind of users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

Gains: TypeAlias = "Mapping[tuple[str, str], Mapping[tuple[int, int], float]]"
"""By sharing and split: by number of users and of comparisons, the difference of accuracy."""

_SPLITS = ("seen users", "unseen users")
_SIDE, _LEFT, _GAP, _TOP, _HEIGHT = 25, 52, 24, 66, 22
_FULL = 0.30
"""The gain that has the full colour."""


def heat_maps(gains: Gains) -> str:
    """Return the picture as SVG; its style is filled in by ``docs/generate.py``."""
    sharings = [*dict.fromkeys(sharing for sharing, _ in gains)]
    users = sorted({place[0] for cells in gains.values() for place in cells})
    each = sorted({place[1] for cells in gains.values() for place in cells})
    block = len(users) * _HEIGHT + 46
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" viewBox="0 0 400 {_TOP + len(sharings) * block}"'
        ' role="img">',
        "<title>From where on a model is personal</title>",
        "<desc>Maps of numbers of users by comparisons of each, one for each share of responses that users have in"
        " common, for seen and for unseen users. Each cell is by how many points of accuracy the personal model is"
        " ahead of the best that knows no users: green where it is ahead, red where it is behind.</desc>",
        "<style>",
        "</style>",
        '<text x="0" y="16" class="strong">Points ahead of the best that knows no users</text>',
        '<text x="0" y="36" class="small soft">down: number of users; across: comparisons of each</text>',
    ]
    for column, split in enumerate(_SPLITS):
        left = _LEFT + column * (len(each) * _SIDE + _GAP)
        lines.append(f'<text x="{left}" y="58">{split}</text>')
        for row, sharing in enumerate(sharings):
            top = _TOP + row * block
            lines += _map(gains.get((sharing, split), {}), users, each, left, top + 22)
            if column == 0:
                lines.append(f'<text x="0" y="{top + 14}" class="small strong">users {sharing}</text>')
                for place, count in enumerate(users):
                    y = top + 22 + place * _HEIGHT + 15
                    lines.append(f'<text x="{_LEFT - 6}" y="{y}" class="small soft end">{count:,}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _map(
    cells: Mapping[tuple[int, int], float], users: list[int], each: list[int], left: int, top: int
) -> Iterator[str]:
    for row, num_users in enumerate(users):
        for column, num_each in enumerate(each):
            x, y = left + column * _SIDE, top + row * _HEIGHT
            gain = cells.get((num_users, num_each))
            if gain is None:
                yield f'<circle cx="{x + _SIDE / 2}" cy="{y + _HEIGHT / 2}" r="1.5" class="tip"/>'
                continue
            strength = min(abs(gain) / _FULL, 1.0)
            kind = "good" if gain > 0 else "bad"
            yield (
                f'<rect x="{x}" y="{y}" width="{_SIDE - 1}" height="{_HEIGHT - 1}" rx="3" class="{kind}"'
                f' fill-opacity="{0.08 + 0.6 * strength:.2f}"/>'
            )
            yield (f'<text x="{x + (_SIDE - 1) / 2}" y="{y + 15}" class="small middle">{100 * gain:.0f}</text>')
    for column, num_each in enumerate(each):
        middle = left + column * _SIDE + (_SIDE - 1) / 2
        yield f'<text x="{middle}" y="{top + len(users) * _HEIGHT + 14}" class="small soft middle">{num_each}</text>'
