"""Float32 products through oneDNN: against torch's own, and where they are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional

from wellfit.model import products

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16\n"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """oneDNN is taken on this machine too; the list gets an entry a product."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "onednn_is_quicker", lambda: True)
    calls: list[int] = []
    plain = products.product

    def counted(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return plain(x, matrix)

    monkeypatch.setattr(products, "product", counted)
    return calls


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(200, 24), (4, 96, 24)])
def test_values_and_gradients_are_those_of_torch(
    taken: list[int], bias: bool, shape: tuple[int, ...]
) -> None:
    """In float64, within float32's rounding. Breaks when the gradient takes the matrix unturned,
    or the bias is left out."""
    x, weight = drawn(*shape, seed=0).requires_grad_(), drawn(40, 24, seed=1).requires_grad_()
    shift = drawn(40, seed=2).requires_grad_() if bias else None
    leaves = [x, weight, *([] if shift is None else [shift])]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    weights = drawn(*shape[:-1], 40, seed=3)
    expected = functional.linear(exact[0], exact[1], exact[2] if bias else None)
    wanted = torch.autograd.grad((expected * weights).sum(), exact)
    actual = products.linear(x, weight, shift)
    found = torch.autograd.grad((actual * weights).sum(), leaves)
    assert len(taken) == 2  # forward, and the gradient by x
    torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close([g.double() for g in found], list(wanted), atol=1e-3, rtol=1e-5)


def test_rows_that_are_not_contiguous(taken: list[int]) -> None:
    """Breaks where strides are ignored."""
    wide, matrix = drawn(300, 48, seed=0), drawn(24, 32, seed=1)
    for x, turned in ((wide[:, ::2], matrix.T), (wide.T[:24].T, matrix.T), (wide[::2, :24], None)):
        weight = drawn(32, 24, seed=2) if turned is None else turned
        torch.testing.assert_close(products.product(x, weight), x @ weight.T, atol=1e-4, rtol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours(taken: list[int]) -> None:
    """Bit for bit, at one number of rows. Breaks when sums run over rows."""
    x, weight = drawn(256, 64, seed=0), drawn(40, 64, seed=1)
    other = x.clone()
    other[128:] = drawn(128, 64, seed=2)
    assert torch.equal(products.linear(x, weight)[:128], products.linear(other, weight)[:128])


@pytest.mark.filterwarnings("ignore")  # while tracing, torch warns of what it does itself
def test_compiled_it_is_the_same_product_in_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients. Breaks when torch's own operation is left for the compiler to lower."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "onednn_is_quicker", lambda: True)
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    def gradients(linear: Any) -> list[torch.Tensor]:
        x, weight = drawn(200, 24, seed=0).requires_grad_(), drawn(40, 24, seed=1).requires_grad_()
        out = linear(x, weight)
        return [out, *torch.autograd.grad(out.square().sum(), (x, weight))]

    compiled = torch.compile(
        products.linear, backend=aot_autograd(fw_compiler=backend), fullgraph=True
    )
    torch.testing.assert_close(gradients(compiled), gradients(products.linear))
    assert "wellfit.product.default" in seen


def test_few_rows_and_other_types_go_the_usual_way(taken: list[int]) -> None:
    """Breaks when the bound on rows or types is dropped."""
    for x in (drawn(products.LEAST_ROWS - 1, 8, seed=0), drawn(999, 8, seed=0).bfloat16()):
        products.linear(x, drawn(4, 8, seed=1).to(x.dtype))
    assert not taken


@pytest.mark.parametrize(
    ("text", "quicker"),
    [
        (AMD, True),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), False),
        (AMD.replace("avx512f ", ""), False),
        (None, False),
    ],
)
def test_where_it_is_taken(tmp_path: Path, text: str | None, quicker: bool) -> None:
    """Where it was measured: AMD with AVX-512. Breaks when the maker is not looked at."""
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    has = torch.backends.mkldnn.is_available()
    assert products.onednn_is_quicker(file) == (quicker and has)
