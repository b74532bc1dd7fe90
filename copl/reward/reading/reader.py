"""One object that owns the backbone of a method and everything the backbone made of the texts.

A method makes it once and hands it to whoever needs a text read: encoder, reward training, users by text, scoring.
Each distinct text passes the frozen layers once; what they made of it is kept by the text, in files that all runs of a
machine share, and a text never met before is read when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.errors import BackboneError
from copl.experts.mixture import adapters_off
from copl.interfaces import Backbone, Progress, Workspace
from copl.records import ResponseTable
from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone, accelerator, joined_tokens, tokens_of
from copl.reward.backbones.standalone import Tokens
from copl.reward.options import RewardOptions
from copl.reward.reading.kept import KeptRows, UnevenRows, clear_away, digest_of, kept_by
from copl.reward.reading.passes import Read, by_texts, lower_pass, take, upper_pass, whole_pass
from copl.reward.reading.steady import shares_prompts, steady_reads
from copl.reward.reading.trunk import FrozenTrunk, check_replay
from copl.runs.caching import TEXTS
from copl.runs.recipe import Stages, canonical_hash
from copl.system.files import locked
from copl.system.processes import agree, is_main, num_processes, wait, weights_are_split
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from copl.records import IntArray

STAGE = "features"
_FILE = "features.safetensors"
_TEXTS_AT_ONCE, _BYTES_AT_ONCE = 512, 256 << 20  # the bytes are those of hidden states
_TOKENS_OF = 1024  # texts whose tokens are remembered, as several passes over them follow one another


@final
class TextReader:
    """Reads texts by a frozen backbone, each once.

    The backbone is loaded when the first text has to be read. Adapters that somebody has put on it since are switched
    off while this object reads.

    Args:
        backbone: the backbone.
        max_length: limit in tokens of prompt and response together.
        trainable_layers: how many of the top layers carry adapters whose training goes on from the hidden states
            below; 0 keeps no hidden states.
        key: what is made of the readings depends on this beside weights and length, as plain JSON values.
        kept_by: the same of the readings that runs share; `key` unless given.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_length: int,
        trainable_layers: int = 0,
        key: Mapping[str, object] | None = None,
        kept_by: Mapping[str, object] | None = None,
    ) -> None:
        self.max_length = max_length
        self._source = backbone
        self._trainable_layers = trainable_layers
        self._own_key = key or {}
        self._kept_by = self._own_key if kept_by is None else kept_by
        self._features, self._states = KeptRows(), KeptRows()
        self._tokens: dict[str, Tokens] = {}
        self._shared: Path | None = None
        self._checks: list[Callable[[LoadedBackbone], None]] = []
        self._progress: Progress = SilentProgress()

    @classmethod
    def of(cls, stages: Stages, max_length: int | None = None) -> TextReader:
        """Return a reader with the backbone of a recipe.

        Args:
            stages: the recipe's parts; ``backbone`` is used, and the section ``reward`` where there is one.
            max_length: limit in tokens; that of the section ``reward``, or its default, unless given.
        """
        reward = stages.sections.get("reward", RewardOptions(mode="frozen"))
        assert isinstance(reward, RewardOptions)
        length, layers = max_length or reward.max_length, _adapted(reward)
        key = stages.key("backbone")
        kept = kept_by(key["backbone"])
        return cls(stages.backbone(), max_length=length, trainable_layers=layers, key=key, kept_by=kept)

    @classmethod
    def over(cls, loaded: LoadedBackbone, options: RewardOptions) -> TextReader:
        """Return a reader with a backbone that is in memory already."""
        return cls(_InMemory(loaded), max_length=options.max_length, trainable_layers=_adapted(options))

    @cached_property
    def key(self) -> Mapping[str, object]:
        """What the readings depend on beside the texts, for the key of a stage.

        Raises:
            BackboneError: the backbone is missing.
        """
        return {**self._own_key, **self._read_with}

    @cached_property
    def _read_with(self) -> Mapping[str, object]:
        return {"weights": self._source.fingerprint(), "max_length": self.max_length}

    @cached_property
    def backbone(self) -> LoadedBackbone:
        """The backbone, on the accelerator where there is one; its weights split among processes where asked for.

        Raises:
            BackboneError: it is missing or damaged.
        """
        loaded: LoadedBackbone = self._source.load()
        for check in self._checks:
            check(loaded)
        if not weights_are_split():
            return loaded.on_accelerator()
        from copl.reward.reading.sharding import split_weights

        split_weights(loaded)
        return loaded

    @property
    def device(self) -> torch.device:
        """Where the backbone is, or will be once it is open."""
        return self.backbone.model.device if "backbone" in self.__dict__ else accelerator()

    def when_open(self, check: Callable[[LoadedBackbone], None]) -> None:
        """Have the backbone checked: now, or as soon as it is opened, where whoever wants a text read hears of it."""
        self._checks.append(check)
        if "backbone" in self.__dict__:
            check(self.backbone)

    @cached_property
    def trunk(self) -> FrozenTrunk | None:
        """The layers below the adapted ones, where there are such.

        Raises:
            BackboneError: the backbone cannot go on from their output.
        """
        backbone = self.backbone
        if not 0 < self._trainable_layers < backbone.num_layers:
            return None
        trunk = FrozenTrunk(backbone.model, backbone.num_layers, self._trainable_layers)
        with self._reading():
            check_replay(backbone.model, trunk)
        return trunk

    @cached_property
    def shares_prompts(self) -> bool:
        """Whether a prompt is read once for all responses to it: where the backbone is a decoder that can."""
        with self._reading():
            return shares_prompts(self.backbone)

    @property
    def texts_at_once(self) -> int:
        """So many texts have hidden states of 256 MiB at most; who asks for more at a time has some read twice."""
        backbone = self.backbone
        size = min(self.max_length, backbone.max_positions) * backbone.hidden_size * backbone.model.dtype.itemsize
        return max(1, min(_TEXTS_AT_ONCE, _BYTES_AT_ONCE // int(size)))

    def whole_again(self) -> None:
        """Have the weights whole in every process from here on, where they were split up for training."""
        if weights_are_split():
            self.__dict__.pop("trunk", None)
            self.__dict__["backbone"] = self._source.load().on_accelerator()

    def read(self, responses: ResponseTable, workspace: Workspace, *, stage: str = STAGE) -> None:
        """Read all texts of a table and keep their features with the run.

        Those of held-out splits are read as well: features know nothing of comparisons, and so every method, every seed
        and every way to split the same texts share one reading. Texts that any run of this machine has read before are
        not read again.

        Args:
            responses: the texts; their order does not matter.
            workspace: where the features are kept.
            stage: name of the stage.

        Raises:
            BackboneError: the backbone is missing, damaged, or cannot read a text.
            RunError: the stage is there but damaged.
            TrainingError: memory is exhausted.
        """
        self._progress = workspace.progress
        self._share(workspace)
        keys = sorted(set(responses.keys))
        rows = np.array([responses.rows[key] for key in keys], dtype=np.int64)

        def compute(directory: Path) -> None:
            self._fill_together(responses, rows, self._features)
            if is_main():
                self._features.save(keys, directory / _FILE)

        key = {"texts": digest_of(keys), **self.key}
        self._features.add_file(workspace.stage(stage, key=key, compute=compute, together=True) / _FILE)

    def load(self, directory: Path, *, stage: str = STAGE) -> None:
        """Take in the features that `read` kept in a run directory.

        Raises:
            RunError: they are missing or damaged.
        """
        self._features.add_file(directory / stage / _FILE)

    def features(self, responses: ResponseTable, rows: IntArray) -> Tensor:
        """Return the frozen features [N, H] of the responses at `rows` [N]: pooled hidden states, float32.

        Raises:
            BackboneError: a text is new, and the backbone is missing or cannot read it.
            TrainingError: memory is exhausted.
        """
        self._fill(responses, rows, self._features)
        features = self._features.get_single([responses.keys[row] for row in rows])
        self._features.forget()
        return features

    def states(self, responses: ResponseTable, rows: IntArray, *, together: bool = False) -> UnevenRows | None:
        """Return the hidden states of the responses at `rows` [N] that adapters go on from; None without a trunk.

        Args:
            responses: the texts.
            rows: which of them.
            together: whether all processes of a launcher ask.

        Raises:
            BackboneError: a text is new, and the backbone cannot read it.
            TrainingError: memory is exhausted.
        """
        if self.trunk is None:
            return None
        (self._fill_together if together else self._fill)(responses, rows, self._states)
        states = self._states.get([responses.keys[row] for row in rows])
        self._states.forget()
        return states

    def parts(self, responses: ResponseTable, rows: IntArray) -> Iterator[IntArray]:
        """Yield the places of requests for the responses at `rows` [N], so many texts at a time as are remembered.

        Whoever has several things made of new texts, such as features and readings by experts, has each text read once
        where they are made part by part.
        """
        if len(self._new(responses, rows, self._features)) == 0:
            yield np.arange(len(rows))
            return
        for _, places in by_texts(rows, self.texts_at_once):
            yield places

    def tokens(self, responses: ResponseTable, rows: IntArray) -> EncodedResponses:
        """Return the responses at `rows` as tokens.

        Raises:
            BackboneError: the chat template refuses a prompt, or the limit leaves no room for a response.
        """
        limit = min(self.max_length, self.backbone.max_positions)
        keys = [responses.keys[row] for row in rows]
        lacking = {key: int(row) for key, row in zip(keys, rows, strict=True) if key not in self._tokens}
        new = np.fromiter(lacking.values(), dtype=np.int64, count=len(lacking))
        tokens = dict(zip(lacking, tokens_of(self.backbone, responses, new, limit), strict=True))
        encoded = joined_tokens(self.backbone, [tokens.get(key) or self._tokens[key] for key in keys], limit)
        self._tokens = dict(islice({**tokens, **self._tokens}.items(), _TOKENS_OF))
        return encoded

    def _share(self, workspace: Workspace) -> None:
        """From now on, keep what is read where other runs find it."""
        if self._shared is None:
            self._shared = workspace.shared(TEXTS) / canonical_hash({**self._kept_by, **self._read_with})[:32]
            self._features = KeptRows(self._shared / "features")
            self._states = KeptRows(self._shared / f"below-{self._trainable_layers}")

    def _fill_together(self, responses: ResponseTable, rows: IntArray, wanted: KeptRows) -> None:
        """See to it that all processes of a launcher have what is wanted of the texts of a whole data set."""
        if num_processes() == 1:
            self._fill(responses, rows, wanted, steady=False)
            return
        self._refresh()
        # All of them read, for where weights are split none can read alone; one of them writes.
        self._read(responses, agree(self._new(responses, rows, wanted)), wanted, keep=self._shared is None or is_main())
        wait()
        self._refresh()

    def _refresh(self) -> None:
        self._features.refresh()
        self._states.refresh()

    def _fill(self, responses: ResponseTable, rows: IntArray, wanted: KeptRows, *, steady: bool = True) -> None:
        """Read those of the texts that are not in `wanted` yet; `steady`: whatever else is asked for with them."""
        new = self._new(responses, rows, wanted)
        if not len(new):
            return
        if self._shared is None:
            self._read_in_parts(responses, new, wanted, steady=steady)
            return
        # Who reads the same texts at the same time waits, and finds them read; where no lock can be had both read them.
        with ExitStack() as held:
            with suppress(OSError):
                held.enter_context(locked(self._shared / "locks" / digest_of({responses.keys[row] for row in rows})))
            self._refresh()
            self._read(responses, self._new(responses, rows, wanted), wanted, steady=steady)
        clear_away(self._shared.parent, {*self._features.files, *self._states.files})

    def _read_in_parts(self, responses: ResponseTable, rows: IntArray, wanted: KeptRows, *, steady: bool) -> None:
        """Read texts into memory; where only their features are wanted, no more hidden states stay than is allowed."""
        at_once = self.texts_at_once if wanted is self._features else max(1, len(rows))
        for start in range(0, len(rows), at_once):
            self._read(responses, rows[start : start + at_once], wanted, steady=steady)
            if wanted is self._features:
                self._states.forget()

    def _new(self, responses: ResponseTable, rows: IntArray, wanted: KeptRows) -> IntArray:
        """The rows of distinct texts that are not in `wanted`; always in one order, so that batches are the same."""
        lacking = {responses.keys[row]: row for row in rows if wanted.lacks(responses.keys[row])}
        return np.array([lacking[key] for key in sorted(lacking)], dtype=np.int64)

    def _read(
        self, responses: ResponseTable, rows: IntArray, wanted: KeptRows, *, keep: bool = True, steady: bool = False
    ) -> None:
        """Run the layers that the texts at `rows` have not passed yet."""
        if not len(rows):
            return
        if steady and wanted is self._features and self.trunk is not None and self.shares_prompts:
            # by one way, whatever is there already: above, whole texts are read, which have no prompt in common
            self._read(responses, self._new(responses, rows, self._states), self._states, steady=True)
        below = np.array([not self._states.lacks(responses.keys[row]) for row in rows], dtype=np.bool_)
        for part, passed in ((rows[below], True), (rows[~below], False)):
            if not len(part):
                continue
            keys, encoded = [responses.keys[row] for row in part], self.tokens(responses, part)
            reads = self._passes(keys, encoded, upper=wanted is self._features, passed=passed, steady=steady)
            with self._reading():
                put = partial(self._keep, keys, encoded) if keep else lambda read: None
                take(reads, len(part), self._progress, put)

    def _passes(
        self, keys: Sequence[str], encoded: EncodedResponses, *, upper: bool, passed: bool, steady: bool
    ) -> Iterator[Read]:
        """Run the upper layers, or those that are still wanted."""
        backbone, trunk = self.backbone, self.trunk
        states = self._states.get(keys) if passed else None
        if steady:
            return steady_reads(backbone, encoded, trunk, states, prompts=self.shares_prompts, upper=upper)
        if trunk is None or (upper and states is None):
            return whole_pass(backbone, encoded, trunk)
        return lower_pass(backbone, encoded, trunk) if states is None else upper_pass(backbone, encoded, trunk, states)

    def _keep(self, keys: Sequence[str], encoded: EncodedResponses, read: Read) -> None:
        names = [keys[place] for place in read.places]
        if read.pooled is not None:
            if not bool(torch.isfinite(read.pooled).all()):
                name = type(self.backbone.model).__name__
                raise BackboneError(
                    f"{name} has hidden states that are not finite; set the backbone's dtype to float32"
                )
            self._features.put(names, np.ones(len(names), dtype=np.int64), read.pooled)
        if read.states is not None:
            self._states.put(names, encoded.lengths[read.places], read.states)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Have the backbone as it was before anybody put adapters on it or trained with it."""
        model = self.backbone.model
        training = model.training
        model.eval()
        try:
            with adapters_off(model):
                yield
        finally:
            model.train(training)


def _adapted(options: RewardOptions) -> int:
    return options.trainable_layers if options.mode == "adapt" else 0


@final
@frozen(eq=False)
class _InMemory:
    """A backbone that is there already."""

    loaded: LoadedBackbone

    def fingerprint(self) -> str:
        raise RuntimeError("a backbone in memory has no files to know it by; give the reader one of the catalogue")

    def load(self) -> LoadedBackbone:
        return self.loaded
