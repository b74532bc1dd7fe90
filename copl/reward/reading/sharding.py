"""Frozen weights split up among several processes (FSDP): each keeps a part; a layer is whole only while it works.

Only what is frozen is split up, for that is nearly everything. Adapters, gate and head lie whole in every process and
have their gradients averaged (DDP), so checkpoints, optimiser and saved files are those of any other run.
"""

from __future__ import annotations

import os
import warnings

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from copl.errors import OptionsError
from copl.reward.backbones.loaded import LoadedBackbone

_UNHEARD = {
    "FSDP_OFFLOAD_PARAMS": "weights cannot be kept off the accelerator; set it to false",
    "FSDP_ACTIVATION_CHECKPOINTING": "set it to false and reward.gradient_checkpointing to true",
}
"""Settings of Accelerate that would be missed, and what to do instead."""


def split_weights(backbone: LoadedBackbone) -> None:
    """Split up the weights of a backbone among the processes, layer by layer, in place.

    From here on, every process has to call the model as often as the others. Where there is an accelerator the parts go
    there, so that the whole model never has to fit on one.

    Args:
        backbone: freshly loaded, without adapters; the same in every process.

    Raises:
        OptionsError: the launcher asks for more of Accelerate's FSDP than this.
    """
    asked = [name for name in _UNHEARD if os.environ.get(name, "").lower() in ("true", "1")]
    if asked:
        raise OptionsError([f"the launcher sets {name}: {_UNHEARD[name]}" for name in asked])
    # A view changed in place would lose its gradient; nothing here or in transformers changes hidden states in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    model = backbone.model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == backbone.num_layers]
    for layer in (layer for layers in lists for layer in layers):
        # The parts of a layer as one unit, not the layer: one that is skipped (`copl.reward.reading.trunk`) is not
        # gathered.
        parts = [part for part in layer.children() if next(part.parameters(), None) is not None]
        fully_shard(parts, mesh=mesh)
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, nn.Module):  # a unit of its own, for nothing flows back to it
        fully_shard(embeddings, mesh=mesh)
    fully_shard(model, mesh=mesh)
