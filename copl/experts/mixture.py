"""A mixture of LoRA experts as one stock PEFT LoRA.

The gate depends on the user alone, so one shared expert and M routed experts are a single LoRA of rank
R = r_s + M * r_e whose down-projection is masked per user:

    y = W x + alpha / r_e * B (m_u * (A x)),    m_u = [1, ..., 1, w_u1, ..., w_u1, ..., w_uM, ..., w_uM]

with w_um the weight the gate gives expert m for user u (or its square). The mask is built once for a batch; a forward
hook on each ``lora_A`` applies it, and nothing else of PEFT is touched but the dropout before, for one that is quicker.
Where each adapted module has a gate of its own (``gates="per-layer"``, as the released code of CoPL), there are as many
masks as modules. Gradient checkpointing must use ``use_reentrant=False`` and one backward pass must be done before the
weights of the next batch are set, since the recomputation reads the mask again.

PEFT, which loads most of transformers, is imported where a mixture is made, not where one is named.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from copl.errors import OptionsError, RunError
from copl.experts.adapter_files import CONFIG_FILE, SavedMixture, read_mixture, write_mixture
from copl.experts.dropout import SixteenBitDropout
from copl.experts.layout import RankLayout
from copl.experts.options import MixtureOptions
from copl.experts.targets import layers_of, require_target_modules, stored_transposed

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

_ADAPTER = "default"


class _RankMask:
    """The mask of the current batch, read by the hooks of all adapted modules or of one."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if self.value is None:
            raise RuntimeError("the mixture was called before set_weights: all experts would run at once")
        if len(output) != len(self.value):
            raise RuntimeError(
                f"gate weights were set for a batch of {len(self.value)}, but the model was called with {len(output)}"
            )
        mask = self.value.to(output.dtype)
        return output * mask.view(len(mask), *[1] * (output.dim() - 2), -1)


def _refuse_merged(layer: Any, inputs: Any) -> None:
    if layer.merged:
        raise RuntimeError(
            "the mixture was merged into the backbone, all experts at once; export a user's own with merge instead"
        )


