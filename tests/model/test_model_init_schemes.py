"""The schemes `xavier`, `he` and `small`: against torch's own functions and the papers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from wellfit.model.feedforward import inner_features
from wellfit.model.init import GAINS, initialise, standard_deviation
from wellfit.model.transformer import Transformer

ENTRIES = 301
WRITERS = (".output.weight", ".down.weight")


def drawn(section: Any, seed: int = 0) -> Transformer:
    model = Transformer(section, ENTRIES)
    initialise(model, seed)
    return model


def matrices(model: Transformer) -> dict[str, torch.Tensor]:
    """Name → the sides of everything that is multiplied; of a mixture's, those of one expert."""
    wanted = ("matrix", "router", "head")
    found = dict(model.named_parameters())
    return {
        name: weight[0] if weight.ndim == 3 else weight
        for name, weight in (
            (name, found[name]) for name, r in model.roles().items() if r in wanted
        )
    }


MIXTURE = {"experts": {"count": 4, "active": 2, "hidden": 40, "shared": 1}}


@pytest.mark.parametrize("changes", [{}, MIXTURE, {"post_norm": True}, {"head_width": 12}])
def test_xavier_is_torchs(make_section: Any, changes: Any) -> None:
    """Deviations are those of `xavier_normal_` for the sides of one matrix.

    Breaks tried: √(2/in); the sides of the tensor of all experts taken as torch takes them.
    """
    model = drawn(make_section(width=256, hidden=320, init="xavier", **changes))
    for name, weight in matrices(model).items():
        # Drawn anew each time, few numbers would miss by chance once in forty runs.
        seeded = torch.Generator().manual_seed(0)
        torchs = nn.init.xavier_normal_(torch.empty(weight.shape), generator=seeded).std().item()
        whole = model.get_parameter(name)
        ours = standard_deviation(model, name, model.roles()[name], whole.shape)
        assert ours == pytest.approx(math.sqrt(2 / sum(weight.shape)), rel=1e-12), name
        assert ours == pytest.approx(torchs, rel=0.06), name
        assert whole.std().item() == pytest.approx(ours, rel=0.06), name


@pytest.mark.parametrize("changes", [{}, MIXTURE])
@pytest.mark.parametrize("activation", GAINS)
def test_he_is_torchs_with_the_gain_of_the_activation(
    make_section: Any, activation: str, changes: Any
) -> None:
    """`kaiming_normal_` with fan_in: gain 1 everywhere but behind the activation.

    Breaks tried: ReLU's √2 for all; the gain given to attention.output; by the outputs.
    """
    model = drawn(make_section(width=128, hidden=320, init="he", activation=activation, **changes))
    for name, weight in matrices(model).items():
        many = torch.empty(1000, weight.shape[1])  # only the inputs count, so few need not miss
        linear = nn.init.kaiming_normal_(many, nonlinearity="linear")
        gain = GAINS[activation] if name.endswith(".down.weight") else 1.0
        whole = model.get_parameter(name)
        ours = standard_deviation(model, name, model.roles()[name], whole.shape)
        assert ours == pytest.approx(gain / math.sqrt(weight.shape[1]), rel=1e-12), name
        assert ours == pytest.approx(gain * linear.std().item(), rel=0.07), name
        assert whole.std().item() == pytest.approx(ours, rel=0.07), name


@pytest.mark.parametrize("activation", GAINS)
def test_a_gain_keeps_the_mean_square(activation: str) -> None:
    """Of normal features, times the gain: mean square 1, measured on the model's own activation.

    Break tried: the gain of swiglu without its gate's factor, that of silu(z)·z.
    """
    generator = torch.Generator().manual_seed(0)
    up, gate = torch.randn(2, 2_000_000, generator=generator, dtype=torch.float64)
    gated = gate if activation in ("swiglu", "geglu") else None
    inner = inner_features(activation, up, gated) * GAINS[activation]
    assert inner.square().mean().item() == pytest.approx(1, abs=0.02)


