"""LoRA and DoRA on a frozen base: what they compute, what is trained, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from adapter_models import V, gpt2, guest, ids, llama, loss_of, ours, shake
from torch import nn

from wellfit.errors import RunError, WellfitError
from wellfit.model.adapters.adapt import adapted, attach, detach, freeze, taken_off
from wellfit.model.adapters.digest import digest_of
from wellfit.model.adapters.merge import merged, merged_weights
from wellfit.model.adapters.several import Adapters
from wellfit.model.adapters.targets import targets_of
from wellfit.recipe.schema import Adapter, Quantize

EVERY = {
    "llama": (llama, ("all-linear", "embed_tokens"), ("lm_head", "model.norm")),
    "gpt2": (gpt2, ("all-linear", "wte"), ("ln_f",)),
    "ours": (lambda: ours(bias=True), ("all-linear", "embedding"), ("head", "final_norm")),
}


def made(which: str) -> Any:
    model = EVERY[which][0]()
    return model if which == "ours" else guest(model)


def out(model: Any) -> torch.Tensor:
    model.train(False)
    with torch.no_grad():
        return model.logits(model.hidden(ids()))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("which", EVERY)
def test_a_fresh_adapter_leaves_every_bit(which: str, kind: Any) -> None:
    """Breaks when B of a linear layer, or A of a table, begins with noise; when DoRA's lengths are
    those of the columns."""
    _, targets, whole = EVERY[which]
    before = out(made(which))
    section = Adapter(kind=kind, rank=4, targets=targets, modules_to_save=whole, bias="all")
    model = adapted(made(which), section)
    assert torch.equal(out(model), before)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("which", EVERY)
def test_the_base_stays_bit_for_bit_and_all_that_is_listed_learns(which: str, kind: Any) -> None:
    """Breaks when a frozen tensor stays a parameter, or when something listed gets no gradient."""
    _, targets, whole = EVERY[which]
    base = dict(made(which).named_parameters())
    model = adapted(made(which), Adapter(kind=kind, rank=4, targets=targets, modules_to_save=whole))
    shake(model)
    frozen = {name: tensor.clone() for name, tensor in model.named_buffers()}
    trained = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(trained.values(), lr=0.01)
    model.train(True)
    model.dropout_key(0, 1, 0)
    loss_of(model, ids()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())
    optimizer.step()
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.named_buffers())
    names = {name for name in base if name.rpartition(".")[0].endswith(whole)}
    assert names == {name for name in trained if not name.endswith(("_A", "_B", "magnitude"))}
    detach(model)
    assert not list(model.named_parameters())
    assert torch.equal(out(model), out(made(which)))


@pytest.mark.parametrize("bias", ["none", "adapter", "all"])
def test_biases_that_are_trained(bias: Any) -> None:
    """Breaks when `adapter` takes the biases of all layers."""
    model = adapted(guest(gpt2()), Adapter(targets=("c_attn",), bias=bias))
    found = {n.replace(".base", "") for n, _ in model.named_parameters() if n.endswith("bias")}
    every = {n for n, _ in gpt2().named_parameters() if n.endswith("bias")}
    wanted = {"none": set(), "adapter": {n for n in every if "c_attn" in n}, "all": every}
    assert found == wanted[bias]
    assert set(model.roles()) == {name for name, _ in model.named_parameters()}


class Masked(nn.Module):
    """Has a buffer that is called `bias`, as GPT-2's mask was."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, 8)
        self.inner = nn.Linear(8, V)
        self.register_buffer("bias", torch.zeros(8))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.inner(self.embed(tokens) + self.bias)


def test_a_buffer_that_is_called_bias_is_none() -> None:
    """Breaks when every buffer of that name is trained, and not what was a parameter."""
    model = adapted(guest(Masked()), Adapter(targets=("inner",), bias="all"))
    found = {name for name, _ in model.named_parameters()}
    assert found == {"inner.lora_A", "inner.lora_B", "inner.base.bias"}


