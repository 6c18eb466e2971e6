"""Gradient nodes in models: names, scopes, higher orders, refusals; against closed forms and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
from epkit.errors import InvalidModelError, PlacementError

Array = np.ndarray[Any, Any]
HEAD = '<ir_version: 10, opset_import: ["": 21, "ai.onnx.preview.training": 1, "local": 1]>\n'
GRADIENT = "ai.onnx.preview.training.Gradient"


def run(text: str, *, optimise: str = "basic", head: str = HEAD, **feeds: Any) -> dict[str, Any]:
    with epkit.load(onnx.parser.parse_model(head + text), optimise=optimise) as session:
        return session(**{name: np.asarray(value) for name, value in feeds.items()})


X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


@pytest.mark.parametrize("optimise", ["none", "all"])
def test_least_squares(optimise: str) -> None:
    """``d |x w - t|^2 / dw = 2 x^T (x w - t)``."""
    w, t = np.array([[1.0], [2.0], [-1.0]]), np.array([[1.0], [0.0]])
    found = run(
        f"""g (double[n, k] x, double[k, 1] w, double[n, 1] t) => (double loss, double dw) {{
            p = MatMul(x, w)
            e = Sub(p, t)
            s = Mul(e, e)
            loss = ReduceSum<keepdims=0>(s)
            dw = {GRADIENT}<xs=["w"], zs=["x", "t"], y="loss">(w, x, t)
        }}""",
        optimise=optimise,
        x=X,
        w=w,
        t=t,
    )
    np.testing.assert_allclose(found["dw"], 2 * X.T @ (X @ w - t), rtol=1e-12)


def test_second_and_third_derivative() -> None:
    text = f"""g (double[n, k] x) => (double d1, double d2, double d3) {{
        four = Constant<value = double {{4.0}}>()
        y = Pow(x, four)
        d1 = {GRADIENT}<xs=["x"], y="y">(x)
        d2 = {GRADIENT}<xs=["x"], y="d1">(x)
        d3 = {GRADIENT}<xs=["x"], y="d2">(x)
    }}"""
    found = run(text, x=X)
    np.testing.assert_allclose(found["d1"], 4 * X**3, rtol=1e-12)
    np.testing.assert_allclose(found["d2"], 12 * X**2, rtol=1e-12)
    np.testing.assert_allclose(found["d3"], 24 * X, rtol=1e-12)


SECOND = {
    "Softmax(x)": (2, 3),
    "Conv<pads=[1, 1], strides=[2]>(x, w)": (1, 2, 5),
    "MaxPool<kernel_shape=[2]>(x)": (1, 1, 4),
    "AveragePool<kernel_shape=[2], pads=[1, 0]>(x)": (1, 1, 4),
    "Slice(x, one, two)": (3, 2),
    "Gather(x, one)": (3, 2),
    "ReduceMax<keepdims=0>(x, one)": (2, 3),
    "Pad(x, pads)": (2, 3),
    'Einsum<equation="ij,kj->ik">(x, x)': (2, 3),
    "Clip(x, , high)": (2, 3),
    "InstanceNormalization(x, k, k)": (2, 2, 3),
}


@pytest.mark.parametrize("inner", SECOND)
def test_gradients_have_gradients(inner: str) -> None:
    """``d/dx sum(v * d/dx sum(tanh(f)))`` is the slope of the first gradient."""
    shape = SECOND[inner]
    dims = ", ".join(map(str, shape))
    text = f"""g (double[{dims}] x, double[{dims}] v) => (double d1, double d2)
      <double[2, 2, 3] w = {{1, -2, 3, 4, -5, 6, 1, 0, 2, -1, 3, 1}}, int64[1] one = {{1}}, int64[1] two = {{2}},
       int64[4] pads = {{1, -1, 0, 2}}, double high = {{0.5}}, double[2] k = {{1, 2}}> {{
        f = {inner}
        t = Tanh(f)
        d1 = {GRADIENT}<xs=["x"], y="t">(x)
        p = Mul(d1, v)
        d2 = {GRADIENT}<xs=["x"], zs=["v"], y="p">(x, v)
    }}"""
    random = np.random.default_rng(5)
    x, v, step = random.standard_normal((3, *shape))
    with epkit.load(onnx.parser.parse_model(HEAD + text)) as session:
        found = session(x=x, v=v)["d2"]
        ahead, behind = (session(x=x + 1e-6 * sign * step, v=v)["d1"] for sign in (1, -1))
    np.testing.assert_allclose(
        (found * step).sum(), (v * (ahead - behind)).sum() / 2e-6, rtol=1e-5, atol=1e-6
    )


# ---- names ----


def test_other_values_than_those_named() -> None:
    """The function that the names describe is evaluated at the node's inputs."""
    found = run(
        f"""g (double[n, k] x, double[a, b] h1) => (double y, double d) {{
            h = Exp(x)
            s = Mul(h, h)
            y = Mul(s, h)
            d = {GRADIENT}<xs=["h"], y="y">(h1)
        }}""",
        x=X,
        h1=np.array([[2.0, -1.0]]),
    )
    np.testing.assert_allclose(found["y"], np.exp(3 * X), rtol=1e-12)
    np.testing.assert_allclose(found["d"], [[12.0, 3.0]], rtol=1e-12)


