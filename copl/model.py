"""A trained run as an object: score responses for a user, adapt to newcomers.

from copl import Model

model = Model.open("run")
model.score("user-7", "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water, then …"])
newcomers = model.adapt([{"user_id": "new", "prompt": "…", "chosen": "…", "rejected": "…"}])
model.score("new", "How do I boil an egg?", ["Eight minutes."], adapted=newcomers)

ann = model.online("ann")                                # comparison after comparison
question = ann.next_question([("Tea or coffee?", "Tea.", "Coffee."), ...])
ann.add(question.prompt, chosen=question.first, rejected=question.second)
model.score("ann", "How do I boil an egg?", ["Eight minutes."], adapted=ann.adapted)

rows = [{"user_id": "ann", "prompt": "Tea or coffee?", "response": "Tea."}, ...]
model.score_many(rows, calibrated=True)                  # one call, rewards of all users on one scale
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from attrs import evolve

from copl.adapt.store import load_adapted, save_adapted
from copl.data.reading.rows import read_comparison_rows
from copl.data.requests import Pair, Prompt, known_by, question_pairs, row_requests, score_request, table_requests
from copl.errors import DataError, UnknownUserWarning
from copl.interfaces import PreferenceModel
from copl.plugins import load
from copl.records import AdaptedUsers, ComparisonSet, FloatArray, ResponseTable, ScoreRequests, UserTable
from copl.runs.directory import Run, open_run
from copl.runs.explaining import Reasons, RunTexts
from copl.runs.learnt import Answered
from copl.runs.one_user import ModelUser, Question
from copl.runs.recipe import ANY_BACKBONE
from copl.runs.scores import RunScores
from copl.runs.sharing import fetch_portable, publish, save_portable

if TYPE_CHECKING:
    from copl.align.policies.rewards import RewardFunction
    from copl.reward.quality import QualityReward

__all__ = ["Model", "ModelUser", "Question", "Reasons", "UnknownUserWarning"]


@final
class Model:
    """A fitted preference model read from a run directory.

    It may be used from several threads: what reads texts or learns of users is done one after the other. Texts are read
    once, by passes that do not depend on what else is asked for, so that a reward is the same alone and in any call;
    what was made of them is remembered, within 512 MiB each of features, of hidden states and of readings by experts,
    and the oldest is forgotten first.
    """

    def __init__(self, run: Run, method: PreferenceModel) -> None:
        self.run = run
        self.method = method
        self._lock = threading.RLock()
        self._scores = RunScores(run, method, self._lock)
        self._texts, self._answered = RunTexts(run), Answered(run)

    @classmethod
    def open(cls, directory: str | Path) -> Model:
        """Open a finished run.

        Raises:
            RunError: the directory is missing, unfinished, damaged, foreign or from another version.
        """
        return cls.from_pretrained(Path(directory).absolute())

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, backbone: str | None = None) -> Model:
        """Open a finished run: a run directory, what `save_pretrained` wrote, or what `push_to_hub` published.

        Args:
            name: a directory, or ``owner/name`` on the Hugging Face hub.
            revision: branch, tag or commit there.
            backbone: Hugging Face id or path of the backbone, where it lies elsewhere than in training.

        Raises:
            RunError: as for `open`.
        """
        changes = {"backbone": {"name": ANY_BACKBONE, "path": backbone}} if backbone else {}
        run = open_run(fetch_portable(name, revision), load(), changes)
        return cls(run, run.load_method())

    def save_pretrained(self, directory: str | Path) -> None:
        """Write what scoring and adapting need into a directory of its own, with a card.

        Raises:
            RunError: the directory holds something.
        """
        save_portable(self.run, Path(directory))

    def push_to_hub(self, repo_id: str, *, private: bool = True, **options: Any) -> str:
        """Upload the model to the Hugging Face hub and return its address (`copl.runs.sharing.publish`)."""
        return publish(self.run, repo_id, private=private, **options)

    def export(
        self, user: str | int, directory: str | Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, Any]:
        """Write one user's reward model as a plain classifier that works without `copl`.

        Args:
            user: id of a trained or adapted user.
            directory: where it goes; must not exist or be empty.
            adapted: newcomers, from `adapt`.
            merge: write a whole model instead of a PEFT adapter.

        Raises:
            RunError: `adapted` belongs to another run.
            OptionsError: the user is unknown, the method cannot be exported, or the directory holds something.
        """
        with self._lock:
            return self.method.export(known_by(user), Path(directory), adapted=self._scores.own(adapted), merge=merge)

    def score(
        self,
        user: str | int,
        prompt: Prompt,
        responses: Sequence[str],
        *,
        adapted: AdaptedUsers | None = None,
        calibrated: bool = False,
        quality: QualityReward | None = None,
    ) -> list[float]:
        """Return the reward of each response for one user; only differences between responses have a meaning.

        Args:
            user: the user's id; one neither trained nor adapted, or by words that tell nothing, is scored as the
                average user, with an `UnknownUserWarning`. A whole number is the user whose rows have its digits.
            prompt: what the responses answer.
            responses: the texts to score, read in their one spelling as in rows (`copl.data.canonical`).
            adapted: newcomers, from `adapt`.
            calibrated: put the rewards of all users on one scale (`copl.reward.calibration`): 0 is the average
                training response to this user, 1 one standard deviation better. Rankings stay.
            quality: a reward that is the same for everybody, added with its weight, in standard deviations as well.

        Raises:
            DataError: one fault for each argument that is no id, no prompt or no text.
        """
        requests = score_request(user, prompt, responses)
        return list(map(float, self._scores.told(requests, adapted, calibrated=calibrated, quality=quality)))

    def score_many(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        adapted: AdaptedUsers | None = None,
        calibrated: bool = False,
        quality: QualityReward | None = None,
    ) -> list[float]:
        """Return the reward of each row, of many users and prompts in one call; each distinct text is read once.

        Args:
            rows: objects with ``user_id``, ``prompt`` and ``response``, as `copl score` reads them.
            adapted, calibrated, quality: as for `score`.

        Raises:
            DataError: one fault for each row that is wrong.
        """
        requests = row_requests(rows)
        return list(map(float, self._scores.told(requests, adapted, calibrated=calibrated, quality=quality)))

    def score_table(
        self,
        users: Sequence[str | int],
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[str]],
        *,
        adapted: AdaptedUsers | None = None,
        calibrated: bool = False,
        quality: QualityReward | None = None,
    ) -> list[FloatArray]:
        """Return for each prompt the rewards [U, n] of its responses for every user; each distinct text is read once.

        Args:
            users: ids of the users [U].
            prompts: the prompts [P].
            responses: the responses to each prompt [P][n].
            adapted, calibrated, quality: as for `score`.

        Raises:
            DataError: one fault for each argument that is wrong.
        """
        requests = table_requests(users, prompts, responses)
        rewards = self._scores.told(requests, adapted, calibrated=calibrated, quality=quality)
        ends = np.cumsum([len(answers) for answers in responses])
        return np.split(rewards.reshape(len(users), ends[-1]), ends[:-1], axis=1) if len(ends) else []

    def scores(
        self,
        requests: ScoreRequests,
        adapted: AdaptedUsers | None = None,
        *,
        calibrated: bool = False,
        quality: QualityReward | None = None,
    ) -> FloatArray:
        """Return the reward [N] of each request, as `score`.

        Raises:
            RunError: `adapted` belongs to another run, a reward is no finite number, or the run has no reference
                responses, for it was trained by an earlier version.
        """
        return self._scores(requests, adapted, calibrated=calibrated, quality=quality)

    def read_ahead(self, responses: ResponseTable) -> None:
        """Have texts, with prompts as `copl.data.chat` forms them, read at once: a few at a time take twice as long."""
        with self._lock:
            self.method.read_ahead(responses)

    def reward_function(
        self,
        *,
        user: str | int | None = None,
        user_column: str = "user_id",
        adapted: AdaptedUsers | None = None,
        calibrated: bool = False,
        quality: QualityReward | None = None,
    ) -> RewardFunction:
        """Return the personal reward as TRL's GRPO, RLOO and online DPO take it in ``reward_funcs``.

            GRPOTrainer(policy, reward_funcs=model.reward_function(calibrated=True), train_dataset=rows, ...)

        It is called with prompts, completions (text or chat messages) and the columns of the data set, and returns a
        reward a completion; users nobody knows get the average user's, with one `UnknownUserWarning`
        (`copl.align.policies.rewards`).

        Args:
            user: id of the one user that a policy is trained for; None: a column says whose reward each row wants.
            user_column: that column.
            adapted, calibrated, quality: as for `score`. Where one policy is trained for several users and rewards are
                compared across groups, calibrate them.
        """
        from copl.align.policies.rewards import PersonalRewards

        own, seen = self._scores.own(adapted), self.method.seen_users()
        known = frozenset((*seen, *(own.user_ids if own else ())))
        return PersonalRewards(
            lambda requests: self.scores(requests, own, calibrated=calibrated, quality=quality),
            lambda name: not seen or name in known,
            user=None if user is None else known_by(user),
            user_column=user_column,
        )

    def weigh(
        self,
        quality: QualityReward,
        comparisons: ComparisonSet | Sequence[Mapping[str, Any]],
        *,
        adapted: AdaptedUsers | None = None,
        calibrated: bool = False,
    ) -> QualityReward:
        """Return a quality reward with the weight that explains held-out comparisons best beside the personal reward.

        Args:
            quality: the reward.
            comparisons: some that the run has not been trained on, such as the split ``validation`` of its data.
            adapted, calibrated: as for `score`.

        Raises:
            DataError: one fault for each row that is wrong, or there is none.
        """
        pairs = read_comparison_rows(comparisons)
        return self._scores.weigh(quality, pairs, adapted, calibrated=calibrated)

    @property
    def fingerprint(self) -> str:
        """A text that is equal exactly when two runs hold the same fitted model."""
        return self._scores.fingerprint

    def known_users(self, users: UserTable, adapted: AdaptedUsers | None = None) -> frozenset[str]:
        """Return those of `users` of whom something is known: trained, or adapted by words that tell something.

        All of them where the method knows no users.
        """
        return self._scores.known_users(users, adapted)

    def adapt(self, support: ComparisonSet | Sequence[Mapping[str, Any]]) -> AdaptedUsers:
        """Find embeddings for users who were not there in training.

        Args:
            support: a `ComparisonSet`, or rows of every kind, such as ``user_id``, ``prompt``, ``chosen`` and
                ``rejected``, or ``user_id``, ``prompt``, ``response`` and ``thumb`` (`copl.data.making.mixed`).

        Raises:
            DataError: one fault for each row that is wrong.
        """
        said = read_comparison_rows(support)
        with self._lock:
            return evolve(self.method.adapt(said), run=self.fingerprint)

    def explain(
        self,
        user: str | int,
        prompt: Prompt,
        response: str,
        against: str | None = None,
        *,
        support: ComparisonSet | Sequence[Mapping[str, Any]] | None = None,
    ) -> Reasons:
        """Say why a user prefers a response to another one, or to the average one, in parts that add up.

        The parts are what everybody thinks, each of the user's own answers, the seen users who explain these best with
        the answer of each that speaks most, and for method ``copl`` what its reward model reads (`copl.adapt.explain`).

        Args:
            user: the user's id, seen or in `support`; of anybody else there is only what everybody thinks.
            prompt: what the responses answer.
            response: the response.
            against: the other one; None for the average response.
            support: what the user has said since training.

        Raises:
            DataError: one fault for each argument that is wrong.
            OptionsError: the method knows no users, or scores by its reward model alone.
        """
        requests = score_request(user, prompt, [response] if against is None else [response, against])
        if against is not None and len(set(requests.responses.texts)) < 2:
            raise DataError("explain: the two responses are the same text; name another one, or leave it out")
        said = None if support is None else read_comparison_rows(support)
        with self._lock:
            explained = self.method.explain(requests.users.ids[0], requests.responses, said)
        return self._texts.reasons(explained, requests.responses, said)

    def own_answer(self, user: str | int, support: ComparisonSet | None = None) -> tuple[str, str, str | None]:
        """Return prompt, response and other one (None of a thumb) of a user's first answer, in `support` or data."""
        return self._texts.own_answer(known_by(user), support)

    def save_adapted(self, adapted: AdaptedUsers, path: str | Path) -> None:
        """Write newcomers, from `adapt` or `online`, to a file that `load_adapted` and `copl score --users` read."""
        save_adapted(evolve(adapted, run=self.fingerprint), Path(path))

    def load_adapted(self, path: str | Path) -> AdaptedUsers:
        """Read what `save_adapted` or `copl adapt` has written.

        Raises:
            RunError: the file is missing, damaged, of another kind, or of another run.
        """
        adapted = load_adapted(Path(path))
        self._scores.own(adapted)
        return adapted

    def online(
        self, user: str | int, comparisons: ComparisonSet | Sequence[Mapping[str, Any]] | None = None
    ) -> ModelUser:
        """Follow one user, word by word; the trained model stays as it is.

        Args:
            user: the user's id, text or a whole number; a user seen in training starts with the training comparisons.
            comparisons: what the user has said since, if anything: comparisons and judgements, as for `adapt`.

        Raises:
            CoplError: the run's method takes no notice of users.
            DataError: one fault for each row that is wrong.
        """
        name = known_by(user)
        with self._lock:
            followed = ModelUser(name, self.method.online(name), self.fingerprint, self._lock)
        if isinstance(comparisons, ComparisonSet) or comparisons:
            followed.add_rows(comparisons)
        return followed

    def answered(self, user: str | int, candidates: Sequence[Pair]) -> list[bool]:
        """Return which candidates the run has learnt the user's answer to; none where the run does not say.

        Args:
            user: the user's id.
            candidates: prompts with two responses each, at least one.

        Raises:
            DataError: there is no candidate, or one is wrong.
        """
        return self._answered(question_pairs(known_by(user), candidates))

    def next_question(
        self,
        user: str | int,
        candidates: Sequence[Pair],
        comparisons: ComparisonSet | Sequence[Mapping[str, Any]] | None = None,
    ) -> Question:
        """Return the candidate whose answer is expected to tell most about a user (`ModelUser.next_question`).

        Args:
            user: the user's id, seen in training or not.
            candidates: prompts with two responses each.
            comparisons: what the user has said so far, beside training.

        Raises:
            CoplError: the run's method takes no notice of users.
            DataError: there is no candidate, or a row is wrong.
        """
        return self.online(user, comparisons).next_question(candidates)
