"""Which of several devices is chosen, by what they report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyopencl as cl
import pytest

from epkit_opencl import device
from epkit_opencl.device import Options, find_devices
from epkit_opencl.quirks import facts_of


def made(kind: int, name: str, shared: int | None) -> Any:
    """A device as pyopencl would describe it; one of OpenCL 1 cannot say whether it shares memory."""

    class Handle(SimpleNamespace):
        @property
        def svm_capabilities(self) -> int:
            if shared is None:
                raise cl.LogicError("clGetDeviceInfo", cl.status_code.INVALID_VALUE, "")
            return shared

    return Handle(type=kind, name=name, global_mem_size=1 << 30, **ABILITIES)


ABILITIES = {
    "extensions": "cl_khr_fp64",
    "opencl_c_features": [],
    "max_work_group_size": 64,
    "local_mem_size": 16384,
}


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


@pytest.mark.parametrize(
    ("reported", "told"),
    [
        ({}, "fp64, groups of 64, 16 KiB local"),
        ({"max_num_sub_groups": 8}, "fp64, groups of 64, 16 KiB local"),  # a number, and no language for it
        (
            {"extensions": "cl_khr_subgroups", "max_num_sub_groups": 8},
            "8 sub-groups, groups of 64, 16 KiB local",
        ),
        (
            {
                "extensions": "cl_khr_fp16",
                "opencl_c_features": [SimpleNamespace(name="__opencl_c_subgroups")],
                "max_num_sub_groups": 4,
            },
            "fp16, 4 sub-groups, groups of 64, 16 KiB local",
        ),
        ({"extensions": "cl_khr_int64_base_atomics"}, "groups of 64, 16 KiB local"),  # sums, no maxima
        (
            {
                "extensions": "cl_khr_int64_base_atomics cl_khr_int64_extended_atomics cl_khr_integer_dot_product"
            },
            "int64 atomics, int8 dot products, groups of 64, 16 KiB local",
        ),
    ],
)
def test_what_a_device_reports_is_told(reported: dict[str, Any], told: str) -> None:
    assert str(facts_of(SimpleNamespace(**{**ABILITIES, **reported}))) == told


def test_devices_before_opencl_3_know_no_features() -> None:
    class Old(SimpleNamespace):
        @property
        def opencl_c_features(self) -> Any:
            raise cl.LogicError("clGetDeviceInfo", cl.status_code.INVALID_VALUE, "")

    given = {**ABILITIES, "max_num_sub_groups": 0}
    del given["opencl_c_features"]
    assert facts_of(Old(**given)).sub_groups == 0
