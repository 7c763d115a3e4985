from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.imaging import Form, Kind, decode_image, kind_of, read_image
from bench.errors import DataError

from .tiny import write_image

GRAY, COLOR = Form(size=6, channels=1), Form(size=6, channels=3)
DEEP = Form(size=6, channels=1, depth=16)


def test_the_shorter_side_is_resized_and_the_center_is_cut_out(tmp_path: Path) -> None:
    pixels = np.zeros((10, 40), dtype=np.uint8)
    pixels[:, 15:25] = 200  # the central square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    square = read_image(tmp_path / "wide.png", Form(size=10, channels=1))
    assert square.tolist() == np.full((10, 10, 1), 200).tolist()
    Image.fromarray(pixels.T.copy()).save(tmp_path / "tall.png")
    small = read_image(tmp_path / "tall.png", Form(size=5, channels=3))
    assert small.shape == (5, 5, 3)
    assert small[1:-1].tolist() == np.full((3, 5, 3), 200).tolist()


def test_an_image_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    pixels = write_image(tmp_path / "a.png", size=(9, 9))
    assert read_image(tmp_path / "a.png", Form(size=9, channels=3)).tolist() == pixels.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shrinking_averages_instead_of_skipping_pixels(tmp_path: Path, dtype: type) -> None:
    full = np.iinfo(dtype).max
    board = (np.indices((64, 64)).sum(0) % 2 * full).astype(dtype)
    Image.fromarray(board).save(tmp_path / "board.png")
    shrunk = read_image(tmp_path / "board.png", Form(size=8, channels=1, depth=8 * board.itemsize))
    assert shrunk.dtype == dtype
    assert np.abs(shrunk.astype(int) - full // 2).max() < full / 25


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_eight_bit_mode_becomes_gray_or_color(tmp_path: Path, mode: str, channels: int) -> None:
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (6, 6), (255, 255, 255)).convert(mode).save(file)
    white = read_image(file, Form(size=6, channels=channels))
    assert white.tolist() == np.full((6, 6, channels), 255).tolist()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_composited_on_black(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (6, 6), 0)
        image.putpalette([200, 200, 200])
        image.info["transparency"] = bytes([51])
    else:
        image = Image.new(mode, (6, 6), (200, 51) if mode == "LA" else (200, 200, 200, 51))
    image.save(tmp_path / "a.png")
    assert set(read_image(tmp_path / "a.png", GRAY).ravel().tolist()) == {40}  # 200 · 51/255
    assert set(read_image(tmp_path / "a.png", COLOR).ravel().tolist()) == {40}


@pytest.mark.parametrize("name", ["scan.png", "scan.tif", "big.tif", "scan.pgm"])
def test_sixteen_bits_stay(tmp_path: Path, name: str) -> None:
    stored = np.arange(36, dtype=np.uint16).reshape(6, 6) * 1500 + 7
    if name == "scan.pgm":
        (tmp_path / name).write_bytes(b"P5 6 6 65535 " + stored.astype(">u2").tobytes())
    else:
        Image.fromarray(stored.astype(">u2") if name == "big.tif" else stored).save(tmp_path / name)
    assert kind_of(tmp_path / name) == Kind(1, 16)
    assert read_image(tmp_path / name, DEEP)[..., 0].tolist() == stored.tolist()
    shallow = read_image(tmp_path / name, GRAY)[..., 0]
    assert shallow.tolist() == np.rint(stored / 257).astype(int).tolist()


def test_a_window_is_mapped_to_the_full_range_and_clipped(tmp_path: Path) -> None:
    stored = np.array([[0, 1000, 2000, 3000, 4095, 60_000]] * 6, dtype=np.uint16)
    Image.fromarray(stored).save(tmp_path / "scan.png")
    pixels = read_image(tmp_path / "scan.png", Form(size=6, channels=1, depth=16, window=(1000, 3000)))
    assert pixels[0, :, 0].tolist() == [0, 0, 32768, 65535, 65535, 65535]


