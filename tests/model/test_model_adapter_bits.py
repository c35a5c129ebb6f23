"""Matrices in 4, 8 and 16 bits beside the published code book, bitsandbytes, and their bounds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from adapter_models import guest, ids, llama, loss_of, ours, shake

from wellfit.model.adapters import eight_bits, frozen, nf4
from wellfit.model.adapters.adapt import adapted
from wellfit.model.adapters.frozen import FrozenLinear, kept_bytes
from wellfit.recipe.schema import Adapter, Quantize


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)  # bitsandbytes tells which kernels it does not have
    yield
    logging.disable(logging.NOTSET)


def numbers(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 0.02


def test_the_code_book_is_that_of_normal_quantiles() -> None:
    """Appendix E of arXiv 2305.14314, made as its authors make it: quantiles from 0.9677083 on,
    eight positive and seven negative beside zero. Breaks when a number is swapped or mistyped."""
    offset = 0.9677083

    def quantiles(count: int) -> list[float]:
        shares = torch.linspace(offset, 0.5, count, dtype=torch.float64)[:-1]
        return torch.special.ndtri(shares).tolist()

    found = sorted([*quantiles(9), 0.0, *(-value for value in quantiles(8))])
    expected = torch.tensor(found) / max(found)
    assert torch.allclose(expected, torch.tensor(nf4.CODE_BOOK), atol=2e-6)


@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("shape", [(64, 96), (37, 53), (8, 16)])
def test_nf4_is_bitsandbytes_bit_for_bit(shape: tuple[int, int], block: int) -> None:
    """Codes, their order in a byte, scales and numbers. Breaks when the halves of a byte are
    swapped, or when a short last block takes another's scale."""
    functional = pytest.importorskip("bitsandbytes.functional")
    matrix = numbers(shape[0] * shape[1]).view(shape)
    packed, state = functional.quantize_4bit(matrix, blocksize=block, quant_type="nf4")
    codes, scales = nf4.quantise(matrix.reshape(-1), block)
    assert torch.equal(codes, packed.view(-1))
    assert torch.equal(scales, state.absmax)
    own = nf4.restore(codes, scales, block, matrix.numel()).view(shape)
    # Its kernel for CPUs takes rows that are no whole blocks for others; flat it is right.
    flat = torch.ops.bitsandbytes.dequantize_4bit(
        packed, state.absmax, block, "nf4", (matrix.numel(),), torch.float32
    )
    assert torch.equal(own.view(-1), flat.view(-1))
    # A number is off by at most half of the widest gap of the code book.
    gap = max(b - a for a, b in zip(nf4.CODE_BOOK, nf4.CODE_BOOK[1:], strict=False)) / 2
    allowed = eight_bits.in_blocks(matrix.reshape(-1), block).abs().amax(1) * gap * (1 + 1e-6)
    errors = eight_bits.in_blocks((own - matrix).reshape(-1), block).abs().amax(1)
    assert (errors <= allowed).all()


def test_double_quantization_is_as_near_as_bitsandbytes() -> None:
    """Its search on CPUs is now and then one code off the nearest; ours never is. Breaks when the
    mean is not taken off, or blocks of scales are not 256."""
    functional = pytest.importorskip("bitsandbytes.functional")
    matrix = numbers(300 * 256)
    _, state = functional.quantize_4bit(
        matrix, blocksize=64, quant_type="nf4", compress_statistics=True
    )
    _, scales = nf4.quantise(matrix, 64)
    codes, outer, mean = eight_bits.quantise_scales(scales)
    assert torch.equal(outer, state.state2.absmax)
    assert torch.equal(mean, state.offset)
    assert (codes.int() - state.absmax.int()).abs().max() <= 1
    assert (codes != state.absmax).float().mean() < 0.01
    theirs = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    ours = eight_bits.restore_scales(codes, outer, mean)
    assert ((ours - scales).abs() <= (theirs - scales).abs() + 1e-6 * scales).all()
    assert ((ours - scales).abs() / scales).max() < 0.01


def test_a_row_in_eight_bits_is_off_by_half_a_step() -> None:
    """Breaks when one scale serves the whole matrix. A row of zeros stays zero."""
    matrix = numbers(40 * 60).view(40, 60) * torch.logspace(-3, 3, 40)[:, None]
    matrix[7] = 0
    codes, scales = eight_bits.quantise_rows(matrix)
    found = eight_bits.restore_rows(codes, scales, torch.float32)
    half = matrix.abs().amax(1, keepdim=True) / 127 / 2
    assert ((found - matrix).abs() <= half * (1 + 1e-5)).all()
    assert torch.equal(found[7], torch.zeros(60))


