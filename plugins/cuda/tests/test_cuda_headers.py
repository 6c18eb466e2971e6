"""What is written by hand of NVIDIA's interfaces, against the headers of its wheels: numbers, sizes, arguments.

A C++ compiler checks it; no GPU is needed. Without the wheels there is nothing to compare with, and it is skipped.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from epkit_cuda import cublaslt, cudnn_recurrent

CUDA_TYPES = {
    "float32": "CUDA_R_32F", "float64": "CUDA_R_64F", "float16": "CUDA_R_16F", "int8": "CUDA_R_8I",
    "int32": "CUDA_R_32I", "bfloat16": "CUDA_R_16BF", "float8_e4m3fn": "CUDA_R_8F_E4M3", "float8_e5m2": "CUDA_R_8F_E5M2",
}  # fmt: skip
CUBLASLT = {
    "CUBLAS_COMPUTE_32F": cublaslt.FLOAT32[0],
    "CUBLAS_COMPUTE_32F_FAST_TF32": cublaslt.TF32[0],
    "CUBLAS_COMPUTE_64F": cublaslt.FLOAT64[0],
    "CUBLAS_COMPUTE_32I": cublaslt.INT32[0],
    "CUBLASLT_MATMUL_DESC_TRANSA": cublaslt.TRANSPOSE_A,
    "CUBLASLT_MATMUL_DESC_TRANSB": cublaslt.TRANSPOSE_B,
    "CUBLASLT_MATMUL_DESC_EPILOGUE": cublaslt.EPILOGUE,
    "CUBLASLT_MATMUL_DESC_BIAS_POINTER": cublaslt.BIAS,
    "CUBLASLT_MATMUL_DESC_A_SCALE_POINTER": cublaslt.SCALE_A,
    "CUBLASLT_MATMUL_DESC_B_SCALE_POINTER": cublaslt.SCALE_B,
    "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT": cublaslt.BATCH_COUNT,
    "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET": cublaslt.BATCH_STEP,
    "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES": cublaslt.MAX_WORKSPACE,
    **{
        f"CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_{name}_BYTES": number
        for name, number in zip("ABCD", cublaslt.ALIGNMENTS, strict=True)
    },
    "CUBLASLT_EPILOGUE_DEFAULT": cublaslt.EPILOGUES[""],
    "CUBLASLT_EPILOGUE_RELU": cublaslt.EPILOGUES["relu"],
    "CUBLASLT_EPILOGUE_GELU": cublaslt.EPILOGUES["gelu_tanh"],
    "CUBLASLT_EPILOGUE_BIAS": cublaslt.WITH_BIAS,
    "CUBLASLT_EPILOGUE_RELU_BIAS": cublaslt.EPILOGUES["relu"] | cublaslt.WITH_BIAS,
    "CUBLASLT_EPILOGUE_GELU_BIAS": cublaslt.EPILOGUES["gelu_tanh"] | cublaslt.WITH_BIAS,
    **{name: cublaslt.DATA_TYPES[ours] for ours, name in CUDA_TYPES.items()},
    "(int)sizeof(cublasLtMatmulAlgo_t)": 64,  # ``matmul`` is given the address of a heuristic result: it comes first
    "(int)offsetof(cublasLtMatmulHeuristicResult_t, algo)": 0,
    "(int)offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize)": 64,
}
CUDNN = {
    **{
        f"CUDNN_DATA_{name}": cudnn_recurrent.KINDS[ours]
        for ours, name in zip(cudnn_recurrent.KINDS, ("FLOAT", "DOUBLE", "HALF", "BFLOAT16"), strict=True)
    },
    **{
        f"CUDNN_{name}": cudnn_recurrent.MODES[ours]
        for ours, name in zip(cudnn_recurrent.MODES, ("RNN_RELU", "RNN_TANH", "LSTM", "GRU"), strict=True)
    },
    "CUDNN_RNN_ALGO_STANDARD": cudnn_recurrent.STANDARD,
    "CUDNN_LINEAR_INPUT": cudnn_recurrent.LINEAR,
    "CUDNN_RNN_PADDED_IO_ENABLED": cudnn_recurrent.PADDED,
    "CUDNN_FWD_MODE_INFERENCE": cudnn_recurrent.INFERENCE,
    "CUDNN_RNN_NO_BIAS": cudnn_recurrent.NO_BIAS,
    "CUDNN_RNN_DOUBLE_BIAS": cudnn_recurrent.TWO_BIASES,
    "CUDNN_UNIDIRECTIONAL": 0,
    "CUDNN_BIDIRECTIONAL": 1,
    "CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED": cudnn_recurrent.STEPS_FIRST,
    "CUDNN_RNN_DATA_LAYOUT_BATCH_MAJOR_UNPACKED": cudnn_recurrent.BATCH_FIRST,
    "CUDNN_DEFAULT_MATH": cudnn_recurrent.ANY_MATH,
    "CUDNN_TENSOR_OP_MATH": cudnn_recurrent.TENSOR_CORES,
    "CUDNN_FMA_MATH": cudnn_recurrent.FMA_ONLY,
    "CUDNN_STATUS_SUCCESS": 0,
    "CUDNN_STATUS_NOT_SUPPORTED": cudnn_recurrent.NOT_SUPPORTED[0],
}

SHAPES = """
template <class T> constexpr char kind() {
  return std::is_pointer<T>::value ? 'P' : std::is_floating_point<T>::value ? 'F' : sizeof(T) == 8 ? 'Z' : 'N';
}
template <class R, class... A> constexpr bool takes(R (*)(A...), const char* wanted) {
  const char found[] = {kind<A>()..., 0};
  for (size_t at = 0; at <= sizeof...(A); at++) if (found[at] != wanted[at]) return false;
  return sizeof(R) == 4;
}
"""
TARGETS = "\n".join(
    f"#define {name}(...)" for name in ("NV_IF_TARGET", "NV_IF_ELSE_TARGET", "NV_DISPATCH_TARGET")
)
"""In place of a header of one more wheel: which of their functions are for the device."""

KINDS = {ctypes.c_float: "F", cudnn_recurrent.P: "P"}


def letter(kind: type) -> str:
    """Pointer, float, or a whole number of four or eight bytes."""
    return KINDS.get(kind) or ("Z" if ctypes.sizeof(kind) == 8 else "N")  # type: ignore[arg-type]


def folders() -> list[str]:
    """Of the wheels' headers."""
    found = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (found.submodule_search_locations or [])] if found is not None else []
    return [str(folder) for root in roots for folder in sorted(root.glob("*/include"))]


