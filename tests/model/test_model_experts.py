"""The mixture of experts: equal to Mixtral, no token dropped, the same bits twice."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from model_references import difference, hub_name, hub_weights, llama_config

from wellfit.generation.generate import generate
from wellfit.model.experts import (
    MixtureOfExperts,
    _take,
    grouped_product,
    load_balance,
    sort_by_expert,
)
from wellfit.model.init import initialise
from wellfit.recipe.schema import Sampling

EXPERTS = {"count": 4, "active": 2, "hidden": 40}


def tokens(rows: int = 3, length: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


def mixtral(make_section: Any, make_model: Any, **changes: Any) -> tuple[Any, Any]:
    """The same random weights in our model and in `transformers`' Mixtral."""
    transformers = pytest.importorskip("transformers")
    values: dict[str, Any] = {"qk_norm": False, "experts": EXPERTS, **changes}
    section = make_section(**values)
    model = make_model(section)
    config = llama_config(
        transformers.MixtralConfig,
        section,
        61,
        intermediate_size=section.expert_hidden,
        num_local_experts=section.experts.count,
        num_experts_per_tok=section.experts.active,
        router_aux_loss_coef=section.experts.balance_loss,
        output_router_logits=True,
    )
    reference = transformers.MixtralForCausalLM(config)
    reference.load_state_dict(hub_weights(model, "mixtral"))
    return model, reference


@pytest.mark.parametrize("active", [1, 2, 4])
def test_logits_equal_those_of_mixtral(make_section: Any, make_model: Any, active: int) -> None:
    """Break: do not scale the weights of a token's experts to sum 1; or give `order` where `back`
    belongs."""
    experts = {**EXPERTS, "active": active}
    model, reference = mixtral(make_section, make_model, experts=experts)
    assert difference(model, reference, 24) <= 1e-5


def test_gradients_and_balance_equal_those_of_mixtral(make_section: Any, make_model: Any) -> None:
    """Of cross-entropy plus 0.7 times the balance, in one layer, where Mixtral's is ours.

    Breaks: gather gradients by `order` instead of `back`; detach the router's shares in the
    balance; normalise the balance by E·k.
    """
    experts = {**EXPERTS, "balance_loss": 0.7, "router_z_loss": 0.0}
    model, reference = mixtral(make_section, make_model, layers=1, experts=experts)
    row = tokens()
    labels = row.roll(-1, 1)
    loss = model.token_loss(model.hidden(row), labels).mean()
    auxiliary = model.auxiliary_loss()
    (loss + auxiliary).backward()
    out = reference(row)
    assert auxiliary.item() == pytest.approx(0.7 * out.aux_loss.item(), rel=1e-5)
    cross_entropy = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
    (cross_entropy + 0.7 * out.aux_loss).backward()
    expected = {name: weight.grad for name, weight in reference.named_parameters()}
    new = "model.layers.0.mlp."
    gate, up = expected.pop(f"{new}experts.gate_up_proj").chunk(2, dim=1)
    expected |= {
        "gate": gate,
        "up": up,
        "down": expected.pop(f"{new}experts.down_proj"),
        "router": expected.pop(f"{new}gate.weight"),
    }
    for name, weight in model.named_parameters():
        inside = ".feedforward." in name
        other = expected[name.split(".")[-2] if inside else hub_name(model, "mixtral", name)]
        torch.testing.assert_close(weight.grad, other, atol=1e-5, rtol=1e-4, msg=name)


def test_auxiliary_loss_is_the_mean_over_layers(make_section: Any, make_model: Any) -> None:
    """Each layer's balance as `transformers` computes it from that layer's logits, and the mean
    squared log-sum of the logits (arXiv 2202.08906, equation 5).

    Layers are not pooled first, as Mixtral's own code does: there, expert 1 overfull in one layer
    and empty in the next would count as balanced. Break: sum over the layers; or leave out the
    square.
    """
    modeling = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    experts = {**EXPERTS, "balance_loss": 0.3, "router_z_loss": 0.05}
    model, reference = mixtral(make_section, make_model, layers=3, experts=experts)
    model.hidden(tokens())
    logits = reference(tokens()).router_logits
    balances = [modeling.load_balancing_loss_func((one,), 4, 2).item() for one in logits]
    squares = [one.exp().sum(-1).log().square().mean().item() for one in logits]
    expected = sum(0.3 * b + 0.05 * z for b, z in zip(balances, squares, strict=True)) / 3
    assert model.auxiliary_loss().item() == pytest.approx(expected, rel=1e-5)
    assert max(balances) - min(balances) > 0.01


