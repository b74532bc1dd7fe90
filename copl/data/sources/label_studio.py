"""Source ``label-studio``: tasks exported from Label Studio whose annotators chose between two answers.

The templates for pairwise comparison give a ``pairwise`` result, ``left`` or ``right``. Exports of before version 1.0
say ``completions`` for ``annotations``; those of format JSON-MIN have the chosen side in the task itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import attrs

from copl.data.canonical import ValueFaultError
from copl.data.making.collected import Collected, CollectedOptions, Said
from copl.data.making.exported import ExportSource
from copl.data.reading import values
from copl.data.reading.exports import Export, missing
from copl.errors import DataError, quoted, suggest
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
        "", help="name of the pairwise control; needed where annotators answered several", validator=None
    )


@final
class LabelStudioSource(ExportSource[LabelStudioOptions]):
    """Reads tasks and their annotations."""

    name = "label-studio"
    construction = "Pairwise annotations, by annotator."

    def _check(self, export: Export) -> None:
        question = self._options.question
        if not question:
            return
        given = (one for task in export.entries for one in _listed(_annotations(task)) if isinstance(one, Mapping))
        known = dict.fromkeys(name for one in given for name, _ in _answers(one, question))
        if known and question not in known:
            raise DataError(
                f"{self._options.path}: nobody answered a pairwise control {quoted(question)}"
                f"{suggest(question, known)}; there are answers to {', '.join(known)}"
            )

    def _read(self, export: Export, number: int, task: Mapping[str, object], collected: Collected) -> None:
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
        annotations = _annotations(task)
        if _listed(annotations) is not annotations:
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
        self, export: Export, number: int, annotation: Mapping[str, object], texts: list[str], collected: Collected
    ) -> None:
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            collected.drop("skipped by the annotator")
            return
        annotator = _annotator(annotation)
        user = export.user(annotator)
        if user is None:
            export.fault(number, missing("completed_by", annotator, "the number or email of who annotated"))
            return
        question = self._options.question
        answers = [(name, side) for name, side in _answers(annotation, question) if question in ("", name)]
        controls = dict.fromkeys(name for name, _ in answers)
        if not answers:
            collected.drop("annotations without a pairwise answer")
            return
        if len(controls) > 1:
            export.fault(number, f"answers to {' and '.join(controls)}; choose one with question=")
            return
        time = collected.time(annotation.get("updated_at"), annotation.get("created_at"))
        prompt, *sides = texts
        said = Said(user, prompt, time)
        for _, answer in answers:
            if answer in _SIDES:
                collected.compare(said, *(sides if answer == "left" else sides[::-1]))
            elif answer in _TIES:
                collected.tie(said, *sides)
            else:
                export.fault(number, f"selected: expected left or right, got {quoted(answer)}")


def _annotations(task: Mapping[str, object]) -> object:
    """Return the annotations of a task, in whatever version; of JSON-MIN it is one itself."""
    return task.get("annotations", task.get("completions", [] if "data" in task else [task]))


def _listed(value: object) -> Sequence[object]:
    """Return a list as it is, and nothing for what is none."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _answers(annotation: Mapping[str, object], question: str) -> Iterator[tuple[str, object]]:
    """Yield the pairwise answers of an annotation, each with the name of its control."""
    results = annotation.get("result")
    if results is None:  # JSON-MIN: the answers under the name of the control
        for name, value in annotation.items():
            yield from ((name, side) for side in _selected(value, is_control=name in (question, *_CONTROLS)))
        return
    for result in _listed(results):
        if isinstance(result, Mapping) and result.get("type") == "pairwise":
            yield from (
                (str(result.get("from_name")), side) for side in _selected(result.get("value"), is_control=True)
            )


def _selected(value: object, *, is_control: bool) -> Iterator[object]:
    """Yield which sides a value selects: an object that says so, a list of these or, of a control, the side itself."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Mapping):
            if one.get("selected") not in (None, ""):
                yield one["selected"]
        elif is_control and one not in (None, ""):
            yield one


def _annotator(annotation: Mapping[str, object]) -> object:
    """Return who annotated: a number, or an object with an email, in whatever version."""
    user = annotation.get("completed_by", annotation.get("annotator"))
    if isinstance(user, Mapping):
        return next((user[key] for key in ("email", "username", "id") if user.get(key) not in (None, "")), user)
    return user


COMPONENTS = [
    Component(
        "label-studio",
        LabelStudioOptions,
        LabelStudioSource,
        "tasks of Label Studio whose annotators chose between two answers",
        reference="labelstud.io/templates/generative-pairwise-human-preference",
    )
]
