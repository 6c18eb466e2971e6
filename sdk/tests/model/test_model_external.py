"""External data: only from the model's folder, only regular files, only what the file really holds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from model_samples import point_to, save_external, with_weights

from epkit.errors import ExternalDataError, UnsafeModelError
from epkit.model.read import read

ARRAY = np.arange(2000, dtype=np.float32).reshape(40, 50)
MODEL = with_weights({"w": ARRAY})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(ARRAY.tobytes())
    return save_external(MODEL, folder)


def weight(path: Path) -> np.ndarray:
    return read(path).model.graph.initializers["w"].const_value.numpy()


@pytest.mark.parametrize(
    "location",
    [
        "",
        ".",
        "./",
        "../secret.bin",
        "sub/../../secret.bin",
        "sub/../weights.bin",
        "/etc/passwd",
        "//server/share/x",
        "C:/x.bin",
        "C:x.bin",
        "c:\\x.bin",
        "\\\\server\\share\\x.bin",
        "..\\secret.bin",
        "sub\\weights.bin",
        "weights.bin\0.txt",
        "weights.bin/",
    ],
)
def test_locations_that_are_refused_by_their_text(path: Path, location: str) -> None:
    point_to(path, location=location)
    with pytest.raises(UnsafeModelError, match="location") as error:
        read(path)
    assert error.value.where.value == "w" and error.value.remedy


@pytest.mark.parametrize("location", ["%2e%2e/secret.bin", "~/x", "$HOME/x", "WEIGHTS.BIN", "weights.bin "])
def test_nothing_is_expanded(path: Path, location: str) -> None:
    point_to(path, location=location)
    with pytest.raises(ExternalDataError, match="missing") as error:
        read(path)
    assert location in str(error.value) and error.value.where.value == "w"


def test_links_that_lead_out_are_refused(path: Path) -> None:
    outside = path.parent.parent
    (path.parent / "link.bin").symlink_to(outside / "secret.bin")
    (path.parent / "folder").symlink_to(outside)
    for location in ("link.bin", "folder/secret.bin"):
        point_to(path, location=location)
        with pytest.raises(UnsafeModelError, match="leads through a link"):
            read(path)


def test_links_that_stay_inside_are_followed(path: Path) -> None:
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "real.bin").write_bytes((path.parent / "weights.bin").read_bytes())
    (path.parent / "link.bin").symlink_to("sub/real.bin")
    (path.parent / "folder").symlink_to("sub")
    for location in ("link.bin", "folder/real.bin", "./sub/real.bin"):
        point_to(path, location=location)
        np.testing.assert_array_equal(weight(path), ARRAY)


def test_a_cache_of_links_as_huggingface_keeps_it(path: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name in ("model.onnx", "weights.bin"):
        (blobs / f"blob-{name}").write_bytes((path.parent / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/blob-{name}")
    np.testing.assert_array_equal(weight(snapshot / "model.onnx"), ARRAY)


def test_a_linked_model_folder(path: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(path.parent)
    np.testing.assert_array_equal(weight(tmp_path / "alias" / "model.onnx"), ARRAY)


def test_hard_links_are_allowed(path: Path) -> None:
    os.link(path.parent / "weights.bin", path.parent / "hard.bin")
    point_to(path, location="hard.bin")
    np.testing.assert_array_equal(weight(path), ARRAY)


def test_special_files_are_refused_without_hanging(path: Path) -> None:
    os.mkfifo(path.parent / "pipe")
    (path.parent / "folder").mkdir()
    (path.parent / "device").symlink_to("/dev/zero")
    for location, said in (("pipe", "pipe"), ("folder", "folder"), ("device", "device")):
        point_to(path, location=location)
        with pytest.raises(UnsafeModelError, match=said):
            read(path)


def test_missing_and_unreadable_files(path: Path) -> None:
    data = path.parent / "weights.bin"
    if os.geteuid() != 0:
        data.chmod(0)
        with pytest.raises(ExternalDataError, match="cannot be read"):
            read(path)
    data.unlink()
    with pytest.raises(ExternalDataError, match="missing") as error:
        read(path)
    assert str(data) in str(error.value)
    point_to(path, location="weights.bin/x")
    data.write_bytes(b"")
    with pytest.raises(ExternalDataError, match="cannot be read"):
        read(path)
    point_to(path, location="x" * 5000)
    with pytest.raises(ExternalDataError, match="cannot be read"):
        read(path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"offset": "8"}, "end too early"),
        ({"offset": "9223372036854775807"}, "end too early"),
        ({"offset": "-1"}, "offset"),
        ({"offset": "1e3"}, "offset"),
        ({"offset": "٣"}, "offset"),
        ({"length": "7999"}, "needs 8,000"),
        ({"length": "8001"}, "needs 8,000"),
        ({"length": "99999999999999999999999"}, "length"),
    ],
)
def test_offset_and_length_are_checked(path: Path, entries: dict[str, str], said: str) -> None:
    point_to(path, **entries)
    with pytest.raises(ExternalDataError, match=said) as error:
        read(path)
    assert error.value.where.file == "weights.bin" or "offset" in said or "length" in said


def test_offset_need_not_be_aligned_and_length_may_be_left_out(path: Path) -> None:
    data = path.parent / "weights.bin"
    data.write_bytes(b"xyz" + ARRAY.tobytes() + b"rest")
    point_to(path, offset="3", length="")
    found = weight(path)
    np.testing.assert_array_equal(found, ARRAY)
    assert not found.flags.aligned


def test_sources_without_a_folder_need_one(path: Path) -> None:
    data = path.read_bytes()
    for source in (data, onnx.load(path, load_external_data=False)):
        with pytest.raises(ExternalDataError, match="without a folder") as error:
            read(source)
        assert "base_dir" in error.value.remedy
        model = read(source, base_dir=path.parent).model
        np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), ARRAY)


def test_base_dir_is_the_boundary(path: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ExternalDataError, match="missing"):
        read(path, base_dir=empty)
    (empty / "weights.bin").symlink_to(path.parent / "weights.bin")
    with pytest.raises(UnsafeModelError, match="leads through a link"):
        read(path, base_dir=empty)


def test_one_map_for_all_tensors_of_a_file(tmp_path: Path) -> None:
    arrays = {f"w{i}": ARRAY + i for i in range(20)}
    path = save_external(with_weights(arrays), tmp_path)
    model = read(path).model
    if os.path.exists("/proc/self/maps"):
        assert Path("/proc/self/maps").read_text().count(str(tmp_path / "weights.bin")) == 1
    for name, array in arrays.items():
        np.testing.assert_array_equal(model.graph.initializers[name].const_value.numpy(), array)


def test_data_beyond_two_gigabytes(tmp_path: Path) -> None:
    path = save_external(MODEL, tmp_path)
    data, offset = tmp_path / "weights.bin", (5 << 30) + 4096
    with open(data, "wb") as file:  # sparse: takes no room on the disk
        file.seek(offset)
        file.write(ARRAY.tobytes())
    point_to(path, offset=str(offset))
    np.testing.assert_array_equal(weight(path), ARRAY)
