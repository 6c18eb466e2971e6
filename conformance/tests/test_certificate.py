"""A certificate holds for what it was made of, and for nothing else."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epkit.errors import InputError
from epkit_conformance import certificate as certificates
from epkit_conformance import digests, verification
from epkit_conformance.catalogue import all_cases
from epkit_conformance.certificate import PERISHABLE, make_certificate, read_certificate
from epkit_conformance.digests import digest_of, package_files, wheel_files
from epkit_conformance.record import Report
from epkit_conformance.run import Plan, run
from epkit_conformance.verification import check_offline, rerun

Certificate = dict[str, Any]


@pytest.fixture(scope="module")
def report() -> Report:
    """The null provider at level 0 and 1."""
    return run(Plan("null", level=0), all_cases())


@pytest.fixture(scope="module")
def made(report: Report) -> Certificate:
    """Its certificate, as a file would give it back."""
    values: Certificate = json.loads(json.dumps(make_certificate(report, all_cases())))
    return values


def void(certificate: Certificate, **arguments: Any) -> set[str]:
    """What does not hold."""
    found = check_offline(certificate, all_cases(), **arguments)
    return {finding.what for finding in found if finding.holds is False}


def signed(certificate: Certificate) -> Certificate:
    """With the digest that a forger would put in."""
    values = {key: value for key, value in certificate.items() if key != "digest"}
    return {**values, "digest": digest_of(values)}


def test_it_holds_here_and_now(made: Certificate) -> None:
    assert void(made) == set()
    assert made["reached"] == 0
    assert made["provider"]["files"]["epkit/backend/null.py"]


ARITHMETIC = "levels, operators and sets follow from the results"


def raise_level(values: Certificate) -> None:
    values["reached"] = 7


def invent_operators(values: Certificate) -> None:
    values["operators"] = {"Conv": {"22": ["float32"]}}


def invent_sets(values: Certificate) -> None:
    values["operator_sets"] = ["convolution float32"]


def change_counts(values: Certificate) -> None:
    values["levels"][0]["counts"]["passed"] += 1


def drop_a_result(values: Certificate) -> None:
    values["results"]["passed"].pop()


def excuse_silently(values: Certificate) -> None:
    values["results"]["expected failure"] = [values["results"]["passed"].pop()]


def swap_a_file(values: Certificate) -> None:
    values["provider"]["files"]["epkit/backend/null.py"] = "0" * 64


def older_suite(values: Certificate) -> None:
    values["suite"]["digest"] = "0" * 64


def older_core(values: Certificate) -> None:
    values["core"]["digest"] = "0" * 64


def older_corpus(values: Certificate) -> None:
    values["corpus"]["digest"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (raise_level, ARITHMETIC),
        (invent_operators, ARITHMETIC),
        (invent_sets, ARITHMETIC),
        (change_counts, ARITHMETIC),
        (drop_a_result, ARITHMETIC),
        (excuse_silently, ARITHMETIC),
        (swap_a_file, "files of epkit"),
        (older_suite, "suite unchanged"),
        (older_core, "core unchanged"),
        (older_corpus, "corpus unchanged"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_any_change_voids_it(made: Certificate, change: Callable[[Certificate], None], found: str) -> None:
    forged = copy.deepcopy(made)
    change(forged)
    assert void(forged) >= {"digest of the certificate"}
    assert found in void(signed(forged))
    assert "digest of the certificate" not in void(signed(forged))


def digests_in(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where the certificate has digests; of the plugin's many files, the first and the last."""
    if isinstance(value, dict):
        files = path == ("provider", "files")
        keys = [min(value), max(value)] if files else list(value)
        return [place for key in keys for place in digests_in(value[key], (*path, key))]
    return [path] if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else []


def test_every_digest_counts(made: Certificate) -> None:
    found = digests_in(made)
    assert {path[0] for path in found} == {"provider", "suite", "core", "corpus", "digest"}
    assert len(found) == 7  # of the plugin as a whole and two of its files
    for path in found:
        forged = copy.deepcopy(made)
        part: Any = forged
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = "".join("1" if digit == "0" else "0" for digit in part[path[-1]])
        assert void(forged if path == ("digest",) else signed(forged)), path


@pytest.mark.parametrize("package", PERISHABLE)
def test_packages_that_decide_the_data_count(made: Certificate, package: str) -> None:
    forged = copy.deepcopy(made)
    forged["corpus"][package] = "0.1"
    assert f"{package} 0.1" in void(signed(forged))


@pytest.mark.parametrize("part", ["provider", "suite", "corpus", "waivers", "level", "host"])
def test_a_part_that_is_missing_or_of_another_kind_voids_it(made: Certificate, part: str) -> None:
    assert void({key: value for key, value in made.items() if key != part})
    assert void({**made, part: None})


def test_a_plugin_that_changed_voids_it(made: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**made["provider"]["files"], "epkit/new.py": "1"}
    monkeypatch.setattr(verification, "plugin_files", lambda provider: files)
    found = check_offline(made, all_cases())
    (plugin,) = [finding for finding in found if finding.holds is False]
    assert "epkit/new.py" in plugin.detail


@pytest.mark.parametrize("part", ["suite", "core"])
def test_a_suite_or_core_that_changed_voids_it(
    made: Certificate, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, f"{part}_digest", lambda: "other")
    assert void(made) == {f"{part} unchanged"}


def test_a_sample_is_run_again(made: Certificate) -> None:
    (held,) = rerun(made, all_cases(), 3, seed=1)
    assert held.holds is True and "3 of 3" in held.detail
    lying = copy.deepcopy(made)
    lying["results"] = {"passed": ["published/add"]}  # the null provider refuses it
    found = rerun(lying, all_cases(), 3, seed=1)
    assert [finding.holds for finding in found] == [False, False]
    assert "now refused" in found[0].detail


def test_a_part_of_a_run_is_not_certified() -> None:
    part = run(Plan("null", level=0, only=("describe/*",)), all_cases())
    with pytest.raises(InputError, match="only a whole run"):
        make_certificate(part, all_cases())


def test_a_checkout_and_its_wheel_have_one_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "made_plugin"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    (package / "lib" / "kernels.so").write_bytes(b"\x7fELF")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"cache")
    wheel = tmp_path / "made_plugin-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted(package.rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path).as_posix())
        archive.writestr("made_plugin-1.0.dist-info/RECORD", "whatever")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert set(wheel_files(wheel)) == {"made_plugin/__init__.py", "made_plugin/lib/kernels.so"}
    assert package_files("made_plugin") == wheel_files(wheel)
    (package / "lib" / "kernels.so").write_bytes(b"\x7fELf")
    assert package_files("made_plugin") != wheel_files(wheel)
    shutil.rmtree(package)


def test_an_editable_install_has_the_digest_of_its_wheel(tmp_path: Path) -> None:
    package = Path(__file__).parents[2] / "examples" / "epkit-acme"
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=package, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel_files(wheel) == digests.plugin_files("acme")


def test_installed_packages_have_files() -> None:
    assert "epkit_conformance/runner.py" in package_files("epkit_conformance")
    assert digests.plugin_files("cpu")["epkit_cpu/provider.py"]


@pytest.mark.parametrize("text", ["{}", "nonsense", '{"schema": "epkit.conformance.report/1"}'])
def test_what_is_no_certificate_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_certificate(path)
    assert certificates.SCHEMA.endswith("/1")