def test_targets_are_chosen_by_name_pattern_and_layer() -> None:
    """Breaks when a name matches within a word, or `all-linear` takes the head."""

    def on(**settings: Any) -> set[str]:
        return set(targets_of(ours(), Adapter(**settings)))

    block = "blocks.{}.{}"
    attention = [f"attention.{n}" for n in ("query", "key", "value", "output")]
    linear = [*attention, *(f"feedforward.{n}" for n in ("gate", "up", "down"))]
    assert on() == {block.format(i, n) for i in (0, 1) for n in linear}
    assert on(layers_to_transform=(1,)) == {block.format(1, n) for n in linear}
    assert on(targets=("query",)) == {block.format(i, "attention.query") for i in (0, 1)}
    assert on(targets=(r"blocks\.0\..*(key|down)",)) == {
        block.format(0, "attention.key"), block.format(0, "feedforward.down"),
    }  # fmt: skip
    assert on(targets=("attention.key", "embedding")) == {
        "embedding", *(block.format(i, "attention.key") for i in (0, 1)),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("kept", ["none", "bf16", "int8", "nf4"])
@pytest.mark.parametrize("which", EVERY)
def test_merged_weights_compute_the_same(which: str, kept: Any, kind: Any) -> None:
    """Breaks when the scale is left out, when Conv1D's matrix is merged unturned, or when a base
    in few bits is merged as it was before them."""
    _, targets, whole = EVERY[which]
    section = Adapter(kind=kind, rank=4, rslora=True, targets=targets, modules_to_save=whole)
    model = adapted(made(which), section, Quantize(kind=kept))
    shake(model)
    before = out(model)
    told = merged(model)
    assert (out(model) - before).abs().max() <= 1e-5
    assert ("kept as" in told) == (kept != "none")
    names = set(dict(made(which).named_parameters()))
    # GPT-2's head had been the embedding itself.
    assert set(merged_weights(model)) == names | ({"lm_head.weight"} if which == "gpt2" else set())
    if which != "gpt2":
        plain = made(which)
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                parameter.copy_(merged_weights(model)[name])
        assert torch.equal(out(plain), out(model))


def test_a_tied_table_of_ours_is_not_merged() -> None:
    """Breaks when the refusal goes: the head would change with the embedding."""
    model = adapted(ours(tie_embeddings=True), Adapter(targets=("embedding",)))
    with pytest.raises(RunError, match="does not change the head, which is the same table"):
        merged(model)


def test_dropout_of_ours_belongs_to_the_row() -> None:
    """Breaks when masks are drawn by the row of the pass instead of the row of the batch."""
    model = adapted(ours(), Adapter(dropout=0.5, rank=4))
    shake(model)
    model.train(True)
    tokens = ids(4)
    model.dropout_key(0, 3, 0)
    whole = model.hidden(tokens)
    model.dropout_key(0, 3, 2)
    second = model.hidden(tokens[2:])
    assert (whole[2:] - second).abs().max() < 1e-5
    model.dropout_key(0, 4, 0)
    assert not torch.equal(model.hidden(tokens), whole)
    model.train(False)
    assert not torch.equal(model.hidden(tokens), whole)


def test_recomputed_blocks_drop_the_same() -> None:
    """Breaks when masks depend on how often a layer was called."""
    gradients = []
    for how in ("none", "full"):
        model = adapted(ours(), Adapter(dropout=0.5, rank=4, kind="dora"), Quantize(kind="nf4"))
        shake(model)
        model.recompute = how
        model.train(True)
        model.dropout_key(0, 1, 0)
        loss_of(model, ids()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_a_copied_model_draws_by_its_own_key() -> None:
    """Breaks when layers hold the model's key through a closure: a copy asks the original."""
    model = adapted(ours(), Adapter(dropout=0.5, rank=4))
    shake(model)
    twin = copy.deepcopy(model)
    for one, step in ((model, 1), (twin, 2)):
        one.train(True)
        one.dropout_key(0, step, 0)
    assert not torch.equal(twin.hidden(ids()), model.hidden(ids()))


def test_tied_frozen_tables_stay_one_when_moved() -> None:
    """Breaks when Guest leaves moving to torch: each name would get a table of its own."""
    model = adapted(guest(gpt2()), Adapter(targets=("c_attn",)))
    model.to(torch.float64)
    assert model.module.lm_head.weight is model.module.transformer.wte.weight


def test_gradients_and_hidden_states_of_a_frozen_head_are_as_ever() -> None:
    """Breaks when the loss leaves out the features' gradient with the matrix's."""
    free = ours()
    loss_of(free, ids()).backward()
    model = adapted(ours(), Adapter(targets=("query",), modules_to_save=("final_norm",)))
    for smooth in (0.0, 0.1):
        model.zero_grad()
        hidden = model.hidden(ids())
        losses, extra = model.token_objective(
            hidden, ids().roll(-1, 1), label_smoothing=smooth, z_loss=0.0
        )
        (losses + extra).mean().backward()
        if not smooth:
            found = model.final_norm.weight.grad
            assert torch.allclose(found, free.final_norm.weight.grad, atol=1e-7)
        assert model.head.weight.grad is None


def test_first_values_follow_from_seed_and_name() -> None:
    """Breaks when they are drawn from torch's global generator, or alike for all layers."""

    def first(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed + 100)
        section = Adapter(rank=16, targets=("query", "down", "embedding"))
        model = adapted(ours(width=64), section, seed=seed % 2)
        return {name: p.detach() for name, p in model.named_parameters()}

    one, again, other = first(0), first(2), first(1)
    for name, tensor in one.items():
        assert torch.equal(tensor, again[name])
        zero = not tensor.any()
        assert zero == (name.endswith("_B") != name.startswith("embedding"))
        assert zero or not torch.equal(tensor, other[name])
    query = one["blocks.0.attention.query.lora_A"]
    assert not torch.equal(query, one["blocks.1.attention.query.lora_A"])
    assert 0.9 < query.abs().max() * 8 <= 1  # uniform up to 1/√64
    gaussian = adapted(ours(width=64), Adapter(rank=16, init="gaussian"))
    drawn = gaussian.attached.layers["blocks.0.attention.query"].lora_A
    assert abs(drawn.std().item() * 16 - 1) < 0.1


def test_several_adapters_share_one_base() -> None:
    """Breaks when switching leaves a trained head behind, or weighing forgets a scale."""
    model = adapted(guest(llama()), Adapter(rank=2, targets=("q_proj",)), seed=1)
    bare = out(guest(llama()))
    shake(model)
    shelf = Adapters(model, "first")
    first = out(model)
    shelf.switch("")
    assert torch.equal(out(model), bare)
    second = adapted(
        guest(llama()),
        Adapter(rank=4, alpha=4, targets=("q_proj", "down_proj"), modules_to_save=("lm_head",)),
    )
    shake(second, 0.2)
    wanted = out(second)
    shelf.load("second", taken_off(second))
    with shelf.with_adapter("second"):
        assert torch.equal(out(model), wanted)
        assert shelf.on == "second"
    assert torch.equal(out(model), bare)
    third = adapted(guest(llama()), Adapter(rank=4, alpha=4, targets=("down_proj", "k_proj")))
    shake(third, 0.3)
    shelf.load("third", taken_off(third))
    shelf.weigh("both", {"first": 0.5, "third": -2.0})
    shelf.switch("both")
    sums = {name: layer.lora_B @ layer.lora_A * layer.scale for name, layer in
            model.attached.layers.items()}  # fmt: skip
    parts = {name: shelf.kept[name] for name in ("first", "third")}
    for name, found in sums.items():
        expected = torch.zeros_like(found)
        for one, weight in (("first", 0.5), ("third", -2.0)):
            a, b = (parts[one].tensors.get(f"{name}.lora_{x}") for x in "AB")
            if a is not None and b is not None:
                expected += weight * parts[one].section.scale * b @ a
        assert torch.allclose(found, expected, atol=1e-6)
    shelf.switch("first")
    assert torch.equal(out(model), first)
    assert shelf.names == ["both", "first", "second", "third"]
    shelf.unload("first")
    assert torch.equal(out(model), bare)
    for wrong, act in (
        ("no adapter is called nobody", lambda: shelf.switch("nobody")),
        ("there is an adapter second already", lambda: shelf.load("second", shelf.kept["both"])),
        ("second trains lm_head.weight besides", lambda: shelf.weigh("x", {"second": 1.0})),
    ):
        with pytest.raises(WellfitError, match=wrong):
            act()


def test_an_adapter_for_another_base_is_refused_and_the_first_stays() -> None:
    model = adapted(guest(llama()), Adapter(rank=2, targets=("q_proj",)))
    other = adapted(guest(gpt2()), Adapter(rank=2, targets=("c_attn",)))
    shelf = Adapters(model)
    shelf.load("other", taken_off(other))
    with pytest.raises(RunError, match=r"adapter of 96 × 32 for transformer.h.0.attn.c_attn"):
        shelf.switch("other")
    assert shelf.on == "default"
    assert model.attached is not None


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.gates = nn.Linear(8, 8)
        with torch.no_grad():
            self.gates.weight[0] = 0
        self.head = nn.Linear(8, V, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.gates(self.layer(self.embed(tokens))))


REFUSED = {
    "no layer is called so": (llama, {"targets": ("nothing",)}, {}),
    "is a LlamaMLP, and adapters go on linear layers": (llama, {"targets": ("mlp",)}, {}),
    "leave out all that it means": (
        llama, {"targets": ("q_proj",), "layers_to_transform": (7,)}, {},
    ),
    "no linear layer is left": (llama, {"layers_to_transform": (7,)}, {}),
    "no module is called so": (llama, {"modules_to_save": ("nothing",)}, {}),
    "no such bias in the model": (lambda: None, {"bias": "all"}, {}),
    "the head is part of the loss": (lambda: None, {"targets": ("head",)}, {}),
    "inside a torch.nn.TransformerEncoderLayer": (Encoder, {"targets": ("linear1",)}, {}),
    "1 features of gates have weights that are all 0": (
        Encoder, {"targets": ("gates",), "kind": "dora"}, {},
    ),
    "dropout is for adapters on linear layers": (
        llama, {"targets": ("embed_tokens",), "dropout": 0.1}, {},
    ),
    "init is for adapters on linear layers": (
        llama, {"targets": ("embed_tokens",), "init": "gaussian"}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_would_not_train_as_asked_is_refused(message: str) -> None:
    make, settings, kept = REFUSED[message]
    module = make()
    model = ours() if module is None else guest(module)
    with pytest.raises(RunError, match=message):
        adapted(model, Adapter(**settings), Quantize(**kept))


def test_a_module_trained_in_full_is_refused_where_it_has_few_bits() -> None:
    model = guest(llama())
    freeze(model, Quantize(kind="nf4"))
    with pytest.raises(RunError, match=r"down_proj is kept in fewer bits"):
        attach(model, Adapter(targets=("q_proj",), modules_to_save=("down_proj",)))


def test_a_model_of_its_own_kind_is_refused() -> None:
    with pytest.raises(RunError, match="Linear offers all of LanguageModel itself"):
        adapted(nn.Linear(2, 2), Adapter())


def test_the_digest_sees_names_types_shapes_and_numbers() -> None:
    """Breaks when the shape is left out: the same bytes in another form."""
    one = torch.arange(4.0)
    known = [
        digest_of([("a", one)]), digest_of([("b", one)]), digest_of([("a", one.view(2, 2))]),
        digest_of([("a", one.view(torch.int32))]), digest_of([("a", one.flip(0))]),
    ]  # fmt: skip
    assert len(set(known)) == 5
    assert digest_of([("b", one), ("a", one * 2)]) == digest_of([("a", one * 2), ("b", one)])
    assert digest_of([("a", torch.empty(2, device="meta"))]) == ""
    first = adapted(guest(llama()), Adapter()).base_digest
    assert first == adapted(guest(llama()), Adapter(rank=2), Quantize(kind="int8")).base_digest
    assert len(first) == 64
