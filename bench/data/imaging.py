"""One image file, decoded to a square of fixed size, channels and depth.

What happens to a file, in this order:

1. EXIF orientation is honored; an animation gives its first frame, a TIFF of several pages one channel for each page.
2. Alpha is composited on black: what a viewer shows, not the arbitrary colors below transparent pixels.
3. Palettes, CMYK, YCbCr and 1-bit images become gray or RGB, 8 bits. 16-bit gray keeps its 16 bits; of 16-bit color
   Pillow decodes the upper 8. Floating-point and 32-bit pixels are refused: they have no full range.
4. ``window`` (low, high), in the file's raw units, is mapped to the full range and clipped. Without it the full range
   of the file's type is kept: a 12-bit image in 16-bit pixels stays dark until the window (0, 4095) is declared.
5. The shorter side is resized, antialiased bilinear, and the central square cut out.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import FULL_SCALE, Pixels
from bench.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

DICOM_SUFFIXES = (".dcm", ".dicom")
TIFF_SUFFIXES = (".tif", ".tiff")
EIGHT_BIT_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".webp")
"""Formats without 16-bit pixels: their files need not be opened to know the depth."""
SUFFIXES = tuple(sorted((*DICOM_SUFFIXES, *TIFF_SUFFIXES, *EIGHT_BIT_SUFFIXES, ".pgm", ".png", ".ppm")))
GRAY_MODES = frozenset({"1", "L", "LA", "La"})
EIGHT_BIT_MODES = GRAY_MODES | {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
SAMPLES_PER_PIXEL = 277
"""The TIFF tag that counts the bands of a page."""
MOST_PILLOW_BANDS = 4
ORIENTATION = 274
"""The EXIF tag that says how the stored pixels are to be turned."""
SIDEWAYS = (5, 6, 7, 8)
"""Its values that exchange width and height."""

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Form:
    """What every image of a set is decoded to.

    Attributes:
        size: height and width in pixels.
        channels: 1 (gray), 3 (RGB), or the number of bands or pages that every file has.
        depth: 8 or 16 bits; an 8-bit file in a 16-bit set is stretched to the full range.
        window: (low, high) in raw units of the files, or empty.
    """

    size: int
    channels: int
    depth: int = 8
    window: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1 or self.channels < 1:
            raise DataError(
                f"image_size must be positive and channels 1 or more, got {self.size} and {self.channels}. Change them."
            )
        check_window(self.window)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(np.uint8 if self.depth == 8 else np.uint16)


@dataclass(frozen=True)
class Kind:
    """What a file holds, as far as its header says: how many channels, of how many bits."""

    channels: int
    depth: int


@dataclass(frozen=True)
class Raster:
    """Decoded pixels (H, W) or (H, W, C) of any real type, and the values that stand for black and white.

    ``color`` says that three channels are red, green and blue, of which a gray value can be made.
    """

    values: NDArray[Any]
    low: float
    high: float
    color: bool = False


def check_window(window: Sequence[float]) -> None:
    """Refuse a window that is neither empty nor an increasing pair.

    Raises:
        DataError: with the value.
    """
    if len(window) not in (0, 2) or (len(window) == 2 and not window[0] < window[1]):
        raise DataError(f"window must be empty or (low, high) with low below high, got {tuple(window)}. Change it.")


def read_image(file: Path, form: Form) -> Pixels:
    """Decode one file: (size, size, channels), uint8 or uint16.

    Raises:
        DataError: it cannot be decoded, or its pixels do not fit the form; the message names the file.
    """
    if file.suffix.lower() in DICOM_SUFFIXES:
        from bench.data.dicom import read_dicom

        return _from_raster(read_dicom(file, window=form.window), form, str(file))
    return _decode(file, form, str(file))


def decode_image(content: bytes, form: Form, *, name: str) -> Pixels:
    """The same for the bytes of an encoded image, which errors call ``name``."""
    return _decode(io.BytesIO(content), form, name)


def kind_of(file: Path) -> Kind:
    """Channels and depth of a file, from its header.

    Raises:
        DataError: it is no image that can be decoded, or its pixels are of a type that has no full range.
    """
    if file.suffix.lower() in DICOM_SUFFIXES:
        from bench.data.dicom import dicom_kind

        return dicom_kind(file)
    return _kind(file, str(file))


def kind_of_bytes(content: bytes, *, name: str) -> Kind:
    """The same for the bytes of an encoded image."""
    return _kind(io.BytesIO(content), name)


def read_scene(file: Path, channels: int, size: Size | None = None) -> NDArray[np.uint8]:
    """A file at its own size: (H, W, channels) uint8.

    It is turned upright as its EXIF orientation says, like all images; unless only the stored pixels have the size that
    the annotation tells: then its boxes were drawn on these, and they stay as they are.

    Args:
        file: the image.
        channels: 1 (gray) or 3 (RGB).
        size: (height, width) that the annotation tells; None where nothing does.

    Raises:
        DataError: it cannot be decoded, has more than 8 bits, or another size; the message names the file.
    """
    from PIL import Image, ImageOps

    with _named(str(file)), Image.open(file) as opened:
        if _depth(opened, str(file)) != 8:
            raise DataError(f"{file} has 16 bits; scenes with objects are read with 8. Convert it with its window.")
        image = ImageOps.exif_transpose(opened)
        if size is not None and image.size[::-1] != tuple(size):
            if opened.size[::-1] != tuple(size):
                raise other_size(file, opened.size[::-1], size)
            image = opened
        flat = _without_alpha(image, channels, str(file))
        return np.asarray(flat, dtype=np.uint8).reshape(*flat.size[::-1], channels)


def scene_size(file: Path, told: Size | None = None) -> Size:
    """(height, width) of a scene from its header: what the annotation tells, when stored or upright pixels have it.

    Raises:
        DataError: neither has it, or the file is no image; the message names the file.
    """
    from PIL import Image

    with _named(str(file)), Image.open(file) as opened:
        width, height = opened.size
        if told == (height, width):
            return told  # the orientation of a PNG is not asked for: that decodes it
        upright = (width, height) if opened.getexif().get(ORIENTATION, 1) in SIDEWAYS else (height, width)
    if told not in (None, upright):
        raise other_size(file, (height, width), told)
    return upright


def other_size(file: Path, found: Size, told: Size) -> DataError:
    """The error for an image that is not the one that was annotated."""
    return DataError(
        f"{file} has {found[1]}×{found[0]} pixels, its annotation says {told[1]}×{told[0]}. Bring back the image that "
        "was annotated, or scale size and boxes of the annotation."
    )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What Pillow raises for a damaged file becomes an error that names the file."""
    from PIL import Image, UnidentifiedImageError  # lazily: a warm cache does not need it

    try:
        yield
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is no image that can be decoded. Replace or remove it.") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is truncated or damaged ({error}). Replace or remove it.") from error


