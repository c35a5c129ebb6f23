"""Activations wait for their backward pass in the host's memory instead of the GPU's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from wellfit.errors import RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# A copy of less than this is not worth its start.
SMALLEST = 1 << 20


class Courier(Protocol):
    """Takes bytes away and brings them back; both may be on their way when the call returns."""

    def away(self, memory: Tensor) -> Any:
        """Bytes [N] on the device → whatever `back` needs."""
        ...

    def back(self, parcel: Any) -> Tensor:
        """What `away` gave → bytes [N] on the device."""
        ...


class CudaCourier:
    """Copies on a stream of its own, to and from pinned memory, while the GPU computes."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def away(self, memory: Tensor) -> Tensor:
        """Bytes on the GPU → pinned bytes, which are there once the stream has come so far."""
        import torch

        host = torch.empty(memory.shape, dtype=memory.dtype, device="cpu", pin_memory=True)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            host.copy_(memory, non_blocking=True)
        # The allocator must not hand the memory to others while it is being read.
        memory.record_stream(self.stream)
        return host

    def back(self, parcel: Tensor) -> Tensor:
        """Pinned bytes → bytes on the GPU; computing waits for them, the host does not."""
        import torch

        # Copies of one stream follow one another: what is fetched has been taken away before.
        with torch.cuda.stream(self.stream):
            memory = parcel.to(self.device, non_blocking=True)
        now = torch.cuda.current_stream(self.device)
        now.wait_stream(self.stream)
        memory.record_stream(now)
        return memory


@dataclass(slots=True)
class _Parcel:
    """One memory that was taken away, with the views of it that autograd waits for."""

    contents: Any
    views: int = 0
    memory: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """How a saved tensor lay in its memory."""

    parcel: _Parcel
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(slots=True)
class Offload:
    """Autograd's saved tensors → parcels, and back; one forward pass long.

    A memory is copied once, however many views of it are saved. Parameters, casts and views of
    parameters, and what is smaller than `smallest` bytes stay where they are.
    """

    courier: Courier
    kept: frozenset[int]
    """Addresses of the memory of parameters."""
    smallest: int = SMALLEST
    parcels: dict[Any, _Parcel] = field(default_factory=dict)

    def pack(self, tensor: Tensor) -> Tensor | _View:
        """A tensor that autograd saves → itself, or what brings it back."""
        from torch.multiprocessing.reductions import StorageWeakRef

        storage = tensor.untyped_storage()
        if storage.nbytes() < self.smallest or storage.data_ptr() in self.kept:
            return tensor
        if _is_weight(tensor):
            return tensor
        # The weak reference keeps the key from being given to a later tensor at this address; a
        # memory that was written to since is another one.
        key = (StorageWeakRef(storage), tensor._version)  # type: ignore[no-untyped-call]
        if key not in self.parcels:
            self.parcels[key] = _Parcel(self.courier.away(_bytes_of(tensor)))
        parcel = self.parcels[key]
        parcel.views += 1
        return _View(
            parcel, tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
        )

    def unpack(self, saved: Tensor | _View) -> Tensor:
        """What `pack` gave → the tensor, with the same bytes and strides."""
        import torch

        if isinstance(saved, torch.Tensor):
            return saved
        parcel = saved.parcel
        memory = parcel.memory
        if memory is None:
            memory = parcel.memory = self.courier.back(parcel.contents)
        parcel.views -= 1
        if parcel.views <= 0:  # nobody else waits for it; the next call would fetch it again
            parcel.memory = None
        whole = torch.empty(0, dtype=saved.dtype, device=memory.device)
        return whole.set_(memory.untyped_storage(), saved.offset, saved.size, saved.stride)


def _bytes_of(tensor: Tensor) -> Tensor:
    """A tensor → all bytes of the memory that it is a view of."""
    import torch

    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _is_weight(tensor: Tensor) -> bool:
    """Whether a tensor is a parameter, or was made of one by casts, views and transposes only."""
    node: Any = tensor.grad_fn
    while node is not None and len(node.next_functions) == 1:
        if node.name() not in ("ToCopyBackward0", "TBackward0", "ViewBackward0", "AliasBackward0"):
            return False
        node = node.next_functions[0][0]
    return node is not None and hasattr(node, "variable")


def courier_for(device: torch.device) -> Courier:
    """A device in, its courier out. Raises RunError where activations lie in the host's memory."""
    if device.type != "cuda":
        raise RunError(
            f"on {device.type} activations are in the host's memory already: there is nowhere to "
            "take them",
            where="train.activation_offload=true",
            way_out="Set train.activation_offload=false; train.activation_checkpointing=full "
            "needs the least memory.",
        )
    return CudaCourier(device)


@contextmanager
def offloaded(
    courier: Courier, parameters: Iterable[Tensor], *, smallest: int = SMALLEST
) -> Iterator[Offload]:
    """A courier and the model's parameters in; a forward pass inside keeps no large activations.

    One such context serves one forward pass; its backward pass comes after it.
    """
    import torch

    kept = frozenset(parameter.untyped_storage().data_ptr() for parameter in parameters)
    offload = Offload(courier, kept, smallest)
    with torch.autograd.graph.saved_tensors_hooks(offload.pack, offload.unpack):
        yield offload
    offload.parcels.clear()  # what is still needed hangs on autograd's graph
