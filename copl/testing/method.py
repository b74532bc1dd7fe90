"""Checks of whole methods (preference models), on a tiny data set and a tiny random language model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

import attrs
import numpy as np

from copl.errors import CoplError
from copl.interfaces import PreferenceModel, Progress
from copl.options import parse_options
from copl.plugins import Plugins, load
from copl.records import AdaptedUsers, BoolArray, ComparisonSet, FloatArray, PreferenceData, ScoreRequests, UserTable
from copl.runs.code import code_digest
from copl.runs.recipe import ANY_BACKBONE, DEFAULTS, Choice, Stages
from copl.system.progress import SilentProgress
from copl.testing.check import Check, CheckResult, Once, fingerprint_of, require, run_checks
from copl.testing.common import Described
from copl.testing.planted import planted_data
from copl.testing.tiny_model import write_tiny_model

_SEED = 3
_SHORT: Mapping[str, Any] = {"max_steps": 4, "num_steps": 4, "epochs": 1, "num_epochs": 1, "eval_every": 2}
"""Values for options of these names, so that a check takes seconds; whether a method learns is for its own tests."""


@final
class _Folder:
    """A workspace without a cache: each stage is computed once into a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.progress: Progress = SilentProgress()
        self.keys: list[Mapping[str, Any]] = []

    def stage(
        self, name: str, *, key: Mapping[str, Any], compute: Callable[[Path], None], together: bool = False
    ) -> Path:
        directory = self.root / name
        self.keys.append(key)
        if not directory.exists():
            directory.mkdir(parents=True)
            compute(directory)
        return directory

    def shared(self, name: str) -> Path:
        return self.root / name


@final
class _Former:
    """A run to go on from, in a `_Folder`, that has learnt from all there is."""

    key = "former"

    def __init__(self, root: Path) -> None:
        self._root = root
        self.parts: dict[str, str] = {}

    def stage(self, name: str) -> Path | None:
        place = self._root / name
        return place if place.is_dir() else None

    def lacks(self, said: ComparisonSet) -> BoolArray:
        return np.zeros(len(said), dtype=np.bool_)

    def tell(self, part: str, how: str) -> None:
        self.parts[part] = how


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described
    root: Path
    data: PreferenceData
    workspaces: dict[str, _Folder] = attrs.field(factory=dict)

    @cached_property
    def stages(self) -> Stages:
        component = self.described.component
        plugins = load()
        parts = {kind: self._part(kind, plugins) for kind in component.uses}
        sections = {name: self._section(name, options) for name, options in component.sections.items()}
        return Stages(parts, sections)

    def _part(self, kind: str, plugins: Plugins) -> Choice:
        name, values = DEFAULTS[kind], {}
        if kind == "backbone":
            texts = (*self.data.responses.prompts, *self.data.responses.texts, "Human : Assistant : user assistant")
            name, values = ANY_BACKBONE, {"path": str(write_tiny_model(self.root / "model", texts))}
        registered = plugins.registry(kind).get(name)
        return Choice(kind, name, parse_options(registered.component.options, values, where=kind), registered)

    def _section(self, section: str, options: type) -> Any:
        known = {field.name for field in attrs.fields(options)}
        return parse_options(options, {k: v for k, v in _SHORT.items() if k in known}, where=section)

    def build(self) -> Any:
        return self.described.component.build(self.described.options(), stages=self.stages)

    def fit(self, name: str) -> PreferenceModel:
        method: PreferenceModel = self.build()
        self.workspaces[name] = _Folder(self.root / name)
        method.fit(self.data, seed=_SEED, workspace=self.workspaces[name])
        return method

    @cached_property
    def _fitted(self) -> Once[PreferenceModel]:
        return Once(lambda: self.fit("run"))

    @property
    def fitted(self) -> PreferenceModel:
        return self._fitted.get()

    @cached_property
    def _adapted(self) -> Once[AdaptedUsers]:
        return Once(lambda: self.fitted.adapt(self.data.split("support")))

    @property
    def adapted(self) -> AdaptedUsers:
        return self._adapted.get()

    def requests(self) -> ScoreRequests:
        """Every user, seen and unseen, on every fifth response."""
        num_users, num_responses = len(self.data.users), len(self.data.responses)
        user = np.repeat(np.arange(num_users), num_responses)[::5]
        return ScoreRequests(
            self.data.users, self.data.responses, user, np.tile(np.arange(num_responses), num_users)[::5]
        )

    def scores(self, method: PreferenceModel, requests: ScoreRequests) -> FloatArray:
        return method.scores(requests, self.adapted)


def is_a_method(subject: _Subject) -> None:
    """build gives a PreferenceModel"""
    method = subject.build()
    require(isinstance(method, PreferenceModel), f"build gave {type(method).__name__}, which does not derive from it")


def fits(subject: _Subject) -> None:
    """fit learns from a tiny data set and leaves it as it was"""
    before = fingerprint_of(subject.data)
    assert subject.fitted is not None
    require(fingerprint_of(subject.data) == before, "fit changed the data set")


def knows_its_results_by_the_code(subject: _Subject) -> None:
    """its stages are known by its code, so that an edit is not given the result of what was there before"""
    assert subject.fitted is not None
    digest, keys = code_digest(subject.described.component.build), subject.workspaces["run"].keys
    known = not keys or any(digest in json.dumps(key, default=str) for key in keys)
    require(known, 'no key of a stage has the code in it: add "code": copl.runs.code.code_digest(<its class>)')


