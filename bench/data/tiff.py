"""TIFF with more bands than color has, with the optional package tifffile: Pillow decodes at most four.

Several gray pages need no further package: :mod:`bench.data.imaging` reads them as channels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.dataset import FULL_SCALE
from bench.data.imaging import Kind, Raster
from bench.errors import DataError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(source: Path | io.BytesIO) -> bool:
    """Whether the content starts like a TIFF or BigTIFF."""
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:4] in SIGNATURES
    with source.open("rb") as file:
        return file.read(4) in SIGNATURES


def tiff_kind(source: Path | io.BytesIO, name: str) -> Kind:
    """Bands and depth, without the pixels.

    Raises:
        DataError: tifffile is missing, or the pixels are not unsigned 8 or 16 bits.
    """
    with _series(source, name) as content:
        series = content.series[0]
        _check(series, name)
        return Kind(
            int(np.prod(series.shape)) // (_length(series, "Y") * _length(series, "X")), 8 * series.dtype.itemsize
        )


def read_tiff(source: Path | io.BytesIO, name: str) -> Raster:
    """All bands: (H, W, C), uint8 or uint16.

    Raises:
        DataError: tifffile or a decompressor is missing, the file is damaged, or of another type.
    """
    with _series(source, name) as content:
        series = content.series[0]
        _check(series, name)
        try:
            values = series.asarray()
        except Exception as error:  # tifffile's decoders raise whatever their libraries do
            raise DataError(
                f"{name} is truncated, damaged or compressed in a way that needs a further package "
                f"({error}). Replace it, or save it uncompressed."
            ) from error
        order = [axis for axis in range(values.ndim) if series.axes[axis] not in "YX"]
        upright = values.transpose(series.axes.index("Y"), series.axes.index("X"), *order)
        return Raster(upright.reshape(*upright.shape[:2], -1), 0, FULL_SCALE[series.dtype])


def _series(source: Path | io.BytesIO, name: str) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise DataError(
            f"{name} has more bands than Pillow decodes, and tifffile is not installed. Run pip install "
            '"jointbench[tiff]", or save the bands as pages.'
        ) from error
    try:
        return tifffile.TiffFile(source)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        raise DataError(f"{name} is truncated or damaged ({error}). Replace or remove it.") from error


def _check(series: Any, name: str) -> None:
    if "Y" not in series.axes or "X" not in series.axes or series.dtype not in FULL_SCALE:
        raise DataError(
            f"{name}: axes {series.axes} of type {series.dtype}; an image of unsigned 8 or 16 bits is needed. "
            "Convert it."
        )


def _length(series: Any, axis: str) -> int:
    return int(series.shape[series.axes.index(axis)])
