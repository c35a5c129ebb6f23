"""Device, arithmetic, threads, allocator, prefetching and signals."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
import torch
from train_parts import run, section

from wellfit.errors import RunError
from wellfit.records import Request, Step
from wellfit.training import precision
from wellfit.training.allocator import keep_freed_memory
from wellfit.training.prefetch import prefetch
from wellfit.training.signals import stop_requests
from wellfit.training.threads import threads, usable_cores


@pytest.mark.parametrize(
    ("wanted", "cuda", "mps", "name"),
    [
        ("auto", True, False, "cuda"),
        ("auto", False, True, "mps"),
        ("auto", False, False, "cpu"),
        ("cpu", True, False, "cpu"),
    ],
)
def test_the_device_is_the_one_asked_for_or_the_fastest(wanted, cuda, mps, name):
    assert precision.choose_device(wanted, cuda=cuda, mps=mps).name == name


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(RunError) as error:
        precision.choose_device("cuda", cuda=False, mps=False)
    assert str(error.value) == (
        "train.device=cuda: torch sees no cuda device, only cpu\n"
        "  Set train.device=auto, or install a torch build for that device."
    )


@pytest.mark.parametrize(
    ("wanted", "device", "flags", "capability", "name", "reason"),
    [
        ("auto", "cpu", {"avx512f"}, (0, 0), "fp32", "cpu has no native bf16"),
        ("auto", "cpu", {"amx_bf16"}, (0, 0), "bf16", "amx_bf16"),
        ("auto", "cpu", {"avx512_bf16"}, (0, 0), "bf16", "avx512_bf16"),
        ("auto", "cuda", {"amx_bf16"}, (7, 5), "fp32", "cuda has no native bf16"),
        ("auto", "cuda", set(), (8, 0), "bf16", "compute capability 8.0"),
        ("auto", "mps", {"amx_bf16"}, (0, 0), "fp32", "mps has no native bf16"),
        ("bf16", "cpu", set(), (0, 0), "bf16", "emulates"),
        ("fp32", "cpu", {"amx_bf16"}, (0, 0), "fp32", "the recipe asks"),
        ("tf32", "cuda", set(), (8, 0), "tf32", "the recipe asks"),
        ("fp16", "cpu", {"avx2"}, (0, 0), "fp16", "cpu emulates fp16, fp32 may be faster"),
        ("fp16", "cpu", {"avx512_fp16"}, (0, 0), "fp16", "the recipe asks for it"),
        ("fp16", "cuda", set(), (7, 0), "fp16", "the recipe asks for it"),
        ("fp8", "cuda", set(), (8, 9), "fp8", "the recipe asks for it"),
    ],
)
def test_bf16_is_taken_where_it_is_multiplied_natively(
    wanted, device, flags, capability, name, reason
):
    choice = precision.choose_precision(
        wanted, device, cpu_flags=frozenset(flags), capability=capability
    )
    assert choice.name == name and reason in choice.why


@pytest.mark.parametrize(
    ("device", "capability", "here"),
    [
        ("cpu", (0, 0), "the cpu device"),
        ("mps", (0, 0), "the mps device"),
        ("cuda", (7, 5), "this GPU, of compute capability 7.5,"),
    ],
)
def test_tf32_is_refused_where_there_is_none(device, capability, here):
    """Break: letting it pass as fp32."""
    with pytest.raises(RunError) as error:
        precision.choose_precision("tf32", device, cpu_flags=frozenset(), capability=capability)
    assert str(error.value) == (
        f"train.precision=tf32: {here} has no tf32: it is how NVIDIA GPUs from compute "
        "capability 8.0 on multiply float32\n"
        "  Set train.precision=auto, or fp32 for the whole float32."
    )


@pytest.mark.parametrize(
    ("device", "capability", "here"),
    [
        ("cpu", (0, 0), "the cpu device"),
        ("mps", (0, 0), "the mps device"),
        ("cuda", (8, 6), "this GPU, of compute capability 8.6,"),
    ],
)
def test_fp8_is_refused_everywhere(device, capability, here):
    """Everywhere but on a GPU that multiplies it. Break tried: from capability 8.0 on."""
    with pytest.raises(RunError) as error:
        precision.choose_precision("fp8", device, cpu_flags=frozenset(), capability=capability)
    assert str(error.value) == (
        f"train.precision=fp8: {here} does not multiply fp8: NVIDIA GPUs do from compute "
        "capability 8.9 on\n"
        "  Set train.precision=auto, which takes bf16 where the device multiplies it."
    )


def test_fp8_is_refused_on_amd(monkeypatch):
    """Their formats have other ends. Break tried: let through."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 4))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(RunError, match="AMD GPUs have other 8-bit formats"):
        precision.choose("cuda", "fp8")
    assert precision.choose("cuda", "bf16")[1].name == "bf16"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("fp8", torch.bfloat16),
    ],
)
def test_activations_have_the_type_of_the_precision(name, dtype):
    assert precision.compute_dtype(name) == dtype


