"""Findings about a data set: what makes results wrong or weak, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from copl.data.chat import decode_prompt
from copl.data.checking.findings import Finding, Severity
from copl.data.checking.shortcuts import list_shape, trivial_rules
from copl.data.checking.spelling import spelling_findings
from copl.data.making.notes import omissions
from copl.data.pairs import contradictions, occurring, pair_numbers, repeats
from copl.data.thinking import answer_in
from copl.errors import quoted
from copl.records import Comparisons, PreferenceData
from copl.records.evidence import LeftOut
from copl.records.judgements import KINDS, Judgements
from copl.system.converters import number_rows

if TYPE_CHECKING:
    from copl.records import BoolArray, IntArray

_FEW = 3
"""Below so many training comparisons hardly anything is learnt of a user."""

_HUGE = 100_000
"""Characters of a response that are more than anybody means to compare."""

_ECHO = 20
"""Characters a prompt must have for a response that begins with it to be no mere echo of a greeting."""

_LISTS: Mapping[str, Severity] = {"messages": "error", "texts": "warning"}
_SEEN = ("train", "validation", "test", "cold")
_UNSEEN = ("support", "heldout")


def check(data: PreferenceData) -> list[Finding]:
    """Return all findings about a data set, the gravest first."""
    checks = (
        _texts, spelling_findings, _lists, _prompts_within, _pairs, _leaks, _roles, _shortcuts, _few, _graph, _alone,
        _newcomers, _ties, _judged, _recorded, omission_findings,
    )  # fmt: skip
    findings = [finding for look in checks for finding in look(data)]
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def _texts(data: PreferenceData) -> Iterator[Finding]:
    for what, texts in (("response", data.responses.texts), ("prompt", data.responses.prompts)):
        empty = [row for row, text in enumerate(texts) if not text.strip()]
        if empty:
            where = f"responses, such as row {empty[0]}"
            yield Finding("error", f"empty {what}", where, len(empty), "leave these rows out of the file")
    huge = [row for row, text in enumerate(data.responses.texts) if len(text) > _HUGE]
    if huge:
        advice = "no model reads that much; is it one text?"
        where = f"responses, such as row {huge[0]}"
        yield Finding("warning", f"response longer than {_HUGE:,} characters", where, len(huge), advice)
    thought = [row for row, text in enumerate(data.responses.texts) if answer_in(text) != text]
    if thought:
        advice = (
            "generators and reward functions put it aside; take it out of the rows, unless it is what people judged"
        )
        where = f"responses, such as row {thought[0]}"
        yield Finding("warning", "response with what a model thought before it", where, len(thought), advice)
    twice = len(data.responses) - len(data.responses.rows)
    if twice:
        advice = "make the data set again, so that each response has one row"
        yield Finding("error", "the same prompt and text in two rows", "responses", twice, advice)


def _lists(data: PreferenceData) -> Iterator[Finding]:
    shapes = {row: shape for row, text in enumerate(data.responses.texts) if (shape := list_shape(text))}
    for wanted, severity in _LISTS.items():
        rows = [row for row, shape in shapes.items() if shape == wanted]
        if rows:
            advice = "the text inside was meant; read the data with a source that takes messages apart, such as trl"
            where = f"responses, such as row {rows[0]}"
            yield Finding(severity, f"response that is a list of {wanted}", where, len(rows), advice)
    prompts = [prompt for prompt in dict.fromkeys(data.responses.prompts) if decode_prompt(prompt) == prompt]
    for wanted in _LISTS:
        odd = [prompt for prompt in prompts if list_shape(prompt) == wanted]
        if odd:
            advice = "give a prompt as text or as messages with role and content"
            where = f"such as {quoted(odd[0])}"
            yield Finding("warning", f"prompt that is a list of {wanted} as text", where, len(odd), advice)


def _prompts_within(data: PreferenceData) -> Iterator[Finding]:
    pairs = zip(data.responses.prompts, data.responses.texts, strict=True)
    long = ((prompt.strip(), text) for prompt, text in pairs if len(prompt.strip()) >= _ECHO)
    begins = [text.removeprefix("Human: ").lstrip().startswith(prompt) for prompt, text in long]
    with_prompt, without = sum(begins), len(begins) - sum(begins)
    if 2 * with_prompt > len(begins):
        advice = "prompt and response are joined for the model: the prompt would stand there twice; take it out"
        yield Finding("warning", "the prompt stands in the response's text, too", "responses", with_prompt, advice)
        if without:
            advice = "texts of one data set must be made alike, or the model learns which have a prompt"
            yield Finding("error", "prompt missing from the response's text", "responses", without, advice)


def _example(data: PreferenceData, part: Comparisons, mask: BoolArray) -> str:
    return f"such as user {quoted(data.users.ids[int(part.user[mask][0])])}"


def _pairs(data: PreferenceData) -> Iterator[Finding]:
    for name in data.present():
        part = data.splits[name]
        same = part.chosen == part.rejected
        if same.any():
            where = f"{name}, {_example(data, part, same)}"
            yield Finding(
                "error", "chosen and rejected are the same response", where, int(same.sum()), "leave them out"
            )
    whole = Comparisons.concat([data.splits[name] for name in data.present()])
    again = repeats(whole)
    if again.any():
        advice = "copies count double; the sources for own files leave them out with duplicates=drop"
        where = f"all splits, {_example(data, whole, again)}"
        yield Finding("warning", "comparison repeated by the same user", where, int(again.sum()), advice)
    both = contradictions(whole)
    if both.any():
        advice = "natural in small numbers; the sources for own files leave them out with contradictions=drop"
        where = f"all splits, {_example(data, whole, both)}"
        yield Finding("warning", "pair decided both ways by one user", where, int(both.sum()), advice)


def _held_by(numbers: IntArray, split: IntArray, num_splits: int) -> BoolArray:
    """Return which numbers occur in which splits [S, count]."""
    held: BoolArray = np.zeros((num_splits, int(numbers.max(initial=-1)) + 1), dtype=np.bool_)
    held[split, numbers] = True
    return held


def _leaks(data: PreferenceData) -> Iterator[Finding]:
    names = list(data.present())
    whole = Comparisons.concat([data.splits[name] for name in names])
    split = np.repeat(np.arange(len(names)), [len(data.splits[name]) for name in names])
    ends = np.concatenate([whole.chosen, whole.rejected])
    pairs = _held_by(pair_numbers(whole), split, len(names))
    used = _held_by(number_rows(np.tile(whole.user, 2), ends), np.tile(split, 2), len(names))
    response_split = data.provenance.get("split") == "response"
    for one, other in combinations(range(len(names)), 2):
        where = f"{names[one]} and {names[other]}"
        if count := int((pairs[one] & pairs[other]).sum()):
            yield Finding("error", "the same pair of a user in two splits", where, count, "give each pair one split")
        if response_split and (count := int((used[one] & used[other]).sum())):
            what = "a response of a user in two splits"
            yield Finding("error", what, where, count, "split again with strategy=response")
    if data.provenance.get("split") == "time":
        yield from _foreseen(data)
    if "cold" in names:
        yield from _warm_cold(_held_by(ends, np.tile(split, 2), len(names)), names)
    if not response_split and "train" in names and "test" in names:
        yield from _known_responses(data)


def _foreseen(data: PreferenceData) -> Iterator[Finding]:
    """Comparisons to judge by that were made before others which are learnt from."""
    learnt = data.splits.get("train", Comparisons.empty()).time
    for name in ("validation", "test", "cold", "heldout"):
        part = data.splits.get(name, Comparisons.empty())
        count = int((part.time <= learnt.max(initial=-np.inf)).sum())
        if count:
            advice = "the future is to be judged by the past; split again with strategy=time"
            yield Finding("error", "comparisons that training is later than", name, count, advice)


def _warm_cold(held: BoolArray, names: list[str]) -> Iterator[Finding]:
    for place, name in enumerate(names):
        count = int((held[place] & held[names.index("cold")]).sum())
        # Unseen users are judged on cold responses, too, where a construction holds out prompts for everybody.
        if count and name not in ("cold", "heldout"):
            severity: Severity = "error" if name in ("train", "validation") else "warning"
            advice = "a cold response must not be learnt from; split again"
            yield Finding(severity, "cold responses outside the cold split", f"cold and {name}", count, advice)


def _known_responses(data: PreferenceData) -> Iterator[Finding]:
    train, test = data.splits["train"], data.splits["test"]
    user = np.concatenate([train.user, train.user, test.user, test.user])
    code = number_rows(user, np.concatenate([train.chosen, train.rejected, test.chosen, test.rejected]))
    in_train = occurring(int(code.max(initial=-1)) + 1, code[: 2 * len(train)])
    known = in_train[code[2 * len(train) :]].reshape(2, -1).all(axis=0)
    if known.any():
        advice = "fine for judged pairs; if pairs were derived from ratings or votes, split with strategy=response"
        yield Finding(
            "info", "held-out pairs both of whose responses the user has in train", "test", int(known.sum()), advice
        )


def _speakers(data: PreferenceData, split: str) -> tuple[IntArray, IntArray]:
    given, judged = data.splits.get(split, Comparisons.empty()), data.judgements.get(split, Judgements.empty())
    return given.user, judged.user


def _judged(data: PreferenceData) -> Iterator[Finding]:
    """How much there is of each kind of judgement, and what of it only a user model can use."""
    for name, part in data.judgements.items():
        for kind, count in part.counts().items():
            speakers = np.unique(part.user[part.kind == list(KINDS).index(kind)])
            where = f"{name}, {len(speakers):,} users"
            yield Finding("info", f"judgements: {kind}", where, count, KINDS[kind])
        alone = LeftOut.of(part)
        if alone.judgements:
            advice = "of these users nothing can be made a comparison; what knows thresholds learns from them"
            where = f"{name}, {alone.users:,} users"
            yield Finding(
                "info", "thumbs or ratings of users who give always the same", where, alone.judgements, advice
            )


def _roles(data: PreferenceData) -> Iterator[Finding]:
    users = {name: np.flatnonzero(occurring(len(data.users), *_speakers(data, name))) for name in (*_SEEN, *_UNSEEN)}
    if not len(users["train"]):
        yield Finding("error", "nothing to train on", "train", 0, "lower the fractions of the other splits")
    elif not len(users["validation"]):
        yield Finding("warning", "no validation comparisons", "validation", 0, "training cannot tell when to stop")
    seen = np.unique(np.concatenate([users[name] for name in _SEEN]))
    unseen = np.unique(np.concatenate([users[name] for name in _UNSEEN]))
    both = np.intersect1d(seen, unseen)
    if len(both):
        where = f"such as user {quoted(data.users.ids[int(both[0])])}"
        yield Finding("error", "users both seen and unseen", where, len(both), "give each user one role")
    for name, needed in (("validation", "train"), ("test", "train"), ("cold", "train"), ("heldout", "support")):
        lacking = np.setdiff1d(users[name], users[needed])
        if len(lacking):
            where = f"{name}, such as user {quoted(data.users.ids[int(lacking[0])])}"
            advice = "they are scored as an average user"
            yield Finding("warning", f"users without a comparison in {needed}", where, len(lacking), advice)


def _shortcuts(data: PreferenceData) -> Iterator[Finding]:
    for rule in trivial_rules(data):
        if rule.is_telling:
            where = ", ".join(f"{name} {share:.0%}" for name, share in rule.splits.items()) or "source"
            advice = "this alone predicts the label so often; compare results with this rule"
            yield Finding("warning", f"{rule.rule} wins {rule.accuracy:.0%}", where, rule.count, advice)


def _few(data: PreferenceData) -> Iterator[Finding]:
    counts = np.bincount(np.concatenate(_speakers(data, "train")))
    seen = int((counts > 0).sum())
    few = int(((counts > 0) & (counts < _FEW)).sum())
    if few:
        severity: Severity = "warning" if 2 * few > seen else "info"
        what = f"users with fewer than {_FEW} training comparisons"
        advice = f"of {seen:,} seen users; expect little personal signal for them"
        yield Finding(severity, what, "train", few, advice)


def island_sizes(data: PreferenceData) -> IntArray:
    """Return the number of seen users in each connected part of the preference graph of the training comparisons."""
    train = data.split("train").comparisons
    user, response = np.tile(train.user, 2), np.concatenate([train.chosen, train.rejected]) + len(data.users)
    size = len(data.users) + len(data.responses)
    graph = coo_array((np.ones(len(user)), (user, response)), shape=(size, size))
    component = connected_components(graph, directed=False)[1]
    members = np.bincount(component[np.flatnonzero(occurring(len(data.users), train.user))])
    return members[members > 0].astype(np.int64)


def _graph(data: PreferenceData) -> Iterator[Finding]:
    members = island_sizes(data)
    if len(members) > 1:
        outside = int(members.sum() - members.max())
        severity: Severity = "warning" if 10 * outside > members.sum() else "info"
        what = f"preference graph in {len(members):,} parts; users outside the largest"
        yield Finding(severity, what, "train", outside, "users of different parts share no response, even indirectly")


def _alone(data: PreferenceData) -> Iterator[Finding]:
    train = data.split("train").comparisons
    user, response = np.tile(train.user, 2), np.concatenate([train.chosen, train.rejected])
    one_user = np.zeros(len(data.responses), dtype=np.int64)
    one_user[response] = user
    shared = occurring(len(data.responses), response[user != one_user[response]])
    seen = occurring(len(data.users), user)
    alone = np.flatnonzero(seen & ~occurring(len(data.users), user[shared[response]]))
    if len(alone) and seen.sum() > 1:
        severity: Severity = "warning" if 10 * len(alone) > seen.sum() else "info"
        where = f"train, such as user {quoted(data.users.ids[int(alone[0])])}"
        advice = "a preference graph tells nothing of them; only the texts can"
        yield Finding(severity, "seen users with whom nobody has a response in common", where, len(alone), advice)


def _newcomers(data: PreferenceData) -> Iterator[Finding]:
    train, support = (data.split(name).comparisons for name in ("train", "support"))
    known = occurring(len(data.responses), train.chosen, train.rejected)
    meets = known[support.chosen] | known[support.rejected]
    strangers = np.setdiff1d(support.user, support.user[meets])
    if len(strangers):
        where = f"support, such as user {quoted(data.users.ids[int(strangers[0])])}"
        advice = "adaptation by common responses falls back to the average user for them"
        yield Finding("warning", "unseen users who share no response with a seen one", where, len(strangers), advice)


def _ties(data: PreferenceData) -> Iterator[Finding]:
    counts = data.provenance.get("counts", {})
    ties, judged = counts.get("ties"), counts.get("judgements")
    if ties and judged:
        yield Finding("info", f"{ties / judged:.0%} of the judgements are ties", "source", ties, "ties are left out")


def _recorded(data: PreferenceData) -> Iterator[Finding]:
    """Findings that the source made where more was known: who picked which side, what was empty."""
    for entry in data.provenance.get("findings", ()):
        yield Finding(**entry)


def omission_findings(data: PreferenceData) -> Iterator[Finding]:
    """Tell what was left out when the data set was made."""
    for one in omissions(data.provenance):
        yield Finding("info", f"{one.what} left out", "source", one.count, one.reason)