def test_intermediate_values_outputs_left_out_and_values_without_influence() -> None:
    found = run(
        f"""g (double[n, k] x, double[k] b, double[n] far) => (double dh, double dfar) {{
            h = Tanh(x)
            y = Mul(h, b)
            dh, , dfar = {GRADIENT}<xs=["h", "b", "far"], y="y">(h, b, far)
        }}""",
        x=X,
        b=[1.0, 2.0, 3.0],
        far=[7.0, np.inf],
    )
    np.testing.assert_array_equal(found["dh"], [[1.0, 2.0, 3.0]] * 2)
    np.testing.assert_array_equal(found["dfar"], [0.0, 0.0])


def test_the_gradient_may_stand_before_what_it_differentiates() -> None:
    found = run(
        f"""g (double[n, k] x) => (double r) {{
            r = Neg(d)
            d = {GRADIENT}<xs=["x"], y="y">(x)
            y = Sin(x)
        }}""",
        x=X,
    )
    np.testing.assert_allclose(found["r"], -np.cos(X), rtol=1e-12)


def test_of_a_value_with_itself_and_of_one_used_twice() -> None:
    found = run(
        f"""g (double[n, k] x) => (double one, double d) {{
            one = {GRADIENT}<xs=["x"], y="x">(x)
            s = Add(x, x)
            y = Mul(s, x)
            d = {GRADIENT}<xs=["x"], y="y">(x)
        }}""",
        x=X,
    )
    np.testing.assert_array_equal(found["one"], np.ones_like(X))
    np.testing.assert_allclose(found["d"], 4 * X, rtol=1e-12)


# ---- scopes ----


def test_inside_a_function_and_through_one() -> None:
    """Names belong to the function's scope, which two calls have twice; square has no rule of its own."""
    functions = f"""
        <domain: "local", opset_import: ["": 21, "local": 1, "ai.onnx.preview.training": 1]>
        slope (x) => (d) {{
            y = local.square<power = 3.0>(x)
            d = {GRADIENT}<xs=["x"], y="y">(x)
        }}
        <domain: "local", opset_import: ["": 21]>
        square <power: float = 2.0> (x) => (y) {{
            p = Constant<value_float: float = @power>()
            q = CastLike(p, x)
            y = Pow(x, q)
        }}"""
    found = run(
        f"""g (double[n, k] x) => (double d, double dd) {{
            d = local.slope(x)
            y = local.square(x)
            e = local.slope(y)
            dd = {GRADIENT}<xs=["x"], y="e">(x)
        }}{functions}""",
        x=X,
    )
    np.testing.assert_allclose(found["d"], 3 * X**2, rtol=1e-12)
    np.testing.assert_allclose(found["dd"], 12 * X**3, rtol=1e-12)  # of 3 (x^2)^2


@pytest.mark.parametrize("positive", [True, False])
def test_inside_a_branch_of_values_outside(positive: bool) -> None:
    found = run(
        f"""g (double[n, k] x, bool b) => (double d) {{
            y = Exp(x)
            d = If(b) <
                then_branch = t () => (double[n, k] r) {{
                    z = Mul(y, x)
                    r = {GRADIENT}<xs=["x"], y="z">(x)
                }},
                else_branch = e () => (double[n, k] r) {{ r = {GRADIENT}<xs=["y"], y="y">(y) }}
            >
        }}""",
        x=X,
        b=np.array(positive),
    )
    np.testing.assert_allclose(found["d"], (1 + X) * np.exp(X) if positive else np.ones_like(X), rtol=1e-12)


