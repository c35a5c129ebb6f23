"""torch.compile: when, why, once a shape, and never the end of a run."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model
from wellfit.training import compiling

HERE = {"device": "cpu", "planned_steps": 10_000, "micro_batches": 2, "compiler": True}


@pytest.mark.parametrize(
    ("wanted", "circumstances", "name", "why"),
    [
        ("off", {}, "off", "the recipe asks for it"),
        ("on", {"planned_steps": 1}, "on", "the recipe asks for it"),
        ("auto", {}, "on", "from about 4,000 passes through the blocks, and 20,000 are planned"),
        ("auto", {"planned_steps": 1_999}, "off", "and 3,998 are planned"),
        ("auto", {"device": "cuda", "planned_steps": 500}, "on", "from about 1,000 passes"),
        ("auto", {"planned_steps": None}, "off", "found by timing them as they are"),
        ("auto", {"compiler": False}, "off", "torch.compile needs a C++ compiler"),
        ("auto", {"compiler": False, "device": "cuda"}, "off", "torch.compile needs Triton"),
        ("on", {"compiler": False}, "off", "the recipe asks for it, but torch.compile needs"),
        ("on", {"dropout": 0.1}, "off", "but dropout draws from generators of its own"),
        ("on", {"checkpointing": "selective"}, "off", "but selective checkpointing looks at"),
        ("on", {"checkpointing": "full"}, "on", "the recipe asks for it"),
        ("on", {"device": "mps"}, "off", "but compiling has not been tried on mps"),
        ("on", {"offers": False}, "off", "but the model does not offer its blocks"),
    ],
)
def test_the_choice_and_its_reason(wanted, circumstances, name, why):
    """Break: an obstacle that only `auto` heeds."""
    choice = compiling.decide(wanted, **{**HERE, **circumstances})
    assert choice.name == name and why in choice.why


def model_of(layers=3, **more):
    shape = Model(context=16, layers=layers, width=16, heads=2, kv_heads=1, hidden=24, **more)
    model = Transformer(shape, 31)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            parameter.copy_(drawn * 0.3)
    return model


def loss_of(model, rows=2):
    tokens = torch.randint(0, 31, (rows, 16), generator=torch.Generator().manual_seed(rows))
    segments = (torch.arange(16) > 6).long().expand(rows, -1)
    model.dropout_key(0, 1, 0)
    return model.token_loss(model.hidden(tokens, None, segments), tokens.roll(-1, 1)).mean()


def gradient(model):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(model), model.parameters())])


@pytest.fixture(autouse=True)
def nothing_stays_compiled():
    yield
    torch.compiler.reset()


def test_a_shape_is_compiled_once_for_all_blocks_and_steps():
    """Three blocks, a smaller last micro-batch, many steps: two graphs, without breaks in them.

    Break: `out=` in the rotation.
    """
    counter = CompileCounter()
    model = model_of()
    assert compiling.offers_blocks(model)
    choice = compiling.compile_blocks(
        model, lambda: [loss_of(model, rows).backward() for rows in (2, 1)], backend=counter
    )
    assert choice.name == "on"
    for _ in range(3):
        for rows in (2, 2, 1):
            loss_of(model, rows).backward()
    assert counter.frame_count == 2


def test_evaluation_and_generation_stay_as_they_are():
    """Break: taking the compiled call whatever the mode."""
    counter = CompileCounter()
    model = model_of()
    compiling.compile_blocks(model, lambda: None, backend=counter)
    model.eval()
    with torch.no_grad():
        loss_of(model, 3)
        cache = model.new_cache()
        for token in range(4):
            model.hidden(torch.tensor([[token]]), cache=cache)
    assert counter.frame_count == 0


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("activation", ["swiglu", "relu2"])
def test_compiled_gradients_are_the_models(activation, checkpointing):
    """Through the graphs that the compiler gets. Break: dropping a sine in the plain rotation."""
    model = model_of(layers=2, activation=activation)
    exact = gradient(model)
    model.recompute = checkpointing
    choice = compiling.compile_blocks(model, lambda: gradient(model), backend="aot_eager")
    assert choice.name == "on", choice.why
    torch.testing.assert_close(gradient(model), exact, atol=1e-6, rtol=1e-4)


def test_a_compiler_that_fails_is_told_and_the_blocks_run_as_they_are():
    """Break: raising what torch raises, or leaving the broken call in place."""

    def broken(graph, inputs):
        raise RuntimeError("no such header: omp.h\nand more")

    model = model_of()
    exact = gradient(model)
    choice = compiling.compile_blocks(model, lambda: loss_of(model), backend=broken)
    assert choice.name == "off"
    assert choice.why.startswith("compilation failed, so the blocks run as they are: ")
    assert "no such header: omp.h" in choice.why and "\n" not in choice.why
    assert torch.equal(gradient(model), exact)


@pytest.mark.slow
def test_the_real_compiler_gives_the_same_gradients():
    if not compiling.compiler_found("cpu"):
        pytest.skip("no C++ compiler")
    model = model_of(layers=2)
    exact = gradient(model)
    choice = compiling.compile_blocks(model, lambda: gradient(model))
    assert choice.name == "on", choice.why
    torch.testing.assert_close(gradient(model), exact, atol=1e-5, rtol=1e-3)
