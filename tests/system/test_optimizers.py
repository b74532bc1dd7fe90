import subprocess
import sys

import pytest
import torch

from copl.system.optimizers import eager

_STEPS = """
import sys
import torch
from copl.system.optimizers import eager

weights = torch.ones(3, requires_grad=True)
optimizer = eager(torch.optim.AdamW)([weights], lr=0.1)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
for _ in range(2):
    optimizer.zero_grad()
    weights.square().sum().backward()
    optimizer.step()
    schedule.step()
assert weights.max() < 1
print([name for name in sys.modules if name.startswith("torch._dynamo")])
"""


def _trained(kind: type[torch.optim.Optimizer], start: torch.Tensor, *, sparse: bool) -> list[torch.Tensor]:
    table = torch.nn.Embedding.from_pretrained(start.clone(), freeze=False, sparse=sparse)
    optimizer = kind(table.parameters(), lr=0.1)  # type: ignore[call-arg]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for step in range(6):
        optimizer.zero_grad()
        (table(torch.tensor([step % 3, 1])) - 1).square().sum().backward()
        optimizer.step()
        schedule.step()
        if step == 2:  # its state is kept and read as that of its kind
            other = kind(table.parameters(), lr=0.5)  # type: ignore[call-arg]
            other.load_state_dict(optimizer.state_dict())
            optimizer = other
    return [table.weight.detach(), *(value for state in optimizer.state.values() for value in state.values())]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SparseAdam])
def test_takes_the_very_steps_of_its_kind(kind: type[torch.optim.Optimizer]) -> None:
    start = torch.linspace(-1, 1, 12).reshape(4, 3)
    sparse = kind is torch.optim.SparseAdam
    mine, theirs = (_trained(made, start, sparse=sparse) for made in (eager(kind), kind))
    assert issubclass(eager(kind), kind)
    assert all(
        torch.equal(torch.as_tensor(one), torch.as_tensor(other)) for one, other in zip(mine, theirs, strict=True)
    )


def test_leaves_the_compiler_out() -> None:
    done = subprocess.run([sys.executable, "-c", _STEPS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