def test_gain_of_relu_would_be_torchs() -> None:
    """The definition 1/√E[f(z)²] gives √2 for ReLU, which is `calculate_gain('relu')`."""
    z = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    gain = 1 / math.sqrt((z.clamp_min(0).square() * density).sum())
    assert gain == pytest.approx(nn.init.calculate_gain("relu"), rel=1e-6)
    squared = 1 / math.sqrt((z.clamp_min(0).pow(4) * density).sum())
    assert squared == pytest.approx(GAINS["relu2"], rel=1e-6)


@pytest.mark.parametrize("changes", [{}, MIXTURE, {"tie_embeddings": True, "post_norm": True}])
def test_small_is_that_of_the_papers(make_section: Any, changes: Any) -> None:
    """N(0, 2/(5·width)) everywhere, writers N(0, (2/(layers·√width))²).

    Breaks tried: writers without the layers; tables left at 1.
    """
    section = make_section(
        width=128, hidden=320, layers=3, init="small", position="learned", **changes
    )
    model = drawn(section)
    roles = model.roles()
    for name, weight in model.named_parameters():
        if roles[name] == "norm":
            assert weight.eq(1).all(), name
            continue
        expected = 2 / (3 * math.sqrt(128)) if name.endswith(WRITERS) else math.sqrt(2 / (5 * 128))
        assert weight.std().item() == pytest.approx(expected, rel=0.07), name


@pytest.mark.parametrize("init", ["xavier", "he"])
def test_tables_are_looked_up_and_not_multiplied(make_section: Any, init: str) -> None:
    """Untied 1, or 1/√width where it is scaled again; tied 0.02. Break: fans for tables."""

    def table(**changes: Any) -> dict[str, float]:
        model = drawn(make_section(width=128, init=init, position="learned", **changes))
        names = ("embedding.weight", "positions.weight")
        return {name: model.get_parameter(name).std().item() for name in names}

    near = {"rel": 0.05}
    one, tied = pytest.approx(1, **near), pytest.approx(0.02, **near)
    assert table() == {"embedding.weight": one, "positions.weight": one}
    scaled = table(scale_embeddings=True)
    assert scaled["embedding.weight"] == pytest.approx(1 / math.sqrt(128), **near)
    assert table(tie_embeddings=True) == {"embedding.weight": tied, "positions.weight": tied}


@pytest.mark.parametrize(
    ("init", "above"), [("xavier", 128 / (128 + ENTRIES)), ("he", 0.5), ("small", 0.2)]
)
@pytest.mark.parametrize("changes", [{}, {"post_norm": True}, MIXTURE])
def test_first_loss_is_as_far_above_guessing_as_stated(
    make_section: Any, init: str, above: float, changes: Any
) -> None:
    """ln V + s²·width/2 for a head of deviation s. Break: a head drawn with deviation 0.3."""
    generator = torch.Generator().manual_seed(0)
    tokens, labels = (torch.randint(0, ENTRIES, (24, 24), generator=generator) for _ in range(2))
    model = drawn(make_section(width=128, hidden=320, init=init, **changes))
    loss = model.token_loss(model.hidden(tokens), labels).mean().item()
    assert loss == pytest.approx(math.log(ENTRIES) + above, abs=0.1)


def test_he_keeps_features_at_size_one(make_section: Any) -> None:
    """What blocks add has a mean square near 1, whatever the activation. Break: gain 1 for down."""
    tokens = torch.randint(0, ENTRIES, (8, 24), generator=torch.Generator().manual_seed(0))
    for activation in GAINS:
        model = drawn(make_section(width=128, hidden=512, init="he", activation=activation))
        added: list[torch.Tensor] = []
        handle = model.blocks[0].feedforward.register_forward_hook(
            lambda module, given, out, kept=added: kept.append(out)
        )
        with torch.no_grad():
            model.hidden(tokens)
        handle.remove()
        assert added[0].square().mean().item() == pytest.approx(1, abs=0.25), activation