@final
class MixtureOfLora:
    """One shared LoRA expert and M routed ones on a frozen backbone; made by `attach` or `load`.

    Attributes:
        peft_model: the module to call, and to register as a submodule of whatever trains it.
        layout: which rank columns belong to which expert.
        options: the options it was made with.
        num_gates: number G of gates whose weights it takes: 1, or as many as there are adapted modules.
    """

    def __init__(self, peft_model: nn.Module, layout: RankLayout, options: MixtureOptions) -> None:
        self.peft_model = peft_model
        self.layout = layout
        self.options = options
        layers = _lora_layers(peft_model)
        for layer in layers.values():
            if isinstance(layer.lora_dropout[_ADAPTER], nn.Dropout):  # no dropout at all is an identity
                layer.lora_dropout[_ADAPTER] = SixteenBitDropout(options.dropout)
        self.num_gates = len(layers) if options.gates == "per-layer" else 1
        self._masks = [_RankMask() for _ in range(self.num_gates)]
        if layout.num_experts:
            for place, layer in enumerate(layers.values()):
                layer.lora_A[_ADAPTER].register_forward_hook(self._masks[place % self.num_gates])
                layer.register_forward_pre_hook(_refuse_merged)

    @classmethod
    def attach(
        cls,
        model: PreTrainedModel,
        options: MixtureOptions,
        *,
        num_experts: int,
        target_modules: tuple[str, ...],
        layers: tuple[int, ...] | None = None,
    ) -> MixtureOfLora:
        """Put freshly initialised adapters on a backbone and freeze everything else of it.

        The initial weights come from torch's global generator, as everywhere in PEFT.

        Args:
            model: the backbone; changed in place.
            options: ranks, scale, dropout; `options.target_modules` is for the caller to resolve.
            num_experts: number M of routed experts, 0 for the shared expert alone.
            target_modules: names of the linear modules to adapt.
            layers: indices of the layers to adapt; all where None.

        Raises:
            BackboneError: a target module does not exist.
            OptionsError: there is neither a shared nor a routed expert, or a layer that does not exist.
        """
        from peft import LoraConfig

        try:
            layout = RankLayout(options.shared_rank, options.expert_rank, num_experts)
        except ValueError as error:
            raise OptionsError(f"mixture: {error}; set shared_rank to 1 or more") from error
        _require_bare(model)
        require_target_modules(model, target_modules)
        lists, indices = layers_of(model, target_modules)
        if layers is not None and (not layers or not indices.issuperset(layers)):
            raise OptionsError(
                f"mixture: there are no layers {sorted(set(layers) - indices)} to adapt, "
                f"only {min(indices, default=0)} to {max(indices, default=0)}"
            )
        config = LoraConfig(
            r=layout.rank,
            lora_alpha=_peft_alpha(layout, options.alpha, layout.rank),
            lora_dropout=options.dropout,
            target_modules=list(target_modules),
            layers_to_transform=None if layers is None else list(layers),
            layers_pattern=None if layers is None else lists,
            fan_in_fan_out=stored_transposed(model, target_modules),
        )
        return cls(_adapted(model, config), layout, options)

    def set_weights(self, weights: Tensor | None) -> None:
        """Set the gate weights of the batch that follows; they hold until the next call.

        Args:
            weights: weight of each routed expert [B, M], as the gate gives it, or those of all gates one after the
                other [B, G M]; `gate_power` is applied here. None where there are no routed experts.

        Raises:
            ValueError: the shape is not [B, G M].
        """
        width = self.layout.num_experts * self.num_gates
        if width == 0:
            if weights is not None and weights.shape[1:] != (0,):
                raise ValueError(f"the mixture has no routed experts, yet weights {tuple(weights.shape)} were given")
            return
        if weights is None or weights.dim() != 2 or weights.shape[1] != width:
            shape = None if weights is None else tuple(weights.shape)
            raise ValueError(f"gate weights must have the shape [B, {width}], not {shape}")
        factors = self.rank_weights(weights)
        for mask, value in zip(self._masks, factors.unbind(1), strict=True):
            mask.value = value

    def detach(self) -> None:
        """Take the adapters off the backbone, in place; this object is of no use afterwards."""
        self.peft_model.unload()  # type: ignore[operator]

    def rank_weights(self, weights: Tensor) -> Tensor:
        """Return the factors [B, G, R] of the rank columns for gate weights [B, G M], `gate_power` applied."""
        powered = weights**2 if self.options.gate_power == 2 else weights
        return self.layout.mask(powered.reshape(len(weights), self.num_gates, self.layout.num_experts))

    def config_dict(self) -> dict[str, Any]:
        """Return PEFT's configuration of the adapter, as it is written to disk."""
        config: dict[str, Any] = self.peft_model.peft_config[_ADAPTER].to_dict()  # type: ignore[union-attr,index]
        return config | {"inference_mode": True}

    def tensors(self) -> dict[str, Tensor]:
        """Return the adapter's weights by the names PEFT stores them under."""
        from peft import get_peft_model_state_dict

        return dict(get_peft_model_state_dict(self.peft_model, save_embedding_layers=False))

    def save(self, directory: Path) -> None:
        """Write stock PEFT files and the marker ``mixture.json`` into `directory`, each atomically."""
        write_mixture(directory, self.config_dict(), self.tensors(), layout=self.layout, options=self.options)

    @classmethod
    def load(cls, model: PreTrainedModel, directory: Path) -> MixtureOfLora:
        """Put the adapters saved in `directory` on a backbone, ready to score or to train on; draws nothing at random.

        Args:
            model: the backbone they were trained on; changed in place.
            directory: where `save` wrote.

        Raises:
            RunError: a file is missing, damaged, foreign, of another version, or made for another backbone.
            BackboneError: the backbone lacks a target module.
        """
        return cls.restore(model, read_mixture(directory))

    @classmethod
    def restore(cls, model: PreTrainedModel, saved: SavedMixture) -> MixtureOfLora:
        """Put adapters that were read from disk on a backbone, as `load`.

        Raises:
            RunError: they were made for another backbone, or by a PEFT that this one does not understand.
            BackboneError: the backbone lacks a target module.
        """
        from peft import LoraConfig

        try:
            config = LoraConfig.from_peft_type(**saved.config)
        except (TypeError, ValueError, KeyError) as error:
            raise RunError(f"{saved.directory / CONFIG_FILE} cannot be read by this peft: {error}") from error
        config.inference_mode = False
        _require_bare(model)
        require_target_modules(model, config.target_modules)
        with torch.random.fork_rng(devices=[]):
            mixture = cls(_adapted(model, config), saved.layout, saved.options)
        mixture._take(saved, type(model).__name__)
        return mixture

    def take_up(self, directory: Path) -> None:
        """Give the adapters the weights that `save` wrote, to train on.

        Raises:
            RunError: a file is missing, damaged, foreign, or of other adapters.
        """
        self._take(read_mixture(directory), "the one here")

    def _take(self, saved: SavedMixture, backbone: str) -> None:
        from peft import set_peft_model_state_dict

        wanted = {name: tuple(tensor.shape) for name, tensor in self.tensors().items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in saved.tensors.items()}
        different = sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
        if different:
            raise RunError(
                f"{saved.directory} was made for another backbone than {backbone}: {len(different)} of "
                f"{len(wanted)} tensors differ, such as {different[0]}: {shapes.get(different[0], 'absent')} "
                f"on disk, {wanted.get(different[0], 'absent')} wanted"
            )
        set_peft_model_state_dict(self.peft_model, dict(saved.tensors))


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Let a transformer run without the adapters it carries, if it carries any.

    PEFT's own switch would also set anew what of them is trained.
    """
    layers = list(_lora_layers(model).values())
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def user_slice(mixture: MixtureOfLora, weights: Tensor | None) -> tuple[int, dict[str, Any], dict[str, Tensor]]:
    """Return one user's slice of a mixture as a plain LoRA: its rank, PEFT's configuration and tensors.

    Only the shared expert and the experts with a weight other than zero are kept, the weight multiplied into
    ``lora_B``, so the adapter needs no mask and its rank is r_s + (number of those experts) * r_e.

    Args:
        mixture: the trained mixture; left as it is.
        weights: the user's gate weights [M], or [G M] where there are several gates; None without routed experts.
    """
    with torch.no_grad():
        if mixture.layout.num_experts and weights is not None:
            factors = mixture.rank_weights(weights.detach().unsqueeze(0).float().cpu())[0]
        else:
            factors = torch.ones(1, mixture.layout.rank)
        # Without any expert left, one column of weight zero keeps the adapter loadable.
        rank = max(1, int((factors != 0).sum(dim=1).max()))
        # Modules may keep unequal numbers of columns; those that are short are filled up with columns of weight zero.
        kept = (factors != 0).int().argsort(dim=1, descending=True, stable=True)[:, :rank]
        places = {name: place % mixture.num_gates for place, name in enumerate(_lora_layers(mixture.peft_model))}
        tensors = {
            name: _sliced(tensor.cpu(), name, kept[gate], factors[gate])
            for name, tensor in mixture.tensors().items()
            for gate in [places[name.rpartition(".lora_")[0]]]
        }
    alpha = _peft_alpha(mixture.layout, mixture.options.alpha, rank)
    return rank, mixture.config_dict() | {"r": rank, "lora_alpha": alpha}, tensors


def _peft_alpha(layout: RankLayout, alpha: float, rank: int) -> float:
    """PEFT scales by lora_alpha / rank, where every expert is to be scaled by alpha / r_e."""
    scaled = alpha * rank / layout.scaled_rank
    return int(scaled) if scaled == int(scaled) else scaled


def _sliced(tensor: Tensor, name: str, kept: Tensor, factors: Tensor) -> Tensor:
    """The rows of ``lora_A`` that are kept, or the columns of ``lora_B`` times their factors."""
    if ".lora_A." in name:
        return tensor[kept]
    return (tensor[:, kept].float() * factors[kept]).to(tensor.dtype)


def _lora_layers(peft_model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in peft_model.named_modules() if _ADAPTER in getattr(module, "lora_A", {})}


def _require_bare(model: nn.Module) -> None:
    if any(hasattr(module, "lora_A") for module in model.modules()):
        raise RuntimeError("the backbone already carries adapters; load it again")


def _adapted(model: PreTrainedModel, config: LoraConfig) -> nn.Module:
    from peft import PeftModel

    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for a property under its former name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        adapted: nn.Module = PeftModel(model, config, adapter_name=_ADAPTER)
    return adapted
