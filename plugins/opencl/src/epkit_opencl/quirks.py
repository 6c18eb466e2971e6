"""What a device reports of itself, as far as kernels or people ask; no vendor's name decides anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """The optional abilities of a device.

    Attributes:
        fp16, fp64: arithmetic in these types.
        int64_atomics: atomic sums, minima and maxima of 64-bit integers.
        dots_of_four: products of four 8-bit integers at once.
        sub_groups: of a work-group at most, with operations across their work-items; 0: none.
        work_items: of a work-group.
        local_memory: bytes.
    """

    fp16: bool
    fp64: bool
    int64_atomics: bool
    dots_of_four: bool
    sub_groups: int
    work_items: int
    local_memory: int

    def __str__(self) -> str:
        has = {
            "fp16": self.fp16,
            "fp64": self.fp64,
            "int64 atomics": self.int64_atomics,
            "int8 dot products": self.dots_of_four,
            f"{self.sub_groups} sub-groups": self.sub_groups > 0,
        }
        listed = [name for name, there in has.items() if there]
        return ", ".join([*listed, f"groups of {self.work_items}", f"{self.local_memory >> 10} KiB local"])


def facts_of(handle: Any) -> Facts:
    """Ask the device: its extensions, its OpenCL C features (3.0), its numbers."""
    extensions = frozenset(handle.extensions.split())
    return Facts(
        fp16="cl_khr_fp16" in extensions,
        fp64="cl_khr_fp64" in extensions,
        int64_atomics={"cl_khr_int64_base_atomics", "cl_khr_int64_extended_atomics"} <= extensions,
        dots_of_four="cl_khr_integer_dot_product" in extensions,
        sub_groups=_sub_groups(handle, extensions),
        work_items=int(handle.max_work_group_size),
        local_memory=int(handle.local_mem_size),
    )


def _sub_groups(handle: Any, extensions: frozenset[str]) -> int:
    """The number alone does not say that the language has them: an extension or a feature must."""
    if not ("cl_khr_subgroups" in extensions or "__opencl_c_subgroups" in _features(handle)):
        return 0
    import pyopencl as cl

    try:
        return int(handle.max_num_sub_groups)
    except cl.Error:  # before OpenCL 2.1 the extension alone has them, and no such number
        return 1


def _features(handle: Any) -> frozenset[str]:
    """Of OpenCL C, as OpenCL 3.0 lists them; none before."""
    import pyopencl as cl

    try:
        return frozenset(item.name for item in handle.opencl_c_features)
    except cl.Error:
        return frozenset()
