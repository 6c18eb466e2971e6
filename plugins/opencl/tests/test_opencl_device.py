"""Which of several devices is chosen, by what they report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyopencl as cl
import pytest

from epkit_opencl import device
from epkit_opencl.device import Options, find_devices


def made(kind: int, name: str, shared: int | None) -> Any:
    """A device as pyopencl would describe it; one of OpenCL 1 cannot say whether it shares memory."""

    class Handle(SimpleNamespace):
        @property
        def svm_capabilities(self) -> int:
            if shared is None:
                raise cl.LogicError("clGetDeviceInfo", cl.status_code.INVALID_VALUE, "")
            return shared

    return Handle(type=kind, name=name, global_mem_size=1 << 30)


KINDS = cl.device_type
HANDLES = [
    made(KINDS.CPU, "Some Processor", 1),
    made(KINDS.GPU, "Acme Graphics 100", None),
    made(KINDS.ACCELERATOR, "Acme Board", 0),
    made(KINDS.GPU, "Zenith Graphics", 3),
]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (Options(), [1, 3, 2, 0]),
        (Options(device="gpu"), [1, 3]),
        (Options(device="CPU"), [0]),
        (Options(device="accelerator"), [2]),
        (Options(device="3"), [3]),
        (Options(device="acme"), [1, 2]),
        (Options(device="100"), []),
        (Options(device="tpu"), []),
        (Options(memory="svm"), [3, 0]),
        (Options(device="gpu", memory="svm"), [3]),
        (Options(device="1", memory="svm"), []),
    ],
)
def test_devices_by_index_type_or_name(
    monkeypatch: pytest.MonkeyPatch, options: Options, found: list[int]
) -> None:
    """GPUs first; a number is an index, and nothing is not an error but says what there is."""
    monkeypatch.setattr(device, "all_handles", lambda: HANDLES)
    devices = find_devices(options)
    assert [item.name for item in devices.found] == [f"opencl:{index}" for index in found]
    if not found:
        assert devices.reason and devices.remedy
