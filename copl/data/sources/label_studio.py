"""Source ``label-studio``: tasks exported from Label Studio whose annotators chose between two answers.

The templates for pairwise comparison give a ``pairwise`` result, ``left`` or ``right``. Exports of before version 1.0
say ``completions`` for ``annotations``; those of format JSON-MIN have the chosen side in the task itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import attrs

from copl.data.canonical import ValueFaultError
from copl.data.making.collected import Collected, CollectedOptions, Said, seconds
from copl.data.making.exported import ExportSource
from copl.data.reading import values
from copl.data.reading.exports import Export, missing, user_of
from copl.errors import quoted
from copl.options import option
from copl.plugins import Component

_SIDES = ("left", "right")
_TIES = ("tie", "equal", "none", "same")
_CONTROLS = ("pairwise", "pw", "comparison", "preference")
"""What templates call the control, whose answer in JSON-MIN stands under its name."""


@final
@attrs.frozen(kw_only=True)
class LabelStudioOptions(CollectedOptions):
    """Options of Label Studio exports."""

    prompt: str = option("prompt", help="field of a task with the prompt")
    left: str = option("answer1", help="field of a task with the answer on the left")
    right: str = option("answer2", help="field of a task with the answer on the right")
    question: str = option(
        "", help="name of the pairwise control, where a task has several; any where none is named", validator=None
    )


@final
class LabelStudioSource(ExportSource[LabelStudioOptions]):
    """Reads tasks and their annotations."""

    name = "label-studio"
    construction = "Pairwise annotations, by annotator."

    def _read(self, export: Export, number: int, task: Mapping[str, Any], collected: Collected) -> None:
        options, data = self._options, task.get("data", task)
        if not isinstance(data, Mapping):
            export.fault(number, missing("data", data, "an object"))
            return
        texts = []
        converters = (values.prompt, values.response, values.response)
        for field, convert in zip((options.prompt, options.left, options.right), converters, strict=True):
            try:
                texts.append(convert(data.get(field)))
            except ValueFaultError as fault:
                export.fault(number, f"data.{field}: {'missing' if data.get(field) is None else fault}")
        annotations = task.get("annotations", task.get("completions", [] if "data" in task else [task]))
        if not isinstance(annotations, Sequence) or isinstance(annotations, str):
            export.fault(number, missing("annotations", annotations, "a list"))
            return
        if len(texts) < len(converters):
            return
        if not annotations:
            collected.drop("tasks without an annotation")
        for annotation in annotations:
            if not isinstance(annotation, Mapping):
                export.fault(number, f"annotations: expected objects, got {quoted(annotation)}")
                continue
            self._annotation(export, number, annotation, texts, collected)

    def _annotation(
        self, export: Export, number: int, annotation: Mapping[str, Any], texts: list[str], collected: Collected
    ) -> None:
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            collected.drop("skipped by the annotator")
            return
        user = _annotator(annotation)
        if user is None:
            export.fault(number, "completed_by: missing; who annotated?")
            return
        answers = list(self._answers(annotation))
        if not answers:
            collected.drop("annotations without a pairwise answer")
            return
        time = seconds(annotation.get("updated_at") or annotation.get("created_at"))
        prompt, *sides = texts
        said = Said(user, prompt, time)
        for answer in answers:
            if answer in _SIDES:
                collected.compare(said, *(sides if answer == "left" else sides[::-1]))
            elif answer in _TIES:
                collected.tie(said, *sides)
            else:
                export.fault(number, f"selected: expected left or right, got {quoted(answer)}")

    def _answers(self, annotation: Mapping[str, Any]) -> Iterator[Any]:
        results, question = annotation.get("result"), self._options.question
        if results is None:  # JSON-MIN: the answers under the name of the control
            named = [question] if question else [*_CONTROLS, *(name for name in annotation if name not in _CONTROLS)]
            for name in named:
                yield from _selected(annotation.get(name), is_control=name in (question, *_CONTROLS))
            return
        for result in results if isinstance(results, Sequence) else ():
            if not isinstance(result, Mapping) or result.get("type") != "pairwise":
                continue
            if question and result.get("from_name") != question:
                continue
            yield from _selected(result.get("value"), is_control=True)


def _selected(value: Any, *, is_control: bool) -> Iterator[Any]:
    """Yield which sides a value selects: an object that says so, a list of these or, of a control, the side itself."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Mapping):
            if one.get("selected") not in (None, ""):
                yield one["selected"]
        elif is_control and one not in (None, ""):
            yield one


def _annotator(annotation: Mapping[str, Any]) -> str | None:
    """Return who annotated: a number, or an object with an email, in whatever version."""
    user = annotation.get("completed_by", annotation.get("annotator"))
    if isinstance(user, Mapping):
        user = next((user[key] for key in ("email", "username", "id") if user.get(key) not in (None, "")), None)
    return user_of(user)


COMPONENTS = [
    Component(
        "label-studio",
        LabelStudioOptions,
        LabelStudioSource,
        "tasks of Label Studio whose annotators chose between two answers",
        reference="labelstud.io/templates/generative-pairwise-human-preference",
    )
]
