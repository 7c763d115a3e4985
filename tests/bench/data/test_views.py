from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from bench.data import views
from bench.data.views import ViewParameters, apply, blur_kernel_size, draw, make_view
from bench.spec import ViewSpec

OFF = ViewSpec(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0)
EVERYTHING = ViewSpec(rotation=30, hue=0.3, blur=0.5, solarize=0.5)
SHAPES = [(1, 28, 28), (3, 32, 32), (3, 20, 33), (3, 64, 64)]
TOLERANCE = 1e-5
JITTERS = ("brightness", "contrast", "saturation", "hue")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(
    channels: int, height: int, width: int, *, count: int = 24, dtype: torch.dtype = torch.float64
) -> Tensor:
    images = torch.rand(count, channels, height, width, generator=generator(7), dtype=torch.float64)
    images[0] = 0.5  # no chroma, no contrast
    images[1, :, : height // 2] = 0.0  # black meets noise
    images[2] = images[2].round()  # only 0 and 1: channels tie
    return images.to(dtype)


def drawn(view: ViewSpec, images: Tensor, seed: int = 0) -> ViewParameters:
    return draw(view, len(images), (images.shape[2], images.shape[3]), generator(seed))


def present(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crop_and_flip_agree_with_torchvision(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    images = some_images(*shape, dtype=dtype)
    parameters = drawn(ViewSpec(), images)
    boxes = present(parameters.boxes)
    expected = []
    for image, box, flip in zip(images, boxes.tolist(), parameters.flip.tolist(), strict=True):
        cropped = functional.resized_crop(
            image, *box, size=list(shape[1:]), interpolation=InterpolationMode.BILINEAR, antialias=True
        )
        expected.append(functional.horizontal_flip(cropped) if flip else cropped)
    assert 0 < int(parameters.flip.sum()) < len(images)
    assert_close(views.crop(images, boxes, parameters.flip), torch.stack(expected))


def test_a_one_pixel_crop_fills_the_view_with_that_pixel() -> None:
    images = some_images(3, 9, 9, count=4)
    view = views.crop(images, torch.tensor([[2, 5, 1, 1]] * 4), torch.tensor([False, True] * 2))
    assert_close(view, images[:, :, 2:3, 5:6].expand(-1, -1, 9, 9))


@pytest.mark.parametrize("shape", SHAPES)
def test_rotation_agrees_with_torchvision(shape: tuple[int, int, int]) -> None:
    images = some_images(*shape)
    angles = present(drawn(ViewSpec(rotation=180), images).angles)
    pairs = zip(images, angles.tolist(), strict=True)
    expected = [functional.rotate(image, angle, interpolation=InterpolationMode.BILINEAR) for image, angle in pairs]
    assert_close(views.rotate(images, angles), torch.stack(expected))


def torchvision_jitter(image: Tensor, factors: list[float], order: list[int]) -> Tensor:
    functions = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    for kind in order:
        image = functions[kind](image, factors[kind])
    return image


@pytest.mark.parametrize("kind", range(4), ids=JITTERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_jitter_agrees_with_torchvision(kind: int, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    images = some_images(*shape, dtype=dtype)
    strengths = dict.fromkeys(JITTERS, 0.0) | {JITTERS[kind]: 0.5}
    parameters = drawn(ViewSpec(**strengths, jitter=0.9), images)
    factors, order = parameters.factors, present(parameters.order)
    assert order.tolist() == [[kind]] * len(images)
    expected = [torchvision_jitter(i, f, [kind]) for i, f in zip(images, factors.tolist(), strict=True)]
    ours = views.jitter(images, factors, order)
    assert_close(ours, torch.stack(expected))
    unchanged = torch.equal(ours, images)
    assert unchanged == (shape[0] == 1 and kind >= views.SATURATION)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_whole_jitter_agrees_with_torchvision_in_each_samples_own_order(shape: tuple[int, int, int]) -> None:
    images = some_images(*shape, count=96)
    parameters = drawn(ViewSpec(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.4), images)
    factors, order = parameters.factors, present(parameters.order)
    assert len({tuple(row) for row in order.tolist()}) > 20  # nearly all of the 24 orders
    samples = zip(images, factors.tolist(), order.tolist(), strict=True)
    expected = [torchvision_jitter(image, factor, row) for image, factor, row in samples]
    assert_close(views.jitter(images, factors, order), torch.stack(expected))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] == 3])
def test_grayscale_agrees_with_torchvision_where_it_is_applied(shape: tuple[int, int, int]) -> None:
    images = some_images(*shape)
    mask = present(drawn(ViewSpec(grayscale=0.5), images).gray)
    samples = zip(images, mask.tolist(), strict=True)
    expected = [functional.rgb_to_grayscale(image, num_output_channels=3) if gray else image for image, gray in samples]
    assert 0 < int(mask.sum()) < len(images)
    assert_close(views.grayscale(images, mask), torch.stack(expected))


@pytest.mark.parametrize("shape", [*SHAPES, (1, 8, 8), (3, 128, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blur_agrees_with_torchvision_where_it_is_applied(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    images = some_images(*shape, dtype=dtype)
    sigmas = present(drawn(ViewSpec(blur=0.5), images).sigmas)
    length = blur_kernel_size((shape[1], shape[2]))
    samples = zip(images, sigmas.tolist(), strict=True)
    expected = [functional.gaussian_blur(image, [length, length], [s, s]) if s else image for image, s in samples]
    assert 0 < int((sigmas > 0).sum()) < len(images)
    assert_close(views.gaussian_blur(images, sigmas), torch.stack(expected))


def test_the_blur_kernel_is_a_tenth_of_the_image_and_odd() -> None:
    assert {size: blur_kernel_size((size, size)) for size in (8, 28, 32, 64, 96, 224)} == {
        8: 3,
        28: 3,
        32: 3,
        64: 7,
        96: 9,
        224: 23,
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_solarize_agrees_with_torchvision_where_it_is_applied(shape: tuple[int, int, int]) -> None:
    images = some_images(*shape)
    thresholds = present(drawn(ViewSpec(solarize=0.5, solarize_threshold=0.6), images).thresholds)
    samples = zip(images, thresholds.tolist(), strict=True)
    expected = [image if math.isinf(limit) else functional.solarize(image, limit) for image, limit in samples]
    assert set(thresholds.tolist()) == {0.6, math.inf}
    assert_close(views.solarize(images, thresholds), torch.stack(expected))


def test_the_transforms_are_applied_in_the_order_of_the_specs_fields() -> None:
    images = some_images(3, 32, 32)
    p = drawn(EVERYTHING, images)
    expected = views.crop(images, present(p.boxes), p.flip)
    expected = views.jitter(views.rotate(expected, present(p.angles)), p.factors, present(p.order))
    expected = views.gaussian_blur(views.grayscale(expected, present(p.gray)), present(p.sigmas))
    assert torch.equal(apply(images, p), views.solarize(expected, present(p.thresholds)))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 16, 16), (5, 16, 24)])
def test_equal_seeds_give_equal_views_and_other_seeds_other_views(shape: tuple[int, int, int]) -> None:
    images = some_images(*shape, dtype=torch.float32)
    first, second, other = (make_view(images, EVERYTHING, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert float((first - other).abs().amax((1, 2, 3)).min()) > 0.05
    assert first.shape == images.shape
    assert float(first.min()) >= 0 and float(first.max()) <= 1 + TOLERANCE


def test_consecutive_views_of_one_generator_differ() -> None:
    images, source = some_images(3, 32, 32), generator()
    assert not torch.equal(make_view(images, ViewSpec(), source), make_view(images, ViewSpec(), source))


def test_every_sample_has_parameters_of_its_own() -> None:
    parameters = draw(EVERYTHING, 64, (32, 32), generator())
    assert len({tuple(box) for box in present(parameters.boxes).tolist()}) > 48
    for values in (present(parameters.angles), present(parameters.sigmas), parameters.factors[:, 0]):
        values = values[(values != 0) & (values != 1)]
        assert len(values) > 20
        assert len(values.unique()) == len(values)
    copies = torch.rand(1, 3, 32, 32, generator=generator()).expand(16, -1, -1, -1)
    made = make_view(copies, EVERYTHING, generator())
    assert float(torch.cdist(made.flatten(1), made.flatten(1)).fill_diagonal_(9).min()) > 0.1


def test_turning_one_transform_off_leaves_the_parameters_of_the_others() -> None:
    everything, without = (
        draw(view, 32, (32, 32), generator()) for view in (EVERYTHING, ViewSpec(rotation=30, hue=0.3))
    )
    assert without.sigmas is None and without.thresholds is None
    for name in ("boxes", "flip", "angles", "factors", "order", "gray"):
        assert torch.equal(getattr(everything, name), getattr(without, name))


def test_transforms_of_probability_zero_are_never_computed() -> None:
    parameters = draw(OFF, 8, (16, 16), generator())
    held = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    assert {name for name, value in held.items() if value is not None} == {"flip", "factors"}
    images = some_images(3, 16, 16)
    made = make_view(images, OFF, generator())
    assert torch.equal(made, images)
    assert made.data_ptr() != images.data_ptr()


def test_a_flip_without_a_crop_mirrors_the_chosen_samples() -> None:
    images, view = some_images(3, 16, 16), OFF.model_copy(update={"flip": 0.5})
    flipped = draw(view, len(images), (16, 16), generator()).flip
    expected = torch.where(flipped[:, None, None, None], images.flip(3), images)
    assert 0 < int(flipped.sum()) < len(images)
    assert torch.equal(make_view(images, view, generator()), expected)


def test_the_images_are_not_modified() -> None:
    images = some_images(3, 32, 32)
    before = images.clone()
    make_view(images, EVERYTHING, generator())
    assert torch.equal(images, before)


def test_a_view_does_not_depend_on_how_the_batch_is_cut_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    images = some_images(3, 32, 32)
    whole = make_view(images, EVERYTHING, generator())
    monkeypatch.setattr(views, "CACHED_VALUES", 5 * 3 * 32 * 32)
    assert_close(make_view(images, EVERYTHING, generator()), whole)


def test_images_in_channels_last_memory_give_the_same_view() -> None:
    images = some_images(3, 32, 32)
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    made = make_view(strided, EVERYTHING, generator())
    assert torch.equal(made, make_view(images, EVERYTHING, generator()))
    assert made.is_contiguous()


def test_automatic_mixed_precision_does_not_blur_the_views() -> None:
    images = some_images(3, 32, 32, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = make_view(images, EVERYTHING, generator())
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, make_view(images, EVERYTHING, generator()))


def test_crops_follow_torchvisions_distribution() -> None:
    """Area uniform and ratio log-uniform, where the image is so large that rounding and refusal hardly matter."""
    view = ViewSpec(crop_scale=(0.1, 0.5), crop_ratio=(0.5, 2.0))
    boxes = present(draw(view, 20_000, (1000, 1000), generator()).boxes).double()
    area, ratio = boxes[:, 2] * boxes[:, 3] / 1e6, (boxes[:, 3] / boxes[:, 2]).log()
    for values, low, high in ((area, 0.1, 0.5), (ratio, -math.log(2), math.log(2))):
        wanted = torch.linspace(low, high, 11, dtype=torch.float64)
        found = values.quantile(torch.linspace(0, 1, 11, dtype=torch.float64))
        assert float((found - wanted).abs().max()) < 0.03 * (high - low)
    assert bool((boxes[:, :2] >= 0).all()) and bool((boxes[:, :2] + boxes[:, 2:] <= 1000).all())
    assert float((boxes[:, 0] / (1000 - boxes[:, 2])).mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("size", "ratio", "box"),
    [
        ((10, 40), (0.5, 2.0), [0, 10, 10, 20]),
        ((40, 10), (0.5, 2.0), [10, 0, 20, 10]),
        ((20, 20), (0.9, 1.1), [0, 0, 20, 20]),
    ],
)
def test_crops_that_never_fit_fall_back_to_the_center(
    size: tuple[int, int], ratio: tuple[float, float], box: list[int]
) -> None:
    areas = torch.full((2, views.CROP_TRIES), 1.0, dtype=torch.float64)
    extreme = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None].expand(-1, views.CROP_TRIES)
    view = ViewSpec(crop_scale=(1, 1), crop_ratio=ratio)
    boxes = views._draw_boxes(view, size, areas, extreme, torch.full((2, 2), 0.9, dtype=torch.float64))
    assert boxes.tolist() == [box, box]


def test_integer_images_are_refused() -> None:
    with pytest.raises(TypeError, match=r"needs \(B, C, H, W\) float32 or float64, got \(2, 3, 8, 8\) torch.uint8"):
        make_view(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ViewSpec(), generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_view_that_the_cpu_makes() -> None:
    images = some_images(3, 32, 32, dtype=torch.float32)
    on_gpu = make_view(images.cuda(), EVERYTHING, generator())
    assert on_gpu.is_cuda
    assert_close(on_gpu.cpu(), make_view(images, EVERYTHING, generator()))


def test_a_line_of_pixels_is_blurred_along_itself_alone() -> None:
    line = some_images(1, 4, 12)[:, :, :1]  # (B, 1, 1, 12)
    sigmas = torch.full((len(line),), 1.5)
    sheet = line.expand(-1, -1, 12, -1).contiguous()  # constant across, so the blur across changes nothing
    blurred = views.gaussian_blur(line, sigmas)
    assert_close(blurred, views.gaussian_blur(sheet, sigmas)[:, :, :1])
    assert_close(views.gaussian_blur(line.mT, sigmas), blurred.mT)
    assert float((blurred - line).abs().max()) > 0.1