def adapts(subject: _Subject) -> None:
    """adapt answers every unseen user with a support set"""
    adapted, support = subject.adapted, subject.data.split("support")
    require(isinstance(adapted, AdaptedUsers), f"adapt returned {type(adapted).__name__}, not AdaptedUsers")
    asked = {support.users.ids[row] for row in np.unique(support.comparisons.user)}
    missing = sorted(asked - set(adapted.user_ids))
    require(not missing, f"no embedding for {', '.join(missing)}")


def knows_whom_it_has_seen(subject: _Subject) -> None:
    """seen_users are users of the train split, or none, and the same after load"""
    learnt = {subject.data.users.ids[row] for row in np.unique(subject.data.split("train").comparisons.user)}
    seen = set(subject.fitted.seen_users())
    require(not seen or seen == learnt, f"trained on {len(learnt)} users, but seen_users are {sorted(seen)}")
    method: PreferenceModel = subject.build()
    method.load(subject.root / "run")
    require(set(method.seen_users()) == seen, "seen_users are others after load")


def scores_everybody(subject: _Subject) -> None:
    """scores are finite for seen users, adapted ones and strangers, and for responses never trained on"""
    requests = subject.requests()
    for adapted in (subject.adapted, None):
        scores = np.asarray(subject.fitted.scores(requests, adapted))
        require(scores.shape == (len(requests),), f"scores must be [{len(requests)}], got {list(scores.shape)}")
        require(bool(np.isfinite(scores).all()), "scores are not finite")
    stranger = ScoreRequests(UserTable.ungrouped(["stranger"]), subject.data.responses, [0, 0], [0, 1])
    require(bool(np.isfinite(subject.fitted.scores(stranger)).all()), "the score of an unknown user is not finite")


def scores_do_not_depend_on_the_batch(subject: _Subject) -> None:
    """the score of a request does not depend on the other requests"""
    requests = subject.requests()
    together = subject.scores(subject.fitted, requests)
    for rows in (np.arange(len(requests))[::-1], np.array([0]), np.arange(1, len(requests), 3)):
        part = ScoreRequests(requests.users, requests.responses, requests.user[rows], requests.response[rows])
        scores = subject.scores(subject.fitted, part)
        require(np.allclose(scores, together[rows], atol=1e-3), "scores change with the order or size of the batch")


def scores_nothing(subject: _Subject) -> None:
    """no requests give no scores"""
    none = ScoreRequests(subject.data.users, subject.data.responses, [], [])
    require(len(subject.fitted.scores(none)) == 0, "scores for requests that were not made")


def is_read_back(subject: _Subject) -> None:
    """load reads back what fit kept"""
    requests = subject.requests()
    expected = subject.scores(subject.fitted, requests)
    method: PreferenceModel = subject.build()
    method.load(subject.root / "run")
    require(np.allclose(subject.scores(method, requests), expected, atol=1e-3), "a loaded method scores otherwise")


def repeats_itself(subject: _Subject) -> None:
    """the same seed gives the same scores"""
    requests = subject.requests()
    first, again = subject.fitted.scores(requests), subject.fit("again").scores(requests)
    require(np.allclose(first, again, atol=1e-3), "two fits with the same seed score differently")


def goes_on(subject: _Subject) -> None:
    """continues says whether fit_from goes on from a former run; where nothing is new, it scores nearly the same"""
    method = subject.build()
    continues = getattr(method, "continues", False)  # whatever a foreign component is, another check says so
    require(isinstance(continues, bool), f"continues must be True or False, got {continues!r}")
    if not continues:
        return
    requests = subject.requests()
    expected, former = subject.scores(subject.fitted, requests), _Former(subject.root / "run")
    method.fit_from(subject.data, former, seed=_SEED, workspace=_Folder(subject.root / "on"))
    require(bool(former.parts), "fit_from told of no part what became of it (FormerRun.tell)")
    apart = float(np.abs(subject.scores(method, requests) - expected).max())
    require(apart <= 0.1 * (1 + float(np.abs(expected).max())), f"going on without news moves scores by {apart:.3g}")


def explains(subject: _Subject) -> None:
    """explain gives parts that add up to the difference of two scores, or refuses"""
    method, data = subject.fitted, subject.data
    user, pair = data.users.ids[int(data.split("train").comparisons.user[0])], data.responses.take(np.arange(2))
    try:
        explained = method.explain(user, pair, None)
    except CoplError:
        return
    first, second = method.scores(ScoreRequests(UserTable.ungrouped([user]), pair, [0, 0], [0, 1]))
    total, score = sum(part.amount for part in explained.parts), float(first - second)
    require(abs(total - explained.score) <= 1e-3 * (1 + abs(total)), f"parts add up to {total:.3g}, not to the score")
    require(abs(score - explained.score) <= 1e-3 * (1 + abs(score)), f"explains {explained.score:.3g}, not {score:.3g}")


_CHECKS: list[Check[_Subject]] = [
    is_a_method,
    fits,
    knows_its_results_by_the_code,
    adapts,
    knows_whom_it_has_seen,
    scores_everybody,
    scores_do_not_depend_on_the_batch,
    scores_nothing,
    is_read_back,
    repeats_itself,
    goes_on,
    explains,
]


def check_method(described: Described) -> list[CheckResult]:
    """Check a whole method in a temporary directory; its other parts are the default components."""
    root = Path(tempfile.mkdtemp(prefix="copl-check-"))
    try:
        return run_checks(_CHECKS, _Subject(described, root, planted_data()))
    finally:
        shutil.rmtree(root, ignore_errors=True)
