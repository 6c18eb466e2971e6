"""Every portable operator against the single-node cases that ONNX publishes."""

from __future__ import annotations

from typing import Any

import pytest
from published import run_case, single_node_cases

from epkit.kernels import table


def covered() -> list[Any]:
    known = table()
    cases = []
    for case in single_node_cases():
        node = case.model.graph.node[0]
        opset = next(o.version for o in case.model.opset_import if o.domain == node.domain)
        if known.find(node.domain, node.op_type, opset) is not None:
            cases.append(case)
    return cases


@pytest.mark.parametrize("case", covered(), ids=lambda case: case.name)
def test_published_case(case: Any) -> None:
    run_case(case, table())
