"""Measured peaks, memory and utilisation."""

from __future__ import annotations

import math
import mmap
import time

import pytest
import torch

from wellfit.monitor import hardware


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_peak_is_what_a_matrix_product_reaches(dtype: str) -> None:
    """Against a product timed here, with room for what else the machine does.

    Fails if seconds are mistaken for milliseconds (tried).
    """
    torch.set_num_threads(1)
    left = torch.ones(1024, 1024, dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)
    quickest = math.inf
    for _ in range(4):
        began = time.perf_counter()
        left @ left
        quickest = min(quickest, time.perf_counter() - began)
    began = time.perf_counter()
    peak = hardware.matrix_peak(dtype, "cpu", threads=1)  # type: ignore[arg-type]
    took = time.perf_counter() - began
    assert peak is not None
    assert 0.2 < peak / (2 * 1024**3 / quickest) < 10
    assert peak < 1e14
    assert took < 5
    assert torch.get_num_threads() == 1


def test_a_product_counts_two_operations_a_multiplication(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of 4×4 matrices that take 1 ms and of 8×8 in 2 ms: 2·8³ / 0.002 is the faster.

    Fails if n³ is counted instead of 2·n³, or the last shape counts instead of the best (tried).
    """
    seconds = {4: 0.001, 8: 0.002, 2: 0.001}

    class Watch:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    watch = Watch()

    def product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        watch.now += seconds[len(left)]

    monkeypatch.setattr(hardware, "time", watch)
    monkeypatch.setattr(hardware, "SHAPES", {"cpu": (4, 8, 2)})
    monkeypatch.setattr(torch, "mm", product)
    assert hardware.matrix_peak("fp32") == pytest.approx(2 * 8**3 / 0.002)
    assert watch.now < 0.52


def test_the_number_of_threads_is_put_back() -> None:
    torch.set_num_threads(1)
    hardware.matrix_peak("fp32", "cpu", threads=2)
    assert torch.get_num_threads() == 1


def test_unknown_devices_stay_unknown() -> None:
    assert hardware.matrix_peak("fp32", "meta") is None
    if not torch.cuda.is_available():
        assert hardware.matrix_peak("bf16", "cuda") is None
        assert hardware.device_memory("cuda:0") is None
    assert hardware.device_memory("cpu") is None


def test_utilisation_is_a_share_or_unknown() -> None:
    assert hardware.mfu(1000.0, 6e6, 1.2e10) == 0.5
    assert hardware.mfu(None, 6e6, 1.2e10) is None
    assert hardware.mfu(1000.0, None, 1.2e10) is None
    assert hardware.mfu(1000.0, 6e6, None) is None


def test_memory_of_the_process_grows_with_what_it_holds() -> None:
    size = 64 * 2**20
    before = hardware.process_memory()
    # Straight from the kernel: an allocator may hold pages that earlier tests gave back.
    with mmap.mmap(-1, size) as held:
        held.write(b"x" * size)
        grown = hardware.process_memory() - before
    assert size * 0.9 < grown < size * 2.5  # the bytes written from count once more


@pytest.mark.gpu
def test_a_cuda_device_is_measured() -> None:
    peak = hardware.matrix_peak("bf16", "cuda:0")
    assert peak is not None and 1e12 < peak < 1e16
    before = hardware.device_memory("cuda:0")
    held = torch.ones(2**20, device="cuda:0")
    after = hardware.device_memory("cuda:0")
    assert before is not None and after is not None and after - before >= held.nbytes
