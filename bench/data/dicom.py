"""DICOM images, with the optional package pydicom.

Stored values pass the modality transform (rescale slope and intercept, or its table), then the window: the one that
the set declares, else the file's own VOI window (the first, when there are several) or VOI table, else the whole range
that the stored bits can express. MONOCHROME1 (low values are bright) is inverted last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.imaging import Kind, Raster
from bench.errors import DataError


def dicom_kind(file: Path) -> Kind:
    """Channels and depth of a DICOM file, without its pixels.

    Raises:
        DataError: pydicom is missing, or it is no DICOM image.
    """
    header = _opened(file, pixels=False)
    gray = str(header.PhotometricInterpretation).startswith("MONOCHROME")
    return Kind(1 if gray else 3, 16 if int(header.BitsStored) > 8 else 8)


def read_dicom(file: Path, *, window: Sequence[float] = ()) -> Raster:
    """Decode a DICOM image of one frame.

    Args:
        file: the file.
        window: (low, high) after the modality transform (Hounsfield units for CT); empty takes the file's own.

    Returns:
        Values (H, W) or (H, W, 3), and which of them are black and white: ``window`` itself when it is given.

    Raises:
        DataError: pydicom or a decoder is missing, the file is damaged, or it holds several frames.
    """
    content = _opened(file, pixels=True)
    with _named(file):
        from pydicom.pixels import pixel_array

        stored = pixel_array(content)
        if str(content.PhotometricInterpretation).startswith("MONOCHROME"):
            return _gray(content, stored, window)
        return _color(content, stored)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (AttributeError, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError) as e:
        raise DataError(
            f"{file}: its DICOM pixels cannot be decoded ({e}). Replace it, or install the decoder that is named."
        ) from e


def _opened(file: Path, *, pixels: bool) -> Any:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise DataError(
            f'{file} is a DICOM file, and pydicom is not installed. Run pip install "jointbench[dicom]".'
        ) from error
    try:
        content = pydicom.dcmread(file, stop_before_pixels=not pixels)
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{file} is no DICOM file that can be read ({error}). Replace or remove it.") from error
    lacking = [name for name in ("PhotometricInterpretation", "BitsStored", "Rows") if name not in content]
    if lacking:
        raise DataError(f"{file} holds no image (it lacks {', '.join(lacking)}). Remove it from the folder.")
    if int(content.get("NumberOfFrames") or 1) > 1:
        raise DataError(
            f"{file} holds {content.NumberOfFrames} frames, one is needed. Save the frames that matter one per file."
        )
    return content


def _gray(content: Any, stored: NDArray[Any], window: Sequence[float]) -> Raster:
    from pydicom.pixels import apply_modality_lut

    values = np.asarray(apply_modality_lut(stored, content))
    if window:
        raster = Raster(values, window[0], window[1])
    elif "WindowCenter" in content and "WindowWidth" in content:
        raster = _windowed(content, values)
    elif "VOILUTSequence" in content:
        raster = _voi_table(content, values)
    else:
        raster = Raster(values, *_range(content))
    if content.PhotometricInterpretation == "MONOCHROME1":  # the mirror image within the window: the ends stay
        return Raster(raster.low + raster.high - raster.values.astype(np.float64), raster.low, raster.high)
    return raster


def _windowed(content: Any, values: NDArray[Any]) -> Raster:
    """The window of the file (DICOM PS3.3, C.11.2.1.2)."""
    center, width = _first(content.WindowCenter), _first(content.WindowWidth)
    function = str(content.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values.astype(np.float64) - center) / width, -700, 700)
        return Raster(1.0 / (1.0 + np.exp(exponent)), 0.0, 1.0)
    if function == "LINEAR_EXACT":
        return Raster(values, center - width / 2, center + width / 2)
    low = center - width / 2
    return Raster(values, low, max(low + width - 1, low + 1e-6))  # a width of 1 is a threshold


def _voi_table(content: Any, values: NDArray[Any]) -> Raster:
    from pydicom.pixels import apply_voi_lut

    bits = int(content.VOILUTSequence[0].LUTDescriptor[2])
    return Raster(np.asarray(apply_voi_lut(values.astype(np.int64), content)), 0, 2**bits - 1)


def _range(content: Any) -> tuple[float, float]:
    """What the stored bits can express, in the units of the modality transform."""
    if "ModalityLUTSequence" in content:
        return 0, 2 ** int(content.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits = int(content.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if content.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = float(content.get("RescaleSlope", 1)), float(content.get("RescaleIntercept", 0))
    ends = sorted((slope * low + intercept, slope * high + intercept))
    return ends[0], ends[1]


def _color(content: Any, stored: NDArray[Any]) -> Raster:
    """RGB, which pydicom makes of YBR, or the colors of a palette."""
    from pydicom.pixels import apply_color_lut

    if content.PhotometricInterpretation == "PALETTE COLOR":
        colors = np.asarray(apply_color_lut(stored, content))
        return Raster(colors[..., :3], 0, np.iinfo(colors.dtype).max, color=True)
    return Raster(stored, 0, 2 ** int(content.BitsStored) - 1, color=True)


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