def check(tmp_path: Path, header: str, lines: list[str]) -> None:
    if not any((Path(folder) / header).exists() for folder in folders()):
        pytest.skip(f"no wheel has {header}")
    if not any((Path(folder) / "crt" / "host_defines.h").exists() for folder in folders()):
        pytest.skip("the wheel nvidia-cuda-crt is not installed")
    assert shutil.which("g++"), "a C++ compiler is needed"
    path = tmp_path / "check.cpp"
    (tmp_path / "nv").mkdir()
    (tmp_path / "nv" / "target").write_text(TARGETS)
    start = ["#include <cstddef>", "#include <type_traits>", f"#include <{header}>", SHAPES]
    path.write_text("\n".join([*start, *lines]))
    command = [
        "g++",
        "-std=c++17",
        "-fsyntax-only",
        "-w",
        *(f"-I{folder}" for folder in [*folders(), tmp_path]),
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "error" in line)


def numbers(wanted: dict[str, int]) -> list[str]:
    return [f'static_assert((int)({name}) == {number}, "{name}");' for name, number in wanted.items()]


def test_numbers_of_cublaslt_are_those_of_its_header(tmp_path: Path) -> None:
    check(tmp_path, "cublasLt.h", numbers(CUBLASLT))


def test_numbers_and_arguments_of_cudnn_are_those_of_its_headers(tmp_path: Path) -> None:
    signatures = [
        f'static_assert(takes({name}, "{"".join(map(letter, kinds))}"), "{name}");'
        for name, kinds in cudnn_recurrent.SIGNATURES.items()
    ]
    check(tmp_path, "cudnn.h", [*numbers(CUDNN), *signatures])


def test_the_bindings_have_what_is_called() -> None:
    lt = pytest.importorskip("nvmath.bindings.cublasLt")
    assert lt.matmul_heuristic_result_dtype.fields["workspace_size"][1] == 64
    assert lt.matmul_heuristic_result_dtype.fields["algo"][1] == 0
    arguments = {
        "matmul_desc_create": 2,
        "matrix_layout_create": 4,
        "matmul_desc_set_attribute": 4,
        "matmul_preference_create": 0,
        "matmul_algo_get_heuristic": 10,
        "matmul": 16,
    }
    for name, count in arguments.items():
        text = getattr(lt, name).__doc__.splitlines()[0]
        inside = text[text.index("(") + 1 : text.index(")")]
        assert len([item for item in inside.split(",") if item.strip()]) == count, text
    assert issubclass(lt.cuBLASLtError, Exception)


def test_the_frontend_has_what_is_called() -> None:
    cudnn = pytest.importorskip("cudnn")
    for name in ("FLOAT", "HALF", "BFLOAT16"):
        assert hasattr(cudnn.data_type, name)
    assert hasattr(cudnn.scalar_type, "RUNTIME_PARAM") and hasattr(cudnn.numerical_note, "TENSOR_CORE")
    assert hasattr(cudnn.heur_mode, "A") and hasattr(cudnn.heur_mode, "FALLBACK")
    for name in ("create_handle", "set_stream", "cudnnGraphNotSupportedError"):
        assert hasattr(cudnn, name)
    methods = (
        "tensor tensor_scalar conv_fprop add relu min sdpa validate build_operation_graph execute build_plans"
    )
    methods += " create_execution_plans deselect_numeric_notes check_support get_workspace_size"
    missing = [name for name in methods.split() if not hasattr(cudnn.pygraph, name)]
    assert not missing