def test_in_a_model_older_than_the_rules() -> None:
    """Axes were attributes then; the nodes added say by which version they are to be read."""
    found = run(
        f"""g (double[n, k] x, double[k] b) => (double s, double db, double dx) {{
            p = Mul(x, b)
            q = Exp(p)
            s = ReduceSum<axes=[1], keepdims=0>(q)
            db, dx = {GRADIENT}<xs=["b", "x"], y="s">(b, x)
        }}""",
        head='<ir_version: 5, opset_import: ["": 9, "ai.onnx.preview.training": 1]>\n',
        x=X,
        b=[1.0, 2.0, -1.0],
    )
    e = np.exp(X * [1.0, 2.0, -1.0])
    np.testing.assert_allclose(found["db"], (e * X).sum(0), rtol=1e-12)
    np.testing.assert_allclose(found["dx"], e * [1.0, 2.0, -1.0], rtol=1e-12)


# ---- training forms ----


def test_batch_normalization_in_training() -> None:
    """The batch's own mean and variance depend on x too."""
    text = f"""g (double[4, 2, 3] x, double[2] s, double[2] b, double[2] m, double[2] v, double[4, 2, 3] w)
            => (double z, double rm, double dx, double ds) {{
        y, rm, rv = BatchNormalization<training_mode=1>(x, s, b, m, v)
        z = Mul(y, w)
        dx, ds = {GRADIENT}<xs=["x", "s"], zs=["b", "m", "v", "w"], y="z">(x, s, b, m, v, w)
    }}"""
    random = np.random.default_rng(3)
    x, w, step = random.standard_normal((3, 4, 2, 3))
    s, b, m, v = random.uniform(0.5, 2, (4, 2))
    rest = {"s": s, "b": b, "m": m, "v": v, "w": w}
    with epkit.load(onnx.parser.parse_model(HEAD + text)) as session:
        found = session(x=x, **rest)
        ahead, behind = (session(x=x + 1e-6 * sign * step, **rest)["z"].sum() for sign in (1, -1))
    np.testing.assert_allclose((found["dx"] * step).sum(), (ahead - behind) / 2e-6, rtol=1e-6)
    np.testing.assert_allclose(found["ds"], ((found["z"] / w - b[:, None]) * w).sum((0, 2)) / s, rtol=1e-9)
    np.testing.assert_allclose(found["rm"], 0.9 * m + 0.1 * x.mean((0, 2)), rtol=1e-9)


def test_dropout_in_training_uses_the_mask_of_the_forward_run() -> None:
    found = run(
        f"""g (double[n] x) => (double y, double dx)
          <double ratio = {{0.25}}, bool training = {{1}}> {{
            y = Dropout(x, ratio, training)
            dx = {GRADIENT}<xs=["x"], y="y">(x)
        }}""",
        x=np.full(100, 2.0),
    )
    np.testing.assert_allclose(found["dx"], found["y"] / 2.0, rtol=1e-12)
    assert {0.0} < set(found["dx"]) and len(set(found["dx"])) == 2


# ---- random expressions ----

UNARY: dict[str, Callable[[Array], Array]] = {
    "Tanh": np.tanh,
    "Sin": np.sin,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Neg": np.negative,
    "Atan": np.arctan,
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}
REDUCED: dict[str, Callable[..., Array]] = {"ReduceSum": np.sum, "ReduceMean": np.mean, "ReduceMax": np.max}


