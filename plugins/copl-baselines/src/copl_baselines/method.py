"""From a model on frozen features to a whole method: stages, files, newcomers, scores."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import final

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from copl.errors import DataError, RunError
from copl.interfaces import PreferenceModel, Workspace
from copl.methods.parts.vectors import vectors_of
from copl.options import options_to_dict
from copl.records import (
    AdaptedUsers,
    ComparisonSet,
    Diagnostics,
    FloatArray,
    IntArray,
    PreferenceData,
    ResponseTable,
    ScoreRequests,
    UserTable,
)
from copl.reward.reading.reader import TextReader
from copl.runs.code import code_digest
from copl.runs.recipe import Stages
from copl.system.documents import read_document, write_document
from copl.system.tensors import ANY_FLOATS, ANYTHING, TensorFile, floats, load_tensors, save_tensors
from copl_baselines.features import PROMPT_STAGE, Scaling, prompt_table
from copl_baselines.model import FeatureReward, Shape
from copl_baselines.options import TrainingOptions
from copl_baselines.pairs import Pairs, Texts
from copl_baselines.training import train_model

STAGE = "baseline"
_TENSORS, _CARD, _FORMAT = "model.safetensors", "model.json", 1
_ADVICE = "train again"
_AT_ONCE = 1 << 24  # numbers of user states


@final
@frozen(eq=False)
class ScaledTexts:
    """From responses to scaled features.

    Attributes:
        reader: reads texts by the frozen backbone.
        responses: scaling of the features of prompt and response together.
        prompts: that of prompts alone, where the method needs them.
    """

    reader: TextReader
    responses: Scaling
    prompts: Scaling | None

    @classmethod
    def fit(cls, reader: TextReader, table: ResponseTable, rows: IntArray, *, with_prompts: bool) -> ScaledTexts:
        """Return the scaling that standardises the features of the texts at `rows` of a table."""
        prompts = Scaling.of(reader.features(prompt_table(table), rows)) if with_prompts else None
        return cls(reader, Scaling.of(reader.features(table, rows)), prompts)

    @property
    def size(self) -> int:
        """Size H of a feature vector."""
        return len(self.responses.centre)

    def of(self, table: ResponseTable, rows: IntArray) -> Texts:
        """Return the texts at `rows` [S] of a table."""
        values = self.responses.apply(self.reader.features(table, rows))
        if self.prompts is None:
            return Texts(values, values.new_zeros(len(values), 0))
        return Texts(values, self.prompts.apply(self.reader.features(prompt_table(table), rows)))

    def tensors(self) -> dict[str, Tensor]:
        """Return the scalings, to be saved."""
        parts = {"responses": self.responses, **({"prompts": self.prompts} if self.prompts else {})}
        return {
            f"scaling.{name}.{half}": getattr(scaling, half)
            for name, scaling in parts.items()
            for half in ("centre", "scale")
        }


@final
@frozen
class _Card:
    format: int
    users: tuple[str, ...]
    groups: tuple[str | None, ...]


@final
@frozen(eq=False)
class _Fitted:
    model: FeatureReward
    texts: ScaledTexts
    users: UserTable
    states: Tensor
    stranger: Tensor = field(init=False)

    @stranger.default
    def _of_model(self) -> Tensor:
        return self.model.stranger(self.states)


@final
class FeatureMethod(PreferenceModel):
    """A method whose reward model is a `FeatureReward`.

    The backbone reads each response once, for all methods, options and seeds (`copl.reward.reading.reader`); the model
    is trained in the stage ``baseline``. A user who is neither seen nor adapted gets `FeatureReward.stranger`.

    Args:
        name: name of the method.
        options: its options.
        model: the class of its model.
        stages: the recipe's parts; ``backbone`` is used.
    """

    def __init__(self, name: str, options: TrainingOptions, model: type[FeatureReward], stages: Stages) -> None:
        self._name = name
        self._options = options
        self._model = model
        self._stages = stages
        self._fitted: _Fitted | None = None

    @property
    def fitted(self) -> _Fitted:
        if self._fitted is None:
            raise RuntimeError("fit or load the method first")
        return self._fitted

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        comparisons = data.split("train")
        if not len(comparisons):
            raise DataError(f"data set {data.name!r} has no comparisons in the split 'train'; {self._name} needs some")
        rows = comparisons.comparisons
        trained_on = np.unique(np.concatenate([rows.chosen, rows.rejected]))
        reader = TextReader.of(self._stages, self._options.max_length)
        reader.read(data.responses, workspace)
        if self._model.needs_prompts:
            reader.read(prompt_table(data.responses), workspace, stage=PROMPT_STAGE)
        texts = ScaledTexts.fit(reader, data.responses, trained_on, with_prompts=self._model.needs_prompts)

        def compute(directory: Path) -> None:
            train = Pairs.of(comparisons, lambda used: texts.of(data.responses, used))
            validation = Pairs.of(data.split("validation"), lambda used: texts.of(data.responses, used), train.users)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = self._model(self._options, Shape(train.texts.features.shape[1], train.users))
                train_model(
                    model,
                    train,
                    validation,
                    self._options,
                    name=self._name,
                    seed=seed,
                    progress=workspace.progress,
                )
            with torch.no_grad():
                states = model.seen_states(train)
            for note, value in model.notes().items():
                workspace.progress.log(self._name, **{note: value})
            _save(_Fitted(model, texts, train.users, states), directory)

        key = {
            "method": self._name,
            "options": options_to_dict(self._options),
            "code": code_digest(FeatureMethod),
            "data": data.digest("train", "validation"),
            "groups": list(data.users.groups) if self._model.knows_groups else None,
            "weights": reader.key["weights"],
            "seed": seed,
            **self._stages.key("backbone"),
        }
        directory = workspace.stage(STAGE, key=key, compute=compute)
        self._fitted = self._open(directory, self._tensors(directory), texts)

    def load(self, directory: Path) -> None:
        kept = self._tensors(directory / STAGE)
        reader = TextReader.of(self._stages, self._options.max_length)
        reader.load(directory)
        prompts = None
        if self._model.needs_prompts:
            reader.load(directory, stage=PROMPT_STAGE)
            prompts = _scaling(kept, "prompts")
        texts = ScaledTexts(reader, _scaling(kept, "responses"), prompts)
        self._fitted = self._open(directory / STAGE, kept, texts)

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        fitted = self.fitted
        pairs = Pairs.of(support, lambda rows: fitted.texts.of(support.responses, rows))
        with torch.no_grad():
            placed = fitted.model.place(pairs)
        how = (placed.how,) * len(pairs.users) if isinstance(placed.how, str) else placed.how
        return AdaptedUsers(
            user_ids=pairs.users.ids,
            embeddings=placed.states.detach(),
            how=how,
            num_neighbours=np.zeros(len(pairs.users), dtype=np.int64),
            confidence=placed.confidence.double().clamp(0, 1).numpy(),
        )

    def seen_users(self) -> Collection[str]:
        fitted = self.fitted
        return fitted.users.rows.keys() if fitted.states.shape[1] else ()

    @torch.no_grad()
    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        fitted = self.fitted
        states = self._states(requests.users, adapted)
        distinct, place = np.unique(requests.response, return_inverse=True)
        codes = fitted.model.encode(fitted.texts.of(requests.responses, distinct))
        scores = np.empty(len(requests), dtype=np.float64)
        at_once = max(1, _AT_ONCE // max(256, states.shape[1]))
        for start in range(0, len(requests), at_once):
            part = slice(start, start + at_once)
            users = states[torch.from_numpy(requests.user[part])]
            scores[part] = fitted.model.combine(codes[torch.from_numpy(place[part])], users).double().numpy()
        return scores

    def diagnostics(self) -> Diagnostics:
        fitted = self.fitted
        if not fitted.states.shape[1]:
            return Diagnostics()
        return Diagnostics(user_ids=fitted.users.ids, user_embeddings=fitted.states.double().numpy())

    def _states(self, users: UserTable, adapted: AdaptedUsers | None) -> Tensor:
        """Return the state of each user [U, D]: adapted, else seen, else that of a stranger."""
        fitted = self.fitted
        since = () if adapted is None else ((adapted.user_rows, adapted.embeddings),)
        return vectors_of(users, fitted.stranger, (fitted.users.rows, fitted.states), *since)

    def _tensors(self, directory: Path) -> TensorFile:
        read = ("responses", "prompts") if self._model.needs_prompts else ("responses",)
        expected = {f"scaling.{name}.{half}": floats(name) for name in read for half in ("centre", "scale")}
        expected["states"] = ANY_FLOATS
        return load_tensors(directory / _TENSORS, expected, others={"model.": ANYTHING}, advice=_ADVICE)

    def _open(self, directory: Path, kept: TensorFile, texts: ScaledTexts) -> _Fitted:
        card = read_document(directory / _CARD, _Card, advice=_ADVICE, version={"format": _FORMAT})
        users = UserTable(card.users, card.groups)
        with torch.random.fork_rng(devices=[]):
            model = self._model(self._options, Shape(texts.size, users))
        try:
            model.load_state_dict(kept.below("model."))
        except RuntimeError as error:
            raise RunError(f"{directory}: not a model of {self._name} with these options; train again") from error
        model.eval()
        model.requires_grad_(False)
        return _Fitted(model, texts, users, kept["states"])


def _save(fitted: _Fitted, directory: Path) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in fitted.model.state_dict().items()}
    save_tensors(directory / _TENSORS, {**tensors, "states": fitted.states, **fitted.texts.tensors()})
    write_document(directory / _CARD, _Card(_FORMAT, fitted.users.ids, fitted.users.groups), indent=None)


def _scaling(kept: TensorFile, name: str) -> Scaling:
    return Scaling(kept[f"scaling.{name}.centre"], kept[f"scaling.{name}.scale"])
