"""A policy for everybody: users of different taste get different voices, newcomers by the gate alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import Tensor

from copl.align.policies import mixture_training
from copl.align.policies.mixture import MixturePolicy
from copl.align.policies.mixture_training import MixtureTraining, PolicyFacts
from copl.align.policies.options import MixtureDpoOptions
from copl.align.policies.rows import PreferenceRow
from copl.align.policies.single import speaking
from copl.align.policies.writer import TokenPair, Writer
from copl.align.sampling import SamplingOptions
from copl.errors import BackboneError, CoplError, RunError

PROMPTS = ("How do I boil an egg?", "Tea?", "Why?")
LONG, SHORT = "Place the egg in cold water and wait.", "No."
USERS = {f"user {n}": torch.tensor([1.0 if n % 2 else -1.0, 0.1 * n]) for n in range(6)}


def rows_of(name: str) -> list[PreferenceRow]:
    chosen, rejected = (LONG, SHORT) if int(name[-1]) % 2 else (SHORT, LONG)
    return [PreferenceRow(name, prompt, chosen, rejected, 1.0, {}) for prompt in PROMPTS]


ROWS = [row for name in USERS for row in rows_of(name)]


@pytest.fixture(scope="module")
def options(tiny_model: Path) -> MixtureDpoOptions:
    return MixtureDpoOptions(
        model=str(tiny_model),
        gate="softmax",
        num_experts=2,
        shared_rank=2,
        expert_rank=2,
        max_steps=40,
        epochs=1000,
        batch_size=6,
        learning_rate=3e-2,
        beta=0.5,
        likelihood=0.0,
    )


def started(options: MixtureDpoOptions, seed: int = 0) -> MixturePolicy:
    return MixturePolicy.start(Writer.open(options.model), torch.stack([*USERS.values()]), options, seed=seed)


def trained(
    options: MixtureDpoOptions, scratch: Path | None = None, seed: int = 0
) -> tuple[MixturePolicy, PolicyFacts]:
    policy = started(options, seed)
    return policy, MixtureTraining(policy, ROWS, USERS, seed=seed, scratch=scratch).run()


@pytest.fixture(scope="module")
def everybody(options: MixtureDpoOptions) -> tuple[MixturePolicy, PolicyFacts]:
    return trained(options)


def pairs(writer: Writer) -> list[TokenPair]:
    return [writer.pair(prompt, text, 64) for prompt in PROMPTS for text in (LONG, SHORT)]


@torch.no_grad()
def taste(policy: MixturePolicy, user: Tensor) -> float:
    """By how much more likely than to the language model the long answers are, against the short ones."""
    asked = pairs(policy.writer)
    weights = policy.weights(user.expand(len(asked), -1))
    gain = (policy.likelihoods(asked, weights) - policy.reference(asked)).view(-1, 2)
    return float((gain[:, 0] - gain[:, 1]).mean())


def test_fresh_adapters_say_what_the_language_model_says(options: MixtureDpoOptions) -> None:
    policy = started(options)
    assert all(taste(policy, user) == pytest.approx(0.0, abs=1e-4) for user in USERS.values())
    loss = MixtureTraining(policy, ROWS, USERS, seed=0)._loss([0, 5])
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("likelihood", [0.0, 0.7])
def test_the_loss_is_that_of_direct_preference_optimisation_and_of_the_chosen_texts(
    everybody: tuple[MixturePolicy, PolicyFacts], likelihood: float
) -> None:
    policy, _ = everybody
    plain = policy.options
    places = [0, 3, 4]
    expected, chosen, num_tokens = [], 0.0, 0
    try:
        policy.options = evolve(plain, likelihood=likelihood)
        training = MixtureTraining(policy, ROWS, USERS, seed=0)
        for place in places:
            row = training._rows[place]
            weights = policy.weights(USERS[row.user_id].unsqueeze(0))
            read = {}
            for text in (row.chosen, row.rejected):
                asked = [policy.writer.pair(row.prompt, text, policy.options.max_length)]
                read[text] = float(policy.likelihoods(asked, weights).detach()), float(policy.reference(asked))
            gains = [own - reference for own, reference in read.values()]
            expected.append(math.log1p(math.exp(-policy.options.beta * (gains[0] - gains[1]))))
            chosen += read[row.chosen][0]
            pair = policy.writer.pair(row.prompt, row.chosen, policy.options.max_length)
            num_tokens += len(pair.ids) - pair.start
        loss = float(training._loss(places).detach())
    finally:
        policy.options = plain
    assert loss == pytest.approx(sum(expected) / 3 - likelihood * chosen / num_tokens, abs=1e-4)


def test_with_the_likelihood_of_what_is_chosen_a_policy_stays_likelier_to_write_it(
    everybody: tuple[MixturePolicy, PolicyFacts], options: MixtureDpoOptions
) -> None:
    kept, _ = trained(evolve(options, likelihood=1.0))
    for name, user in USERS.items():
        with torch.no_grad():
            wanted = [kept.writer.pair(row.prompt, row.chosen, 64) for row in rows_of(name)]
            plain, keeping = (
                policy.likelihoods(wanted, policy.weights(user.expand(len(wanted), -1))).mean()
                for policy in (everybody[0], kept)
            )
        assert keeping > plain
        assert (taste(kept, user) > 1.0) if int(name[-1]) % 2 else (taste(kept, user) < -1.0)


def test_users_get_voices_of_their_own_and_newcomers_by_their_embedding(
    everybody: tuple[MixturePolicy, PolicyFacts],
) -> None:
    policy, facts = everybody
    assert (facts.num_rows, facts.num_users, facts.steps, facts.held_out) == (17, 6, 40, 1)
    assert facts.last_loss < 0.5 * facts.first_loss
    tastes = {name: taste(policy, user) for name, user in USERS.items()}
    assert all((value > 1.0) if int(name[-1]) % 2 else (value < -1.0) for name, value in tastes.items())
    assert taste(policy, torch.tensor([0.9, 0.7])) > 1.0
    assert taste(policy, torch.tensor([-0.9, 0.7])) < -1.0


def test_by_default_each_cluster_of_users_has_a_voice_and_newcomers_have_that_of_the_nearest(
    options: MixtureDpoOptions,
) -> None:
    policy, _ = trained(evolve(options, gate=MixtureDpoOptions().gate))
    tastes = {name: taste(policy, user) for name, user in USERS.items()}
    assert all((value > 1.0) if int(name[-1]) % 2 else (value < -1.0) for name, value in tastes.items())
    assert len({policy.voice(user) for user in USERS.values()}) == 2
    assert policy.voice(torch.tensor([0.9, 0.7])) == policy.voice(USERS["user 1"])


def test_one_shared_policy_cannot_tell_users_apart(options: MixtureDpoOptions) -> None:
    policy, _ = trained(evolve(options, num_experts=0, max_steps=5))
    first, second = (taste(policy, USERS[name]) for name in ("user 0", "user 1"))
    assert first == second


def test_a_saved_policy_says_the_same(
    everybody: tuple[MixturePolicy, PolicyFacts], tmp_path: Path, tiny_model: Path
) -> None:
    policy, _ = everybody
    policy.save(tmp_path / "policy", {"steps": 40})
    again = MixturePolicy.load(tmp_path / "policy")
    for user in USERS.values():
        assert taste(again, user) == taste(policy, user)
    with policy.speaking(USERS["user 1"]) as one, again.speaking(USERS["user 1"]) as other:
        how = SamplingOptions(temperature=1.0, top_p=1.0, max_tokens=8)
        texts = [
            speaker.write(speaker.prompt_ids("Tea?", 100), [np.random.default_rng(3)], how) for speaker in (one, other)
        ]
        assert texts[0] == texts[1]
    (tmp_path / "policy" / "gate.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match=r"gate\.safetensors"):
        MixturePolicy.load(tmp_path / "policy")
    with pytest.raises(RunError, match=r"policy\.json"):
        MixturePolicy.load(tmp_path)


def test_one_users_voice_is_a_plain_lora(
    everybody: tuple[MixturePolicy, PolicyFacts], tmp_path: Path, tiny_model: Path
) -> None:
    policy, _ = everybody
    for name in ("user 0", "user 1"):
        assert policy.export(USERS[name], tmp_path / name) == 6
        plain = Writer.open(tiny_model)
        asked = pairs(plain)
        with torch.no_grad(), speaking(plain, tmp_path / name) as speaker:
            alone = speaker.likelihoods(asked)
            weights = policy.weights(USERS[name].expand(len(asked), -1))
            torch.testing.assert_close(alone, policy.likelihoods(asked, weights), atol=1e-3, rtol=1e-4)


def test_the_same_seed_and_a_kill_give_the_same_policy(
    options: MixtureDpoOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = evolve(options, max_steps=6, save_every=2)
    plain, facts = trained(options, seed=3)
    state = torch.get_rng_state()
    again, _ = trained(options, seed=3)
    assert torch.equal(torch.get_rng_state(), state)

    class KilledError(Exception):
        pass

    rates = mixture_training._rate

    def dying(step: int, count: int) -> float:
        if step == 5:
            raise KilledError
        return rates(step, count)

    with monkeypatch.context() as patch:
        patch.setattr(mixture_training, "_rate", dying)
        with pytest.raises(KilledError):
            trained(options, tmp_path / "scratch", seed=3)
    policy = started(options, 3)
    training = MixtureTraining(policy, ROWS, USERS, seed=3, scratch=tmp_path / "scratch")
    assert training.run() == facts
    training.clear()
    assert not (tmp_path / "scratch").exists()
    for name, tensor in plain.mixture.tensors().items():
        assert torch.equal(tensor, again.mixture.tensors()[name])
        assert torch.equal(tensor, policy.mixture.tensors()[name])


def test_what_cannot_be_trained_or_written_says_so(options: MixtureDpoOptions, tmp_path: Path) -> None:
    with pytest.raises(CoplError, match="no rows to train a policy on"):
        MixtureTraining(started(options), [], USERS, seed=0)
    with pytest.raises(BackboneError, match="no model directory"):
        Writer.open(tmp_path / "none")
