"""Values that stay on a device between runs, and arrays of other libraries that are there already."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ..backend.bound import Bound
from ..backend.memory import Tensor
from ..errors import InputError, Where
from ..memory.arena import Arena
from .context import RunState
from .feeds import Foreign, check_fit
from .value_info import ValueInfo


class DeviceArray:
    """An output that stayed where it was computed (see ``RunOptions.on_device``).

    Give it to a later run of any session as an input, to another library by DLPack, or copy it with
    :meth:`numpy`. The memory is its own; it goes back with the last reference.

    Attributes:
        shape: sizes of the axes.
        dtype: NumPy's.
        device: the device's name.
        bound: the provider that holds it.
        tensor: the provider's own object.
    """

    def __init__(self, bound: Bound, tensor: Tensor, arena: Arena | None = None, buffer: Any = None) -> None:
        self.shape: tuple[int, ...] = tuple(tensor.shape)
        self.dtype: np.dtype[Any] = tensor.dtype
        self.device = bound.device.name
        self.bound = bound
        self.tensor = tensor
        self._arena, self._buffer = arena, buffer
        self._end = None if arena is None else weakref.finalize(self, arena.give_later, buffer)

    def numpy(self) -> np.ndarray[Any, Any]:
        """A copy in the host's memory."""
        array = np.empty(self.shape, self.dtype)
        stream = self.bound.provider.stream(self.bound.device)
        try:
            self.bound.allocator.copy_out(self.tensor, array, stream)
            stream.synchronize()
        finally:
            stream.close()
        return array

    @property
    def speaks(self) -> bool:
        """True if the provider's tensors speak DLPack."""
        return hasattr(self.tensor, "__dlpack__")

    def __dlpack__(self, **options: Any) -> Any:
        """The memory itself, for another library; nothing is copied.

        Raises:
            BufferError: if the provider's tensors do not speak DLPack.
        """
        self._check()
        capsule = self.tensor.__dlpack__(**options)
        if self._arena is not None and self._end is not None and self._end.detach() is not None:
            self._arena.leave(self._buffer)  # whoever took the capsule may outlive this object
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type and index.

        Raises:
            BufferError: if the provider's tensors do not speak DLPack.
        """
        self._check()
        kind, index = self.tensor.__dlpack_device__()
        return int(kind), int(index)

    def _check(self) -> None:
        if not self.speaks:
            raise BufferError(f"tensors of {self.bound.name} do not speak DLPack: copy this one with numpy()")

    def __repr__(self) -> str:
        return f"<{self.dtype}{list(self.shape)} on {self.device}>"


def placed(foreign: Foreign, state: RunState) -> DeviceArray:
    """The input as a tensor of the device that holds it, without a copy.

    Raises:
        InputError: if no device of the session holds it, or its dtype or shape does not fit.
    """
    given, info = foreign.given, foreign.info
    is_ours = isinstance(given, DeviceArray)
    found: DeviceArray | None = None
    if is_ours and any(bound is given.bound for bound in state.bounds):
        found = given
    elif not is_ours or given.speaks:
        found = _imported(given, state)
    if found is None:
        raise _elsewhere(given, info)
    check_fit(found, info, Where(stage="run"))
    return found


def _imported(given: Any, state: RunState) -> DeviceArray | None:
    """The array as the first device takes it that can read it."""
    for place, bound in enumerate(state.bounds):
        if not bound.device.host_memory:
            tensor = bound.allocator.imported(given, state.stream(place))
            if tensor is not None:
                return DeviceArray(bound, tensor)
    return None


def _elsewhere(given: Any, info: ValueInfo) -> InputError:
    if isinstance(given, DeviceArray):
        place, remedy = f"on {given.device}", "copy it with numpy(), or"
    else:
        kind, index = map(int, given.__dlpack_device__())
        place, remedy = f"on DLPack device ({kind}, {index})", "copy it to the host, or"
    return InputError(
        f"input {info.name!r} is {place}, which no provider of this session can read",
        where=Where(stage="run"),
        remedy=f"{remedy} load the model with the provider of that device",
    )
