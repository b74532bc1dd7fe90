from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.errors import DataError, OptionsError
from copl.experts.gates.catalogue import COMPONENTS, LearnedGateOptions, NoisyTopKOptions
from copl.experts.gates.learned import LearnedGate, keep_largest, switch_balance
from copl.experts.gates.noisy import NoisyTopKGate, squared_variation
from copl.experts.report import gate_report
from copl.interfaces import ExpertGate
from copl.options import parse_options

BY_NAME = {component.name: component for component in COMPONENTS}
DIM = 6


def bare(name: str, **options: object) -> ExpertGate:
    component = BY_NAME[name]
    torch.manual_seed(0)
    gate: ExpertGate = component.build(
        parse_options(component.options, options, where=f"gate.{name}"), embedding_dim=DIM
    )
    return gate


def build(name: str, **options: object) -> ExpertGate:
    gate = bare(name, **options)
    gate.bind(users(30, seed=9), ("a", "b", "c") * 10, seed=0)
    return gate


def users(count: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)))


def test_all_gates_are_there() -> None:
    assert set(BY_NAME) == {"top1", "topk", "softmax", "noisy-topk", "none", "uniform", "random", "cluster", "oracle"}


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=10)
@given(count=st.integers(1, 9), seed=st.integers(0, 99), training=st.booleans())
def test_weights_keep_the_contract(name: str, count: int, seed: int, training: bool) -> None:
    gate = build(name).train(training)
    decided = gate(users(count, seed))
    assert decided.weights.shape == (count, gate.num_experts)
    assert decided.aux_loss.shape == ()
    assert torch.isfinite(decided.weights).all()
    assert torch.isfinite(decided.aux_loss)
    assert (decided.weights >= 0).all()
    assert ((decided.weights > 0).sum(1) <= gate.top_k).all()


@pytest.mark.parametrize("name", BY_NAME)
def test_a_users_weights_do_not_depend_on_the_others(name: str) -> None:
    gate, batch = build(name).eval(), users()
    together = gate(batch).weights
    assert torch.equal(gate(batch).weights, together)
    alone = torch.cat([gate(user).weights for user in batch.split(1)])
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-5)


def test_top1_keeps_the_softmax_probability_of_the_largest_logit() -> None:
    gate = build("top1", num_experts=3, hidden_dim=2, temperature=2.0).eval()
    assert isinstance(gate, LearnedGate)
    gate.output.weight.data.zero_()
    gate.output.bias.data = torch.tensor([0.0, 2.0 * math.log(3.0), 0.0])
    weights = gate(users(2)).weights
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.6, 0.0]] * 2))  # 3 / (1 + 3 + 1)


def test_topk_and_softmax_keep_more_of_the_same_probabilities() -> None:
    dense = build("softmax").eval()(users()).weights
    torch.testing.assert_close(dense.sum(1), torch.ones(40))
    two = build("topk", top_k=2).eval()(users()).weights
    one = build("top1").eval()(users()).weights
    torch.testing.assert_close(two, keep_largest(dense, 2))
    torch.testing.assert_close(one, keep_largest(dense, 1))
    assert ((two > 0).sum(1) == 2).all()


def test_noise_comes_in_training_only_and_from_the_global_generator() -> None:
    gate, batch = build("softmax", noise=0.5), users()
    gate.eval()
    state = torch.random.get_rng_state()
    quiet = gate(batch).weights
    assert torch.equal(torch.random.get_rng_state(), state)
    gate.train()
    torch.manual_seed(3)
    first, second = gate(batch).weights, gate(batch).weights
    torch.manual_seed(3)
    assert torch.equal(gate(batch).weights, first)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, quiet)
    still = build("softmax", noise=0.0).train()
    torch.testing.assert_close(still(batch).weights, quiet)


def test_the_routed_weight_teaches_the_gate() -> None:
    gate = build("top1").eval()
    gate(users()).weights.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gate.parameters())


def test_balance_is_one_when_even_and_m_when_collapsed() -> None:
    even = torch.eye(4)
    assert switch_balance(even, even).item() == pytest.approx(1.0)
    collapsed = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 4)
    assert switch_balance(collapsed, collapsed).item() == pytest.approx(4.0)
    pairs = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    assert switch_balance(pairs, pairs).item() == pytest.approx(1.0)
    assert build("top1")(users()).aux_loss.item() == 0.0
    assert build("top1", balance=0.5)(users()).aux_loss.item() >= 0.25