@pytest.mark.parametrize(
    ("section", "bits"),
    [
        (Quantize(kind="bf16"), 16),
        (Quantize(kind="int8"), 8 + 32 / 512),
        (Quantize(kind="nf4", double_quantization=False), 4 + 32 / 64),
        (Quantize(kind="nf4"), 4 + 8 / 64 + 32 / (64 * 256)),
        (Quantize(kind="nf4", block_size=256), 4 + 8 / 256 + 32 / (256 * 256)),
    ],
)
def test_the_memory_of_a_matrix_really_drops(section: Quantize, bits: float) -> None:
    """Bytes of the tensors that stay, counted; the last ones are the mean of the scales. Breaks
    when the layer keeps its matrix beside the codes, or codes are not packed."""
    from wellfit.model.linear import Linear

    layer = Linear(512, 512, bias=False)
    with torch.no_grad():
        layer.weight.copy_(numbers(512 * 512).view(512, 512))
    layer.register_buffer("weight", layer._parameters.pop("weight").detach())
    made = frozen.frozen_linear(layer, section)
    assert kept_bytes(made) == pytest.approx(512 * 512 * bits / 8, abs=16)
    assert kept_bytes(layer) == 0


def test_the_base_of_a_model_takes_an_eighth_and_its_head_stays_whole() -> None:
    """Breaks when head, embedding or norms are kept in few bits too."""
    whole = adapted(ours(width=64, hidden=256), Adapter(rank=1))
    packed = adapted(ours(width=64, hidden=256), Adapter(rank=1), Quantize(kind="nf4"))
    matrices = sum(layer.base.weight.numel() for layer in whole.attached.layers.values())
    saved = kept_bytes(whole) - kept_bytes(packed)
    assert saved == pytest.approx(matrices * (4 - 0.516), rel=0.01)
    for name in ("head.weight", "embedding.weight", "final_norm.weight"):
        assert dict(packed.named_buffers())[name].dtype == torch.float32


@pytest.mark.parametrize("kind", ["bf16", "int8", "nf4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_and_gradients_are_those_of_the_matrix_that_it_stands_for(
    kind: Any, dtype: torch.dtype
) -> None:
    """Breaks when the backward pass multiplies by the matrix itself instead of its transpose, or
    by what was there before. Nothing of the matrix stays between the passes."""
    matrix, bias = numbers(48 * 32).view(48, 32) * 50, numbers(48, 1)
    layer = FrozenLinear(matrix, bias, Quantize(kind=kind))
    x = (numbers(10 * 32, 2).view(10, 32) * 50).to(dtype).requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t) or t,
        lambda t: t,  # type: ignore[func-returns-value]
    ):
        out = layer(x)
    assert not kept
    dense = layer.dense(dtype)
    assert torch.equal(out, x @ dense.T + bias.to(dtype))
    pull = numbers(10 * 48, 3).view(10, 48).to(dtype)
    (found,) = torch.autograd.grad(out, x, pull)
    assert torch.equal(found, pull @ dense)


def test_without_bitsandbytes_the_bits_are_the_same() -> None:
    """Breaks when the kernel is given the matrix instead of one row: its blocks would begin anew
    in each of them, and a resume on a machine without it would differ."""
    pytest.importorskip("bitsandbytes")
    layer = FrozenLinear(numbers(64 * 96).view(64, 96), None, Quantize(kind="nf4"))
    assert layer.kernel is not None
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        layer.kernel = frozen.published_kernel()
        with_it = layer.dense(dtype)
        layer.kernel = None
        assert torch.equal(layer.dense(dtype), with_it)


def test_a_guest_in_low_precision_multiplies_its_base_in_it() -> None:
    """Breaks when FrozenLinear does not heed autocast: results would be float32."""
    model = adapted(guest(llama()), Adapter(targets=("q_proj",)), Quantize(kind="nf4"))
    layer = model.attached.layers["model.layers.0.self_attn.q_proj"]
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.base(torch.ones(200, 32)).dtype == torch.bfloat16
    model.compute_dtype = torch.bfloat16
    loss_of(model, ids()).backward()


@pytest.mark.parametrize("kind", ["none", "int8", "nf4"])
def test_a_planted_rule_is_learnt_beside_a_base_in_few_bits(kind: Any) -> None:
    """The next id is the last one plus one. Breaks when the scale is 0 or gradients do not pass
    through the frozen matrices."""
    model = adapted(ours(), Adapter(rank=8, modules_to_save=("head",)), Quantize(kind=kind))
    shake(model, 0.02)
    model.train(True)
    tokens = (torch.arange(48)[None] + torch.arange(16)[:, None] * 4) % 64
    optimizer = torch.optim.AdamW([p for _, p in model.named_parameters()], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.token_loss(model.hidden(tokens[:, :-1]), tokens[:, 1:]).mean()
        loss.backward()
        optimizer.step()
    found = model.logits(model.hidden(tokens[:, :-1])).argmax(-1)
    assert (found == tokens[:, 1:]).float().mean() > 0.99
