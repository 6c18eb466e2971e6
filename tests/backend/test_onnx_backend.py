"""ONNX's own backend tests, by ONNX's own unmodified runner.

All published cases run here, but for those in ``NOT_HERE``: no backend can pass these by comparing numbers.
They are compared in test_onnx_backend_rest.py.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest

import epkit
from epkit.compat.onnx_backend import EpkitBackend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the cases themselves overflow while they are generated
    from onnx.backend.test import BackendTest
    from onnx.backend.test.loader import load_model_tests

    suite = BackendTest(EpkitBackend, __name__)

RANDOM = "its output is random by specification"
NOT_HERE = {
    "test_bernoulli": RANDOM,
    "test_bernoulli_double": RANDOM,
    "test_bernoulli_double_expanded": RANDOM,
    "test_bernoulli_expanded": RANDOM,
    "test_bernoulli_seed": RANDOM,
    "test_bernoulli_seed_expanded": RANDOM,
    "test_loop16_seq_none": "the runner takes len() of the scalar in the published sequence, which raises",
}


def selected() -> dict[str, type]:
    """The runner's test classes, without the tests that would be skipped or cannot pass."""
    groups = dict(suite.test_cases)
    for group in groups.values():
        for name in [name for name in vars(group) if name.startswith("test_")]:
            # The runner makes each test for CUDA too; EpkitBackend knows the device CPU.
            if not name.endswith("_cpu") or name.removesuffix("_cpu") in NOT_HERE:
                delattr(group, name)
    return groups


groups = selected()
globals().update(groups)


@pytest.fixture(autouse=True, scope="module")
def light_models_in_a_folder_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Where the runner puts the data that it makes for the nine light models; else it is the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_MODELS", str(tmp_path_factory.mktemp("models")))
        yield


PUBLISHED = {"node": 1884, "real": 9, "simple": 23, "pytorch-converted": 82, "pytorch-operator": 35}


def test_every_published_case_is_run_or_named() -> None:
    """2,033 cases: no other is left out, none is downloaded, and none can be passed by raising."""
    cases = {case.name: case for kind in PUBLISHED for case in load_model_tests(kind=kind)}
    counts = Counter(case.kind for case in cases.values())
    assert counts == PUBLISHED and len(cases) == 2033, "the installed onnx publishes other cases"
    assert all(
        case.url is None or case.url.startswith("onnx/backend/test/data/light/") for case in cases.values()
    )
    run = {name for group in groups.values() for name in vars(group) if name.startswith("test_")}
    assert run | {f"{name}_cpu" for name in NOT_HERE} == {f"{name}_cpu" for name in cases}
    sources = [path.read_text("utf-8") for path in Path(epkit.__file__).parent.rglob("*.py")]
    assert not any("BackendIsNotSupposedToImplementIt" in source for source in sources)