def test_the_balancing_loss_spreads_a_collapsed_gate() -> None:
    gate = build("top1", num_experts=4, balance=1.0).train()
    assert isinstance(gate, LearnedGate)
    gate.output.bias.data[2] = 3.0
    assert gate_report(gate.eval()(users()).weights.detach()).usage[2] == 1.0
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.02)
    gate.train()
    for _ in range(60):
        optimizer.zero_grad()
        gate(users()).aux_loss.backward()
        optimizer.step()
    assert gate_report(gate.eval()(users()).weights.detach()).usage[2] < 0.6


def test_noisy_topk_weighs_the_kept_logits_alone() -> None:
    gate = NoisyTopKGate(NoisyTopKOptions(num_experts=3, top_k=2), embedding_dim=3).eval()
    gate.clean.weight.data = torch.eye(3)
    decided = gate(torch.tensor([[math.log(3.0), 0.0, -9.0]]))
    torch.testing.assert_close(decided.weights, torch.tensor([[0.75, 0.25, 0.0]]))
    assert decided.aux_loss.item() == 0.0
    assert squared_variation(torch.tensor([1.0, 3.0])).item() == pytest.approx(0.25)


def test_noisy_topk_trains_gate_and_noise() -> None:
    gate = build("noisy-topk", balance=0.1).train()
    decided = gate(users())
    assert decided.aux_loss.item() > 0
    (decided.aux_loss + decided.weights[:, 0].sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gate.parameters())
    everyone = build("noisy-topk", top_k=8, num_experts=8).train()
    assert ((everyone(users()).weights > 0).sum(1) == 8).all()


def test_random_spreads_users_and_stays_with_them() -> None:
    batch = users(4000)
    gate = build("random", num_experts=4)
    weights = gate(batch).weights
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    report = gate_report(weights)
    assert report.entropy > 0.99  # 4,000 fair draws leave each expert within 25 +- 2 %
    assert report.finding is None
    torch.testing.assert_close(build("random", num_experts=4)(batch * 3.0).weights, weights)
    assert (build("random", num_experts=4, seed=1)(batch).weights != weights).any()
    nearest = (batch @ batch.T - 2 * torch.eye(len(batch))).argmax(1)
    same = (weights.argmax(1) == weights.argmax(1)[nearest]).float().mean().item()
    assert same == pytest.approx(0.25, abs=0.05)  # neighbours agree by chance only


def blobs(sizes: tuple[int, ...], spread: float = 0.05) -> tuple[torch.Tensor, list[str]]:
    """Users around well separated centres, in mixed order, and the name of the centre of each."""
    generator = torch.Generator().manual_seed(4)
    of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    of = of[torch.randperm(len(of), generator=generator)]
    noise = torch.randn(len(of), DIM, generator=generator)
    return torch.eye(DIM)[of] + spread * noise, [f"g{n}" for n in of.tolist()]


def same_partition(weights: torch.Tensor, groups: list[str]) -> bool:
    experts = weights.argmax(1).tolist()
    return len(set(zip(experts, groups, strict=True))) == len(set(groups)) == len(set(experts))


@pytest.mark.parametrize("seed", range(4))
def test_cluster_finds_the_groups_that_are_there(seed: int) -> None:
    batch, groups = blobs((30, 20, 5))
    gate = bare("cluster", num_experts=3)
    gate.bind(batch, [None] * len(batch), seed=seed)  # it looks at embeddings alone
    weights = gate(batch).weights
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    assert same_partition(weights, groups)
    near = batch + 0.05 * torch.randn(batch.shape, generator=torch.Generator().manual_seed(8))
    assert torch.equal(gate(near).weights, weights)  # newcomers go where their likes are
    centres = torch.stack([batch[weights[:, m] > 0].mean(0) for m in range(3)])
    torch.testing.assert_close(gate.points, centres)


def test_cluster_with_fewer_users_than_experts_leaves_experts_idle() -> None:
    gate = bare("cluster", num_experts=8)
    batch = torch.eye(DIM)[:3].repeat(5, 1)
    gate.bind(batch, [None] * 15, seed=0)
    weights = gate(batch).weights
    assert weights.shape == (15, 8)
    assert same_partition(weights, ["a", "b", "c"] * 5)


