"""A general quality reward beside the personal one: any sequence classifier of transformers.

Taste alone may pick well-styled nonsense, for users compare answers that make sense. A classifier that judges
responses for everybody, such as a published reward model, is added with a weight.
"""

from __future__ import annotations

import copy
import math
import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from copl.errors import BackboneError, OptionsError, in_brief, quoted
from copl.reward.calibration import ROUNDING

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray, ResponseTable, ScoreRequests

_REMEMBERED = 65_536
_LONGEST = 4096


@final
class QualityReward:
    """How good a response is to anybody: the logit of a sequence classifier.

    With one label (a reward model) it is that label's logit; with several, the logit of one label less the
    log-sum-exp of the others, the log-odds of that label. Each text is read by itself, so a score never depends on a
    batch; the last 65,536 are remembered. A prompt and a response are joined by the chat template of the tokenizer, or
    read as a pair of texts.

    Args:
        name: Hugging Face id or path of the classifier.
        weight: how much it counts beside the personal reward, both in standard deviations over the same responses
            where that is calibrated; `copl.Model.weigh` chooses one.
        label: name or number of the label that is good; needed with more than two labels, of two it is the second.
        device: where it runs; the accelerator where there is one.

    Raises:
        BackboneError: it cannot be found, is no classifier, or is damaged.
        OptionsError: there is no such label, or none is named where there are several.
    """

    def __init__(
        self,
        name: str | Path,
        *,
        weight: float = 1.0,
        label: str | int | None = None,
        device: str | None = None,
    ) -> None:
        import torch

        from copl.reward.backbones.catalogue import HuggingFace, HuggingFaceOptions
        from copl.reward.backbones.loaded import max_positions
        from copl.reward.backbones.standalone import chat_template

        if not math.isfinite(weight):
            raise OptionsError(f"quality: a weight is a finite number, not {weight}")
        self.name, self.weight = str(name), weight
        directory = HuggingFace(HuggingFaceOptions(path=self.name)).directory()
        self._directory = directory
        self._model, self._tokenizer = _opened(directory)
        self._model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        self._label = _label_of(self.name, self._model.config, label)
        self._template = "pair" if chat_template(self._tokenizer) is None else "chat"
        self._limit = min(_LONGEST, max_positions(self._model, self._tokenizer))
        self._known: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """A text that is equal exactly when classifier, label and weight are."""
        return f"{self._content}:{self._label}:{self.weight}"

    @cached_property
    def _content(self) -> str:
        from copl.reward.backbones.checkpoints import fingerprint_directory

        return fingerprint_directory(self._directory)

    def scores(self, responses: ResponseTable, rows: IntArray) -> FloatArray:
        """Return the quality [N] of the responses at `rows` [N].

        Raises:
            BackboneError: a text cannot be read.
        """
        keys = [responses.keys[row] for row in rows.tolist()]
        with self._lock:
            for key, row in zip(keys, rows.tolist(), strict=True):
                if key in self._known:
                    self._known.move_to_end(key)
                else:
                    self._known[key] = self._read(responses.prompts[row], responses.texts[row])
            qualities = np.array([self._known[key] for key in keys], dtype=np.float64)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return qualities

    def standardised(self, requests: ScoreRequests, reference: ResponseTable) -> FloatArray:
        """Return the quality [N] of requests in standard deviations over some reference responses, 0 their mean."""
        standard = self.scores(reference, np.arange(len(reference)))
        spread = float(standard.std())
        asked: FloatArray = self.scores(requests.responses, requests.response) - standard.mean()
        return asked / (spread if spread > ROUNDING * float(np.abs(standard).max(initial=0.0)) else 1.0)

    def weighted(self, weight: float) -> QualityReward:
        """Return the same reward with another weight; both remember the same texts."""
        other = copy.copy(self)
        other.weight = weight
        return other

    def _read(self, prompt: str, text: str) -> float:
        import torch

        from copl.reward.backbones.standalone import TextError, encode

        try:
            [tokens] = encode(self._tokenizer, self._template, [(prompt, text)], self._limit)
        except TextError as error:
            raise BackboneError(f"{self.name}: {error}") from error
        ids = torch.tensor([tokens.ids], device=self._model.device)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self._template == "pair" and "token_type_ids" in self._tokenizer.model_input_names:
            inputs["token_type_ids"] = (torch.arange(ids.shape[1], device=ids.device) >= tokens.prompt_length).long()[
                None
            ]
        with torch.no_grad():
            logits = self._model(**inputs).logits[0].double()
        if not bool(torch.isfinite(logits).all()):
            raise BackboneError(f"{self.name} gives a quality that is no finite number to a response")
        if len(logits) == 1:
            return float(logits[0])
        others = torch.cat([logits[: self._label], logits[self._label + 1 :]])
        return float(logits[self._label] - torch.logsumexp(others, dim=0))


def _opened(directory: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from copl.reward.backbones.checkpoints import quiet, require_complete

    require_complete(directory)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                directory, use_safetensors=True, output_loading_info=True, dtype="float32", **options
            )
            tokenizer = AutoTokenizer.from_pretrained(directory, **options)
    except Exception as error:  # whatever foreign code comes upon in foreign files
        raise BackboneError(f"{directory} is no sequence classifier: {in_brief(error)}") from error
    if info["missing_keys"]:
        absent = sorted(info["missing_keys"])[0]
        raise BackboneError(f"{directory} is no trained sequence classifier: it lacks {absent}, which would be random")
    model.config.get_text_config().pad_token_id = None  # texts come one by one, so the last token is the last
    return model, tokenizer


def _label_of(name: str, config: Any, label: str | int | None) -> int:
    """The number of the label that is good."""
    names = [str(config.id2label.get(place, place)) for place in range(int(config.num_labels))]
    if label is None:
        if len(names) > 2:
            raise OptionsError(f"{name} has {len(names)} labels; name the one that is good: {', '.join(names)}")
        return len(names) - 1
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    if label in names:
        return names.index(str(label))
    raise OptionsError(f"{name} has no label {quoted(label)}; it has {', '.join(names)}")
