"""A computation in; the bytes that it keeps for its backward pass out, counted one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the memory of every tensor that is made, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes_of: dict[StorageWeakRef, int] = {}
        self.given: set[StorageWeakRef] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            if storage not in self.bytes_of:
                self.given.add(storage)
        result = func(*args, **kwargs)
        self.bytes_of.update(_storages(result))
        return result


def _storages(tree: Any) -> dict[StorageWeakRef, int]:
    """Anything with tensors in it → their memory and its bytes; views of one memory are one."""
    storages = [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return {
        StorageWeakRef(storage): storage.nbytes()  # type: ignore[no-untyped-call]
        for storage in storages
    }


def held_bytes(compute: Callable[[], Tensor]) -> int:
    """A function that computes a loss → bytes alive between it and its backward pass.

    Every tensor made on the way counts once, however many views of it are kept and by whom, if it
    is still alive when `compute` has returned. What was there before, as parameters, does not.

    >>> import torch
    >>> weight = torch.ones(1000, requires_grad=True)
    >>> held_bytes(lambda: (weight * 2).exp().sum())  # the 1,000 results of exp, and the sum
    4004
    """
    with _Made() as made:
        result = compute()
    made_here = (item for item in made.bytes_of.items() if item[0] not in made.given)
    held = 0
    for storage, size in made_here:
        held += 0 if storage.expired() else size
    del result
    return held
