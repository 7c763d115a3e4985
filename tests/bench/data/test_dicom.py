from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.imaging import Form, Kind, kind_of, read_image
from bench.errors import DataError

pydicom = pytest.importorskip("pydicom")

RAMP = np.linspace(0, 4095, 36).astype(np.uint16).reshape(6, 6)
DEEP = Form(size=6, channels=1, depth=16)


def write_dicom(file: Path, pixels: Any = RAMP, *, bits: int = 12, **fields: Any) -> Path:
    """A file of uncompressed pixels, with further fields by keyword."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    content = pydicom.Dataset()
    content.file_meta = meta
    content.Rows, content.Columns = pixels.shape[:2]
    content.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    content.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        content.PlanarConfiguration = 0
    content.BitsAllocated, content.BitsStored, content.HighBit = 8 * pixels.itemsize, bits, bits - 1
    content.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in fields.items():
        setattr(content, name, value)
    content.PixelData = pixels.tobytes()
    content.save_as(file, enforce_file_format=True)
    return file


def stretched(values: Any, low: float, high: float) -> list[list[int]]:
    """The definition: from low to high to the range of 16 bits, clipped and rounded."""
    return np.rint(np.clip((np.asarray(values, float) - low) / (high - low), 0, 1) * 65535).astype(int).tolist()


def test_without_a_window_the_stored_bits_are_the_full_range(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm")
    assert kind_of(file) == Kind(1, 16)
    assert np.allclose(read_image(file, DEEP)[..., 0], stretched(RAMP, 0, 4095), atol=1)


def test_hounsfield_units_come_before_the_declared_window(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    pixels = read_image(file, Form(size=6, channels=1, depth=16, window=(-100, 300)))
    assert np.allclose(pixels[..., 0], stretched(RAMP * 2.0 - 1024, -100, 300), atol=1)


@pytest.mark.parametrize(("function", "low", "high"), [("LINEAR", 840, 2839), ("LINEAR_EXACT", 840, 2840)])
def test_the_files_own_window_is_the_default(tmp_path: Path, function: str, low: float, high: float) -> None:
    fields = {"WindowCenter": [1840, 7], "WindowWidth": [2000, 9], "VOILUTFunction": function}
    file = write_dicom(tmp_path / "a.dcm", RAMP, **fields)
    assert np.allclose(read_image(file, DEEP)[..., 0], stretched(RAMP, low, high), atol=1)


def test_a_sigmoid_window_is_computed(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    expected = 65535 / (1 + np.exp(-4 * (RAMP.astype(float) - 2000) / 1000))
    assert np.allclose(read_image(file, DEEP)[..., 0], expected, atol=1)


def test_a_voi_table_is_applied(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (65535 - 16 * np.arange(4096)).astype(np.uint16).tobytes()
    file = write_dicom(tmp_path / "a.dcm", VOILUTSequence=[table])
    assert np.allclose(read_image(file, DEEP)[..., 0], 65535 - 16 * RAMP.astype(int), atol=1)


@pytest.mark.parametrize("fields", [{}, {"WindowCenter": 1000, "WindowWidth": 500}])
def test_monochrome1_is_inverted(tmp_path: Path, fields: dict[str, Any]) -> None:
    plain = read_image(write_dicom(tmp_path / "a.dcm", **fields), DEEP).astype(int)
    bright = write_dicom(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **fields)
    assert np.abs(read_image(bright, DEEP).astype(int) - (65535 - plain)).max() <= 1


def test_signed_pixels_have_a_signed_range(tmp_path: Path) -> None:
    values = np.array([[-2048, -1, 0, 1, 1000, 2047]] * 6, dtype=np.int16)
    file = write_dicom(tmp_path / "a.dcm", values)
    assert np.allclose(read_image(file, DEEP)[..., 0], stretched(values, -2048, 2047), atol=1)


def test_color_stays_color_or_becomes_gray(tmp_path: Path) -> None:
    pixels = np.zeros((6, 6, 3), dtype=np.uint8)
    pixels[..., 0] = 200
    file = write_dicom(tmp_path / "a.dcm", pixels, bits=8)
    assert kind_of(file) == Kind(3, 8)
    assert read_image(file, Form(size=6, channels=3)).tolist() == pixels.tolist()
    assert read_image(file, Form(size=6, channels=1))[0, 0, 0] == 60  # 0.299 · 200


def test_frames_are_refused(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "cine.dcm", NumberOfFrames=3)
    with pytest.raises(DataError, match=r"cine.dcm holds 3 frames, one is needed\. Save"):
        kind_of(file)


def test_a_file_without_pixels_is_refused(tmp_path: Path) -> None:
    report = pydicom.dcmread(write_dicom(tmp_path / "a.dcm"))
    del report.PixelData, report.Rows
    report.save_as(tmp_path / "report.dcm")
    with pytest.raises(DataError, match=r"report.dcm holds no image \(it lacks Rows\)\. Remove it"):
        read_image(tmp_path / "report.dcm", DEEP)


def test_missing_pixels_are_named(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "short.dcm")
    content = pydicom.dcmread(file)
    content.PixelData = content.PixelData[:20]
    content.save_as(file)
    with pytest.raises(DataError, match=r"short.dcm: its DICOM pixels cannot be decoded"):
        read_image(file, DEEP)


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for read in (lambda: kind_of(file), lambda: read_image(file, DEEP)):
        with pytest.raises(DataError, match=r'pydicom is not installed\. Run pip install "jointbench\[dicom\]"'):
            read()