def test_oracle_knows_the_group_of_the_seen_and_guesses_that_of_newcomers() -> None:
    batch, names = users(40), [f"g{n % 3}" for n in range(40)]  # groups that the embeddings do not show
    gate = bare("oracle", num_experts=4)
    gate.bind(batch, names, seed=0)
    weights = gate(batch).weights
    assert weights.argmax(1).tolist() == [n % 3 for n in range(40)]
    assert weights[:, 3].sum() == 0
    newcomers = users(200, seed=5)
    nearest = (newcomers[:, None] - batch[None]).norm(dim=2).argmin(1)
    assert torch.equal(gate(newcomers).weights, weights[nearest])


def test_oracle_guesses_the_groups_it_is_not_told() -> None:
    batch, groups = blobs((9, 8, 7))
    gate, told = bare("oracle"), bare("oracle")
    gate.bind(batch, [name if n % 2 else None for n, name in enumerate(groups)], seed=0)
    told.bind(batch, groups, seed=0)
    assert torch.equal(gate(batch).weights, told(batch).weights)


def test_oracle_without_groups_is_told_so() -> None:
    gate = bare("oracle", num_experts=2)
    with pytest.raises(DataError, match="but the data has none; add a column 'group' to it"):
        gate.bind(users(3), [None, None, None], seed=0)
    with pytest.raises(DataError, match=r"each of the 3 groups, but there are 2; set gate\.num_experts to 3"):
        gate.bind(users(3), ["a", "b", "c"], seed=0)


@pytest.mark.parametrize("name", ["cluster", "oracle"])
def test_what_bind_learns_is_saved_with_the_gate(name: str) -> None:
    batch, groups = blobs((9, 8, 7))
    gate, other = bare(name), bare(name)
    gate.bind(batch, groups, seed=0)
    with pytest.raises(RuntimeError, match="bind the gate"):
        other(batch)
    other.load_state_dict(gate.state_dict())
    assert torch.equal(other(batch).weights, gate(batch).weights)
    wider = BY_NAME[name].build(BY_NAME[name].options(), embedding_dim=DIM + 1)
    with pytest.raises(RuntimeError, match="size mismatch"):
        wider.load_state_dict(gate.state_dict())


def test_impossible_options_are_refused() -> None:
    with pytest.raises(OptionsError, match="top_k is 9, but there are only 8 experts"):
        build("topk", top_k=9)
    with pytest.raises(OptionsError, match="top_k is 3"):
        build("noisy-topk", top_k=3, num_experts=2)
    with pytest.raises(OptionsError) as error:
        build("top1", num_experts=0, temperature=0, nosie=1)
    assert len(error.value.faults) == 3
    assert LearnedGateOptions().hidden_dim == 256


def test_gate_report_by_hand() -> None:
    report = gate_report([[0.5, 0.0], [0.0, 0.5], [0.0, 1.0], [0.25, 0.75]])
    np.testing.assert_allclose(report.usage, [0.25, 0.75])
    np.testing.assert_allclose(report.load, [0.25, 0.75])
    assert report.entropy == pytest.approx((0.25 * math.log(4) + 0.75 * math.log(4 / 3)) / math.log(2))
    assert report.finding is None


def test_gate_report_says_in_words_when_a_gate_collapsed() -> None:
    table = np.zeros((40, 4))
    table[:, 2] = np.linspace(0.3, 0.6, 40)
    assert gate_report(table).entropy == 0.0
    assert "100% of 40 users go to expert 3 of 4" in (gate_report(table).finding or "")
    table[:5] = [0.9, 0.0, 0.0, 0.0]
    assert gate_report(table).finding is None
    assert "does not tell users apart" in (gate_report(np.full((3, 4), 0.25)).finding or "")
    assert gate_report(np.zeros((5, 0))).finding is None
    assert gate_report(np.zeros((0, 3))).finding is None
    assert gate_report(torch.tensor([[0.2, 0.1]])).finding is None


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (
            [[1.0, 0.0, 0.0]] * 19 + [[0.0, 1.0, 0.0]],
            "The gate has collapsed: 95% of 20 users go to expert 1 of 3; a load-balancing loss (balance) or fewer "
            "experts may help.",
        ),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "The gate uses 2 of 3 experts for more than 1 % of its weight."),
        ([[0.0, 0.0]], "The gate gives no weight to any expert: only the shared one is at work."),
        ([[0.0, 0.0]] * 3, "The gate gives no weight to any expert: only the shared one is at work."),
        ([[1.0], [1.0]], "The gate uses 1 of 1 experts for more than 1 % of its weight."),
    ],
)
def test_a_gate_in_one_sentence(weights: list[list[float]], said: str) -> None:
    assert gate_report(np.array(weights)).sentence == said
