"""Without an OpenCL platform these tests skip and say so; where one is expected, that is a failure."""

from __future__ import annotations

import os

import pytest

from epkit_opencl.device import Options, find_devices

EXPECTED = "EPKIT_EXPECT_OPENCL"
"""Set to 1 where a platform must be there, as in CI."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    found = find_devices(Options())
    if found.found:
        return
    if os.environ.get(EXPECTED) == "1":
        raise pytest.UsageError(f"{EXPECTED}=1, and there is no OpenCL device: {found.reason}")
    for item in items:
        if "opencl" in str(item.path) and "without" not in item.name:
            item.add_marker(pytest.mark.skip(reason=f"no OpenCL device: {found.reason} ({found.remedy})"))