@pytest.mark.parametrize(
    ("name", "before", "inside"),
    [
        ("tf32", "highest", "high"),
        ("fp32", "high", "highest"),
        ("bf16", "high", "high"),
        ("fp16", "medium", "medium"),
    ],
)
def test_float32_products_are_as_asked_and_afterwards_as_before(name, before, inside):
    """Also after an error. Break: leaving fp32 at what somebody had set."""
    outside = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with pytest.raises(KeyError), precision.float32_products(name) as told:
            assert told == torch.get_float32_matmul_precision() == inside
            raise KeyError
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(outside)


def test_flags_are_read_from_the_kernels_description(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu amx_bf16 avx2\nflags : x\n")
    assert precision.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "amx_bf16", "avx2"}
    assert precision.cpu_flags(tmp_path / "missing") == frozenset()


@pytest.mark.parametrize(
    ("text", "most"), [("150000 100000\n", 2), ("max 100000\n", 10**6), ("50000 100000", 1)]
)
def test_a_containers_quota_limits_the_cores(tmp_path, text, most):
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert usable_cores(quota) == min(usable_cores(tmp_path / "missing"), most)


def test_threads_last_as_long_as_the_training(tmp_path):
    seen = []
    for record in run(tmp_path, train_section=section(threads=2)):
        if type(record) is Step:
            seen.append(torch.get_num_threads())
    assert set(seen) == {2} and torch.get_num_threads() == 1
    with threads(0) as count:
        assert count == usable_cores() == torch.get_num_threads()


ALLOCATOR = """
import resource, sys, torch
from wellfit.training.allocator import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum([faults() for _ in range(30)][20:]))
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="not Linux with glibc")
def test_big_tensors_do_not_fault_their_pages_in_again():
    """Ten times 40 MB, 9,766 pages each (fewer where pages are huge). Break: setting only one."""

    def faults(how):
        command = [sys.executable, "-c", ALLOCATOR, how]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert faults("kept") < 0.2 * faults("as it is")


def test_prefetching_runs_one_step_ahead_and_never_past_the_end():
    """Break: submitting the step after the last."""
    asked = []
    with closing(prefetch(lambda step: asked.append(step) or step, 3, 5)) as feed:
        first, waited = next(feed)
        assert first == 3 and waited >= 0
        deadline = time.monotonic() + 5
        while len(asked) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert asked == [3, 4]
        assert [fetched for fetched, _ in feed] == [4, 5]
    assert asked == [3, 4, 5]
    assert list(prefetch(lambda step: step, 5, 4)) == []


def test_the_wait_for_a_batch_is_told_and_overlaps_with_work(monkeypatch):
    """On a clock that only the first batch moves, which begins once it is waited for; the others
    are ready while their predecessors are worked with. Break: ask for a step when it is needed."""
    clock, waiting = [0.0], threading.Event()
    ready = {step: threading.Event() for step in (1, 2, 3)}

    def now():
        waiting.set()
        return clock[0]

    def fetch(step):
        assert waiting.wait(30)
        clock[0] += 3 * (step == 1)
        ready[step].set()
        return step

    monkeypatch.setattr("wellfit.training.prefetch.time.perf_counter", now)
    waits = []
    for step, waited in prefetch(fetch, 1, 3):
        waits.append(waited)
        assert step == 3 or ready[step + 1].wait(30)
    assert waits == [3, 0, 0]


def test_an_error_of_the_batch_comes_at_its_step():
    def broken(step):
        if step == 2:
            raise OSError("gone")
        return step

    feed = prefetch(broken, 1, 3)
    assert next(feed)[0] == 1
    with pytest.raises(OSError, match="gone"):
        next(feed)


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]
)
def test_a_signal_becomes_a_request_and_a_second_ctrl_c_aborts(number, reason):
    """Break: not putting the former handlers back."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    requests = queue.SimpleQueue()
    with stop_requests(requests):
        os.kill(os.getpid(), number)
        assert requests.get(timeout=5) == Request("stop", reason)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_ctrl_c_ends_a_training_with_a_checkpoint(tmp_path):
    requests = queue.SimpleQueue()
    with stop_requests(requests):
        for record in run(tmp_path, requests=requests):
            if type(record) is Step and record.step == 2:
                os.kill(os.getpid(), signal.SIGINT)
    assert record.kind == "stopped" and record.text.startswith("Ctrl-C")
    assert (tmp_path / "checkpoints" / "step-000002").is_dir()


def test_signals_are_left_alone_outside_the_main_thread():
    before, seen = signal.getsignal(signal.SIGINT), []

    def inside():
        with stop_requests(queue.SimpleQueue()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