def test_the_window_comes_before_shrinking(tmp_path: Path) -> None:
    stored = np.zeros((12, 12), dtype=np.uint16)
    stored[::2] = 60_000  # far above the window: it counts as white, not as sixty times white
    Image.fromarray(stored).save(tmp_path / "metal.png")
    shrunk = read_image(tmp_path / "metal.png", Form(size=1, channels=1, depth=16, window=(0, 1000)))
    assert abs(int(shrunk[0, 0, 0]) - 32768) < 700


def test_exif_orientation_is_honored(tmp_path: Path) -> None:
    pixels = np.zeros((6, 6, 3), dtype=np.uint8)
    pixels[0] = 255  # a white top row
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: the top becomes the right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png", GRAY)[..., 0]
    assert upright[:, -1].tolist() == [255] * 6 and upright[:, :-1].max() == 0


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_pixels_without_a_full_range_are_refused_with_what_to_do(tmp_path: Path, dtype: type, mode: str) -> None:
    Image.fromarray(np.ones((6, 6), dtype=dtype)).save(tmp_path / "scan.tif")
    for read in (lambda: kind_of(tmp_path / "scan.tif"), lambda: read_image(tmp_path / "scan.tif", GRAY)):
        with pytest.raises(DataError, match=rf"scan.tif: pixels of type '{mode}' have no full range.*Convert the"):
            read()


def test_the_pages_of_a_tiff_are_channels(tmp_path: Path) -> None:
    pages = [np.full((6, 6), 10 * page, dtype=np.uint8) for page in range(5)]
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    assert kind_of(tmp_path / "stack.tif") == Kind(5, 8)
    assert read_image(tmp_path / "stack.tif", Form(size=6, channels=5))[3, 3].tolist() == [0, 10, 20, 30, 40]
    with pytest.raises(DataError, match=r"stack.tif has 5 channels, 3 are needed\. Set channels to 0"):
        read_image(tmp_path / "stack.tif", COLOR)


def test_color_pages_are_refused(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (6, 6)) for _ in range(2))
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=r"stack.tif: page 1 of 2 is in color \(RGB\).* Save one image per file"):
        read_image(tmp_path / "stack.tif", Form(size=6, channels=2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_many_bands_needs_the_extra_and_is_read_with_it(
    tmp_path: Path, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    bands = np.random.default_rng(0).integers(0, 200, (6, 6, 7)).astype(dtype)
    for name, planes in (("mixed.tif", "contig"), ("planes.tif", "separate")):
        data = bands if planes == "contig" else bands.transpose(2, 0, 1)
        tifffile.imwrite(tmp_path / name, data, planarconfig=planes, photometric="minisblack")
        assert kind_of(tmp_path / name) == Kind(7, 8 * np.dtype(dtype).itemsize)
        form = Form(size=6, channels=7, depth=8 * np.dtype(dtype).itemsize)
        assert read_image(tmp_path / name, form).tolist() == bands.tolist()
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(DataError, match=r'mixed.tif .* pip install "jointbench\[tiff\]"'):
        kind_of(tmp_path / "mixed.tif")


@pytest.mark.parametrize(
    ("mode", "kind"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)]
)
def test_the_header_tells_gray_from_color(tmp_path: Path, mode: str, kind: int) -> None:
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (6, 6), (255, 0, 0)).convert(mode).save(file)
    assert kind_of(file) == Kind(kind, 8)


def test_a_palette_of_grays_is_gray(tmp_path: Path) -> None:
    Image.new("L", (6, 6), 7).convert("P").save(tmp_path / "a.gif")
    assert kind_of(tmp_path / "a.gif") == Kind(1, 8)


def test_encoded_bytes_are_decoded_like_a_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert decode_image(content, GRAY, name="row 3").tolist() == read_image(tmp_path / "a.png", GRAY).tolist()
    with pytest.raises(DataError, match=r"row 3 is truncated or damaged"):
        decode_image(content[:-40], GRAY, name="row 3")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp", "dcm"])
def test_a_truncated_or_foreign_file_is_named(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"broken.{suffix}"
    if suffix == "dcm":
        pytest.importorskip("pydicom")
        file.write_bytes(b"\0" * 200)
    else:
        write_image(file, size=(64, 64))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"broken.{suffix} is (truncated|no image|no DICOM).*Replace or remove it"):
        read_image(file, GRAY)
