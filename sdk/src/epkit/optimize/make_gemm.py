"""Products of matrices with what is around them, as Gemm."""

from __future__ import annotations

import onnx_ir as ir

from ..backend.subgraph import static_shape
from .rule import Scope, Verdict, only_use, producer, rule
from .shapes import dims_text, rank_of
from .simplify_transposes import permutation

FLOATS = frozenset({"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"})


@rule("Add")
def matmul_add(node: ir.Node, scope: Scope) -> Verdict:
    """MatMul(A, B) + c = Gemm(A, B, c) for matrices A and B, and c that broadcasts to their product."""
    for side in (0, 1):
        product, other = producer(node.inputs[side], "MatMul"), node.inputs[1 - side]
        if product is None or other is None or product.graph is not node.graph:
            continue
        a, b = product.inputs
        if a is None or b is None or rank_of(a) != 2 or rank_of(b) != 2:
            continue
        if a.dtype is None or a.dtype.name not in FLOATS or scope.opset(product) < 11:
            return f"Gemm of {a.dtype} is not in the standard" if a.dtype is not None else False
        if not only_use(product.outputs[0]):
            return f"{product.outputs[0].name} is used elsewhere too"
        shape, columns = static_shape(other), b.shape[1] if b.shape is not None else None
        if (
            shape is None
            or len(shape) > 2
            or shape[-1:] not in ((), (1,), (columns,))
            or shape[:-1] not in ((), (1,))
        ):
            return f"{dims_text(other)} is no row of {columns} for certain"
        result = node.outputs[0]
        gemm = scope.make(node, "Gemm", [a, b, other], version=product.version, like=result)
        return scope.replace(node, gemm)
    return False


@rule("Gemm")
def transposed_gemm(node: ir.Node, scope: Scope) -> Verdict:
    """Gemm(Aᵀ, B) = Gemm(A, B; transA), and so for B."""
    changed = False
    for index, name in enumerate(("transA", "transB")):
        before = producer(node.inputs[index], "Transpose")
        if before is None or permutation(before) != [1, 0] or before.inputs[0] is None:
            continue
        node.replace_input_with(index, before.inputs[0])
        node.attributes[name] = ir.AttrInt64(name, 1 - node.attributes.get_int(name, 0))
        changed = True
    return changed


RULES = (matmul_add, transposed_gemm)