@dataclass
class Program:
    """The text of an expression, and the same in NumPy."""

    lines: list[str] = field(default_factory=list)
    steps: list[Callable[[list[Array]], Array]] = field(default_factory=list)

    def add(self, text: str, step: Callable[[list[Array]], Array]) -> None:
        self.lines.append(f"v{len(self.steps) + 3} = {text}")
        self.steps.append(step)

    def __call__(self, inputs: list[Array]) -> Array:
        values = list(inputs)
        for step in self.steps:
            values.append(step(values))
        return values[-1]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    program = Program()
    for _ in range(draw(st.integers(1, 8))):
        last = len(program.steps) + 2
        # The newest value is always among the operands, so that nothing made is unused.
        i, j = draw(st.integers(0, last)), last
        kind = draw(st.sampled_from(["unary", "binary", "reduced"]))
        if kind == "unary":
            name = draw(st.sampled_from(sorted(UNARY)))
            program.add(f"{name}(v{j})", lambda v, f=UNARY[name], j=j: f(v[j]))
        elif kind == "binary":
            name = draw(st.sampled_from(sorted(BINARY)))
            program.add(f"{name}(v{i}, v{j})", lambda v, f=BINARY[name], i=i, j=j: f(v[i], v[j]))
        else:
            name, axis = draw(st.sampled_from(sorted(REDUCED))), draw(st.integers(0, 1))
            program.add(
                f"{name}(v{j}, axis{axis})",
                lambda v, f=REDUCED[name], j=j, a=axis: f(v[j], axis=a, keepdims=True),
            )
    return program


@settings(max_examples=40, deadline=None)
@given(programs(), st.sampled_from([(2, 3), (1, 4), (3, 1)]), st.integers(0, 2**31))
def test_random_expressions(program: Program, size: tuple[int, int], seed: int) -> None:
    n, m = size
    random = np.random.default_rng(seed)
    inputs = [random.uniform(-1, 1, shape) for shape in ((n, m), (1, m), (n, 1))]
    body = "\n".join(program.lines)
    found = run(
        f"""g (double[n, m] v0, double[1, m] v1, double[n, 1] v2) => (double y, double d0, double d1, double d2)
          <int64[1] axis0 = {{0}}, int64[1] axis1 = {{1}}> {{
            {body}
            y = Identity(v{len(program.steps) + 2})
            d0, d1, d2 = {GRADIENT}<xs=["v0", "v1", "v2"], y="y">(v0, v1, v2)
        }}""",
        v0=inputs[0],
        v1=inputs[1],
        v2=inputs[2],
    )
    np.testing.assert_allclose(found["y"], program(inputs), rtol=1e-12, atol=1e-14)
    for index, x in enumerate(inputs):
        step = 1e-6 * random.standard_normal(x.shape)
        ahead, behind = (program([*inputs[:index], x + s, *inputs[index + 1 :]]).sum() for s in (step, -step))
        assert found[f"d{index}"].shape == x.shape
        np.testing.assert_allclose(
            (found[f"d{index}"] * step).sum() * 1e6, (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-6
        )


# ---- refusals ----


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (f'y = Exp(x)\n d = {GRADIENT}<xs=["x"], y="w">(x)', InvalidModelError, "names the value 'w'"),
        (f'y = Exp(x)\n d = {GRADIENT}<xs=["x", "i"], y="y">(x)', InvalidModelError, "an input for each of the 2"),
        (f'y = Exp(x)\n d, e = {GRADIENT}<xs=["x"], y="y">(x)', InvalidModelError, "has 2 outputs"),
        (
            f'h = Exp(x)\n y = Mul(h, x)\n d = {GRADIENT}<xs=["x", "h"], y="y">(x, h)',
            InvalidModelError,
            "computed from it",
        ),
        (
            f'h = Cast<to=11>(i)\n y = Mul(h, x)\n d = {GRADIENT}<xs=["i"], y="y">(i)',
            InvalidModelError,
            "no gradient",
        ),
        (f'y = Det(x)\n d = {GRADIENT}<xs=["x"], y="y">(x)', PlacementError, "Det has no derivative"),
        (f'y = Einsum<equation="ii->i">(x)\n d = {GRADIENT}<xs=["x"], y="y">(x)', PlacementError, "diagonal"),
        (
            "y = If(b) <then_branch = t () => (double[2, 2] r) { r = Exp(x) }, "
            "else_branch = e () => (double[2, 2] r) { r = Neg(x) }>\n"
            f'd = {GRADIENT}<xs=["x"], y="y">(x)',
            PlacementError,
            "If has no derivative",
        ),
    ],
)  # fmt: skip
def test_refusals_name_the_node(body: str, error: type[Exception], said: str) -> None:
    text = HEAD + f"g (double[2, 2] x, int64[2, 2] i, bool b) => (double d) {{ {body} }}"
    with pytest.raises(error, match=said) as caught:
        epkit.load(onnx.parser.parse_model(text))
    assert isinstance(caught.value, epkit.EpkitError)
    assert caught.value.where.node and caught.value.where.stage == "optimise" and caught.value.remedy