def _decode(source: Path | io.BytesIO, form: Form, name: str) -> Pixels:
    from PIL import Image

    if _many_bands(source, name):
        from bench.data.tiff import read_tiff

        return _from_raster(read_tiff(source, name), form, name)
    with _named(name), Image.open(source) as opened:
        pages = _pages(opened)
        if pages > 1:
            return _from_raster(_stack(opened, pages, name), form, name)
        if _depth(opened, name) == 16:
            return _from_raster(_sixteen(opened), form, name)
        image = _eight_bit(opened, form.channels, name)
        if form.depth == 8 and not form.window:
            resized = _resized(image, form.size)
            return np.asarray(resized, dtype=np.uint8).reshape(form.size, form.size, form.channels)
        return _from_raster(Raster(np.asarray(image), 0, 255), form, name)


def _kind(source: Path | io.BytesIO, name: str) -> Kind:
    from PIL import Image

    if _many_bands(source, name):
        from bench.data.tiff import tiff_kind

        return tiff_kind(source, name)
    with _named(name), Image.open(source) as image:
        pages, depth = _pages(image), _depth(image, name)
        if pages > 1:
            return Kind(pages, depth)
        gray = depth == 16 or image.mode in GRAY_MODES or (image.mode in ("P", "PA") and _gray_palette(image))
        return Kind(1 if gray else 3, depth)


def _many_bands(source: Path | io.BytesIO, name: str) -> bool:
    """Whether it is a TIFF whose pages have other bands than Pillow decodes."""
    from PIL import Image, UnidentifiedImageError

    if not name.lower().endswith(TIFF_SUFFIXES):
        return False
    try:
        with Image.open(source) as image:
            return bool(getattr(image, "tag_v2", {}).get(SAMPLES_PER_PIXEL, 1) > MOST_PILLOW_BANDS)
    except UnidentifiedImageError:
        from bench.data.tiff import is_tiff

        return is_tiff(source)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return False  # damaged: decoding names the reason