@pytest.mark.parametrize("activation", ["swiglu", "geglu", "gelu", "relu2"])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_mixture_is_the_weighted_sum_of_its_experts(
    make_section: Any, make_model: Any, activation: str, normalise: bool
) -> None:
    """Against each token's experts one by one, with shared ones. Break: leave the weights out of
    the sum; or weight the shared experts too."""
    experts = {**EXPERTS, "count": 5, "active": 3, "normalise": normalise, "shared": 2}
    section = make_section(experts=experts, activation=activation, layers=1)
    mixture = make_model(section).blocks[0].feedforward
    assert isinstance(mixture, MixtureOfExperts)
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(2))
    acts: dict[str, Any] = {
        "swiglu": torch.nn.functional.silu,
        "geglu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "gelu": torch.nn.functional.gelu,
        "relu2": lambda x: x.relu().square(),
    }

    def through(up: Any, gate: Any, down: Any, token: torch.Tensor) -> torch.Tensor:
        act = acts[activation]
        return down @ (act(up @ token) if gate is None else act(gate @ token) * (up @ token))

    shares = torch.softmax(x @ mixture.router.weight.T, dim=-1)
    expected = torch.empty_like(x)
    gated = activation in ("swiglu", "geglu")
    for row in range(2):
        for at in range(7):
            token = x[row, at]
            best = sorted(range(5), key=lambda e: -shares[row, at, e].item())[:3]
            weights = shares[row, at, best]
            weights = weights / weights.sum() if normalise else weights
            parts = [
                through(
                    mixture.up.weight[e],
                    mixture.gate.weight[e] if gated else None,
                    mixture.down.weight[e],
                    token,
                )
                for e in best
            ]
            shared = mixture.shared
            common = through(
                shared.up.weight, shared.gate.weight if gated else None, shared.down.weight, token
            )
            assert shared.up.weight.shape == (2 * 40, 32)
            expected[row, at] = common + sum(w * p for w, p in zip(weights, parts, strict=True))
    torch.testing.assert_close(mixture(x), expected, atol=1e-5, rtol=1e-4)


def test_every_token_goes_through_exactly_k_experts(make_section: Any, make_model: Any) -> None:
    """However uneven the router is: one that sends every token to the same experts drops none.

    Break: cut each expert's tokens at a capacity.
    """
    model = make_model(make_section(experts={**EXPERTS, "count": 6, "active": 2}))
    model.hidden(tokens(3))
    load = model.expert_load()
    assert load.shape == (2, 6)
    assert load.sum(dim=1).tolist() == [3 * 24 * 2] * 2
    assert not torch.equal(load[0], load[1])
    with torch.no_grad():
        for block in model.blocks:
            block.feedforward.router.weight.zero_()
    model.hidden(tokens(2))  # equal probabilities: the same two experts win every time
    assert [sorted(row) for row in model.expert_load().tolist()] == [[0, 0, 0, 0, 48, 48]] * 2
    assert make_model(make_section()).expert_load().shape == (0, 0)


def test_a_row_alone_is_as_in_a_batch(make_section: Any, make_model: Any) -> None:
    """No capacity, so other rows change nothing. Break: drop the tokens that come last."""
    model = make_model(make_section(experts=EXPERTS))
    batch = tokens(4)
    together = model.logits(model.hidden(batch))
    alone = torch.cat([model.logits(model.hidden(row[None])) for row in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_same_bits_twice(make_section: Any, make_model: Any) -> None:
    """Logits and gradients. Break: sort pairs by a random order within an expert."""

    def run() -> list[torch.Tensor]:
        model = make_model(make_section(experts=EXPERTS))
        losses = model.token_loss(model.hidden(tokens()), tokens().roll(-1, 1))
        (losses.mean() + model.auxiliary_loss()).backward()
        return [losses, *(weight.grad for weight in model.parameters())]

    first, second = run(), run()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4])
def test_auxiliary_losses_under_accumulation(
    make_section: Any, make_model: Any, micro_batch: int
) -> None:
    """Each pass's router loss counts by its share of the batch's labels.

    It is a mean over tokens, so that rows with equally many labels give the same gradient however
    they are cut. Break: add the auxiliary loss of every pass whole.
    """
    from wellfit.data.batches import Batch
    from wellfit.training.step import Objective, accumulate

    def gradients(rows_a_pass: int) -> list[torch.Tensor]:
        losses = {"balance_loss": 0.0, "router_z_loss": 1.0}
        model = make_model(make_section(experts={**EXPERTS, **losses}))
        row = tokens(4).numpy()
        places = torch.arange(24).expand(4, -1).numpy()
        batch = Batch(row, tokens(4, seed=2).numpy(), places, 0 * places, 0 * places)
        accumulate(
            model,
            batch,
            Objective(),
            micro_batch=rows_a_pass,
            device=torch.device("cpu"),
            key=(0, 1),
        )
        return [weight.grad for weight in model.parameters()]

    torch.testing.assert_close(gradients(micro_batch), gradients(4), atol=1e-6, rtol=1e-4)


