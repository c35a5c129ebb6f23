"""Work that may run out of memory in; the same work in smaller pieces out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from wellfit.errors import RunError

Result = TypeVar("Result")


def ran_out(error: BaseException) -> bool:
    """An error in; whether a device or the main memory had no room, out.

    >>> ran_out(MemoryError()), ran_out(RuntimeError("shapes differ"))
    (True, False)
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch has no class of its own for the allocator of main memory, nor for that of MPS.
    words = ("DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def in_smaller_pieces(
    work: Callable[[int], Result], rows: int, forget: Callable[[], None]
) -> tuple[Result, int]:
    """`work(rows of a micro-batch)` in; what it gave and the rows that fitted, out.

    Where memory runs out, `forget()` drops what the try left, the rows are halved, and the work
    begins anew. Raises RunError where not even one row fits.
    """
    while True:
        try:
            return work(rows), rows
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            reason = str(error).partition("\n")[0] or "no memory left"
        # Out here the error and the frames it holds are gone, and with them their tensors.
        forget()
        _release()
        if rows == 1:
            raise RunError(
                f"a single row of a micro-batch does not fit in memory ({reason})",
                where="train.micro_batch=1",
                way_out="Shorten model.context, recompute activations "
                "(train.activation_checkpointing), or train a smaller model; "
                "`wellfit plan` tells what fits.",
            )
        rows = -(-rows // 2)


def _release() -> None:
    """Give cached blocks back to the device, so that smaller ones can take their place."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