def _pages(image: Image) -> int:
    return int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1


def _depth(image: Image, name: str) -> int:
    """8 or 16 bits.

    Raises:
        DataError: the pixels are floating-point numbers or 32-bit.
    """
    if image.mode in EIGHT_BIT_MODES:
        return 8
    if image.mode in SIXTEEN_BIT_MODES or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 16  # older versions of Pillow hold 16-bit PNG and PGM in 32 bits
    raise DataError(
        f"{name}: pixels of type {image.mode!r} have no full range; unsigned 8 or 16 bits are needed. Convert the "
        "image to 16 bits first, with the intensity window that matters."
    )


def _gray_palette(image: Image) -> bool:
    entries = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    return bool((entries == entries[:, :1]).all())


def _sixteen(opened: Image) -> Raster:
    from PIL import ImageOps

    return Raster(np.asarray(ImageOps.exif_transpose(opened)), 0, 65535)


def _stack(opened: Image, pages: int, name: str) -> Raster:
    """The pages of a TIFF as channels: (H, W, pages)."""
    layers = []
    for page in range(pages):
        opened.seek(page)
        deep = _depth(opened, name) == 16
        if not deep and opened.mode not in GRAY_MODES:
            raise DataError(
                f"{name}: page {page + 1} of {pages} is in color ({opened.mode}); the pages of a TIFF are read as "
                "channels and must be gray. Save one image per file."
            )
        layers.append(np.asarray(opened if deep else opened.convert("L")))
    if len({(layer.shape, layer.dtype) for layer in layers}) > 1:
        raise DataError(f"{name}: its {pages} pages differ in size or depth. Save pages that are alike.")
    return Raster(np.stack(layers, axis=-1), 0, 255 if layers[0].dtype == np.uint8 else 65535)


def _eight_bit(opened: Image, channels: int, name: str) -> Image:
    """Upright, without alpha, gray or RGB; for another number of channels the bands as they are."""
    from PIL import ImageOps

    return _without_alpha(ImageOps.exif_transpose(opened), channels, name)


def _without_alpha(image: Image, channels: int, name: str) -> Image:
    from PIL import Image

    if channels not in (1, 3):
        if len(image.getbands()) != channels:
            raise _wrong_channels(name, len(image.getbands()), channels)
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("L" if channels == 1 else "RGB")


def _wrong_channels(name: str, found: int, wanted: int) -> DataError:
    return DataError(
        f"{name} has {found} channels, {wanted} are needed. Set channels to 0 to find their number, or remove the file."
    )


def _resized(image: Image, size: int) -> Image:
    """Shorter side to ``size``, antialiased bilinear, then the central square."""
    from PIL.Image import Resampling

    width, height = image.size
    scale = size / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    if (wide, high) != (width, height):
        image = image.resize((wide, high), Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return image.crop((left, top, left + size, top + size))


def _from_raster(raster: Raster, form: Form, name: str) -> Pixels:
    """Window, resize and round; one plane at a time, in float32, which Pillow resizes at any depth."""
    from PIL import Image

    planes = raster.values if raster.values.ndim == 3 else raster.values[..., None]
    if raster.color and form.channels == 1:
        planes = planes @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601 luma, as Pillow's L
        planes = planes[..., None]
    if planes.shape[-1] not in (1, form.channels) or (planes.shape[-1] == 1 and form.channels not in (1, 3)):
        raise _wrong_channels(name, planes.shape[-1], form.channels)
    low, high = form.window or (raster.low, raster.high)
    full = FULL_SCALE[form.dtype]
    levels = np.clip((planes.astype(np.float32) - low) / (high - low), 0, 1) * full
    squares = [
        np.asarray(_resized(Image.fromarray(np.ascontiguousarray(levels[..., c])), form.size))
        for c in range(levels.shape[-1])
    ]
    stacked = np.stack(squares * (form.channels // len(squares)), axis=-1)
    rounded: Pixels = np.clip(np.rint(stacked), 0, full).astype(form.dtype)
    return rounded