def test_generation_through_the_cache(make_section: Any, make_model: Any) -> None:
    """Break: route by a chunk's mean instead of each token."""
    model = make_model(make_section(experts=EXPERTS))
    prompt = [3, 5, 8]
    drawn = list(generate(model, prompt, Sampling(tokens=15, temperature=0.0)))
    ids = [*prompt, *drawn]
    with torch.no_grad():
        logits = model.logits(model.hidden(torch.tensor([ids[:-1]])))[0, 2:]
    chosen = logits.gather(1, torch.tensor(drawn)[:, None])[:, 0]
    assert (logits.max(dim=1).values - chosen).max().item() <= 1e-4


def test_permutations_have_the_gradient_of_indexing(make_section: Any) -> None:
    """In float64, with tokens that share experts, there and back.

    Break: sum the copies of a token before they are put back in order.
    """
    mixture = MixtureOfExperts(make_section(width=8, hidden=8, experts={**EXPERTS, "hidden": 8}))
    generator = torch.Generator().manual_seed(5)
    for weight in mixture.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(6, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    chosen = torch.tensor([[0, 1], [1, 3], [1, 0], [2, 1], [3, 0], [1, 2]])
    order, back, counts = sort_by_expert(chosen, 4)

    def scattered(x: torch.Tensor) -> torch.Tensor:
        return _take(mixture.up(_take(x, order, back, 2), counts), back, order, 1)

    assert torch.autograd.gradcheck(scattered, (x,))
    expected = torch.stack(
        [mixture.up.weight[e] @ x[n] for n in range(6) for e in chosen[n].tolist()]
    )
    torch.testing.assert_close(scattered(x), expected)


def test_grouped_product_leaves_empty_experts_without_gradient() -> None:
    """Break: shift the slices by one where an expert has no rows."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(6, 5, generator=generator)
    weight = torch.randn(4, 3, 5, generator=generator, requires_grad=True)
    out = grouped_product(x, weight, torch.tensor([1, 0, 3, 2]))
    expected = torch.cat([x[:1] @ weight[0].T, x[1:4] @ weight[2].T, x[4:] @ weight[3].T])
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert weight.grad is not None
    assert weight.grad[1].eq(0).all()
    assert weight.grad[2].ne(0).all()


def test_balance_of_even_and_of_collapsed_routers() -> None:
    """k = 2 where tokens are spread evenly, E/k·k = E where two of four take all: 4."""
    shares = torch.full((8, 4), 0.25)
    assert load_balance(shares, torch.tensor([4, 4, 4, 4])).item() == pytest.approx(2)
    collapsed = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).expand(8, 4)
    assert load_balance(collapsed, torch.tensor([8, 8, 0, 0])).item() == pytest.approx(4)


def test_bf16_arithmetic_keeps_the_router_exact(make_section: Any, make_model: Any) -> None:
    """With the same features, the same experts as in float32. Break: route in bf16."""
    mixture = make_model(make_section(experts={**EXPERTS, "count": 16})).blocks[0].feedforward
    x = torch.randn(400, 32, generator=torch.Generator().manual_seed(7)).bfloat16()
    exact = mixture(x.float())
    load = mixture.load
    rounded = mixture(x)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(mixture.load, load)
    assert (rounded.float() - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_a_model_can_be_copied_after_a_step(make_section: Any, make_model: Any) -> None:
    """As averaging of weights does. Break: keep the balance's graph in what is copied."""
    model = make_model(make_section(experts=EXPERTS))
    model.token_loss(model.hidden(tokens()), tokens()).mean().backward()
    twin = copy.deepcopy(model)
    assert twin.auxiliary_loss().item() == model.auxiliary_loss().item()
    assert model.auxiliary_loss().requires_grad


@pytest.mark.parametrize("init", ["scaled_normal", "zero_projections"])
def test_experts_start_as_a_feed_forward_would(make_section: Any, init: str) -> None:
    """Deviations by role; what writes into the stream is small or zero.

    Break: forget the shared experts' `down` among what writes.
    """
    from wellfit.model.transformer import Transformer

    changes = {"width": 128, "hidden": 128, "init": init}
    section = make_section(**changes, experts={**EXPERTS, "hidden": 96, "shared": 1})
    model = Transformer(section, 61)
    initialise(model, 0)
    weights = dict(model.named_parameters())
    inside = 0.02 if init == "scaled_normal" else 0.85 / 128**0.5
    written = 0.01 if init == "scaled_normal" else 0.0
    for name, deviation in {
        "router": inside, "gate": inside, "up": inside, "down": written,
        "shared.up": inside, "shared.down": written,
    }.items():  # fmt: skip
        found = weights[f"blocks.1.feedforward.{name}.weight"].std().item()
        assert found == pytest.approx(deviation, rel=0.1), name
    assert model.roles()["blocks.0.feedforward.router.weight"] == "router"
    assert model.roles()["blocks.0.feedforward.up.weight"] == "matrix"
    one, other = weights["blocks.0.feedforward.up.weight"][:2]
    assert not torch.equal(one, other)
