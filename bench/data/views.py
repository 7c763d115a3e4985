"""Random views of a batch of images, with parameters of its own for every sample.

``draw`` decides, ``apply`` computes: the transforms are plain functions of images and parameters, and agree with
torchvision's transforms of single images. They run where the images are. Parameters are drawn where the generator is,
so a CPU generator gives the same views on every device.

Every sample consumes the same random numbers whatever the :class:`bench.spec.ViewSpec` says: turning one transform off
leaves the parameters of the others as they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from bench.spec import ViewSpec

CROP_TRIES = 10
COLUMNS = (CROP_TRIES, CROP_TRIES, 2, 1, 1, 1, 4, 4, 1, 1, 1, 1)
"""Random numbers per sample, in the order in which ``draw`` names them."""

CACHED_VALUES = 256 * 1024
"""A CPU works on this many pixel values at a time: intermediate results then stay in its cache (1.5 times faster)."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
GRAY_WEIGHTS = (0.2989, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class ViewParameters:
    """What happens to each of B samples; ``None`` where it happens to no sample.

    Attributes:
        boxes: (B, 4) int64, crop as top, left, height, width in pixels.
        flip: (B,) bool.
        angles: (B,) degrees, counter-clockwise.
        factors: (B, 4) brightness, contrast, saturation, hue; (1, 1, 1, 0) changes nothing.
        order: (B, K) int64, the K jitter transforms that are on, in the order of their application.
        gray: (B,) bool.
        sigmas: (B,) standard deviation of the blur in pixels; 0 leaves the sample sharp.
        thresholds: (B,) values at or above are inverted; infinite leaves the sample as it is.
    """

    boxes: Tensor | None
    flip: Tensor
    angles: Tensor | None
    factors: Tensor
    order: Tensor | None
    gray: Tensor | None
    sigmas: Tensor | None
    thresholds: Tensor | None

    def __getitem__(self, part: slice | Tensor) -> ViewParameters:
        """The parameters of some samples: a slice, or their indices (n,)."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[part] for name, value in held.items() if value is not None})


@torch.no_grad()
def make_view(
    images: Tensor, view: ViewSpec, generator: torch.Generator, *, first: int = 0, batch: int | None = None
) -> Tensor:
    """One random view of every image.

    Args:
        images: (B, C, H, W) float32 or float64 in [0, 1]; not modified. Saturation, hue and grayscale need C = 3 and
            change nothing for another C.
        view: which transforms, how strong, how often.
        generator: source of all randomness; equal states give equal views.
        first, batch: the images are the rows ``first`` … of a batch of ``batch`` images, and get the same views as in
            the whole batch. Without ``batch`` they are all of it.

    Returns:
        (B, C, H, W) in [0, 1], of the same type and on the same device.
    """
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"make_view needs (B, C, H, W) float32 or float64, got {tuple(images.shape)} {images.dtype}.")
    drawn = draw(view, len(images) if batch is None else batch, (images.shape[2], images.shape[3]), generator)
    parameters = drawn[first : first + len(images)]
    parts = 1 if images.is_cuda else math.ceil(images.numel() / CACHED_VALUES)
    rows = max(1, math.ceil(len(images) / max(1, parts)))
    made = torch.empty_like(images, memory_format=torch.contiguous_format)
    with torch.autocast(images.device.type, enabled=False):  # a crop is a matrix product: keep its precision
        for start in range(0, len(images), rows):
            part = slice(start, start + rows)
            made[part] = apply(images[part], parameters[part])
    return made


def draw(view: ViewSpec, batch: int, size: tuple[int, int], generator: torch.Generator) -> ViewParameters:
    """Draw the parameters of ``batch`` samples of ``size`` (height, width), on the generator's device."""
    uniform = torch.rand(batch, sum(COLUMNS), generator=generator, device=generator.device, dtype=torch.float64)
    columns = uniform.split_with_sizes(COLUMNS, 1)
    areas, ratios, position, flip, angle, jitter, factors, order, gray, blur, sigma, solarize = columns
    boxes = _draw_boxes(view, size, areas, ratios, position)
    whole = boxes.new_tensor([0, 0, *size])
    strengths = factors.new_tensor([view.brightness, view.contrast, view.saturation, view.hue])
    kinds = strengths.nonzero().squeeze(1) if view.jitter > 0 else strengths.new_empty(0, dtype=torch.int64)
    limits = torch.full_like(solarize, view.solarize_threshold)
    low, high = view.blur_sigma
    return ViewParameters(
        boxes=None if bool((boxes == whole).all()) else boxes,
        flip=flip.squeeze(1) < view.flip,
        angles=(2 * angle.squeeze(1) - 1) * view.rotation if view.rotation > 0 else None,
        factors=_draw_factors(strengths, factors, jitter < view.jitter),
        order=kinds[order[:, kinds].argsort(1)] if len(kinds) else None,
        gray=gray.squeeze(1) < view.grayscale if view.grayscale > 0 else None,
        sigmas=((low + (high - low) * sigma) * (blur < view.blur)).squeeze(1) if view.blur > 0 else None,
        thresholds=limits.masked_fill(solarize >= view.solarize, math.inf).squeeze(1) if view.solarize > 0 else None,
    )


def _draw_boxes(view: ViewSpec, size: tuple[int, int], areas: Tensor, ratios: Tensor, position: Tensor) -> Tensor:
    """Crops as torchvision draws them: uniform area, log-uniform ratio, the first of ten tries that fits."""
    height, width = size
    (low, high), (narrow, wide) = view.crop_scale, view.crop_ratio
    area = height * width * (low + (high - low) * areas)  # (B, tries)
    ratio = torch.exp(math.log(narrow) + (math.log(wide) - math.log(narrow)) * ratios)
    widths, heights = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    chosen = fits.to(torch.uint8).argmax(1, keepdim=True)
    fallback = fits.new_tensor(_central_size(size, (narrow, wide)), dtype=torch.int64)
    some = fits.any(1)
    h = torch.where(some, heights.gather(1, chosen).squeeze(1), fallback[0])
    w = torch.where(some, widths.gather(1, chosen).squeeze(1), fallback[1])
    # A uniform number below 1 may round up to the next integer: hence the clamp.
    top = torch.where(some, torch.minimum((position[:, 0] * (height - h + 1)).long(), height - h), (height - h) // 2)
    left = torch.where(some, torch.minimum((position[:, 1] * (width - w + 1)).long(), width - w), (width - w) // 2)
    return torch.stack([top, left, h, w], 1)


def _central_size(size: tuple[int, int], ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest central crop with an allowed ratio."""
    height, width = size
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def _draw_factors(strengths: Tensor, uniform: Tensor, jittered: Tensor) -> Tensor:
    """Factors (B, 4) in [max(0, 1 - strength), 1 + strength], for hue in [-strength, strength]."""
    neutral = strengths.new_tensor([1.0, 1.0, 1.0, 0.0])
    low = neutral - strengths
    low[:HUE].clamp_(min=0)
    return torch.where(jittered, low + (neutral + strengths - low) * uniform, neutral)


def apply(images: Tensor, parameters: ViewParameters) -> Tensor:
    """Apply the transforms to images (B, C, H, W) in the order of the parameters' fields."""
    p = parameters
    if p.boxes is not None:
        images = crop(images, p.boxes, p.flip)
    elif len(rows := _rows(p.flip, images)):
        images = images.index_copy(0, rows, images[rows].flip(3))
    if p.angles is not None:
        images = rotate(images, p.angles)
    if p.order is not None:
        images = jitter(images, p.factors, p.order)
    if p.gray is not None:
        images = grayscale(images, p.gray)
    if p.sigmas is not None:
        images = gaussian_blur(images, p.sigmas)
    if p.thresholds is not None:
        images = solarize(images, p.thresholds)
    return images


def _rows(mask: Tensor, images: Tensor) -> Tensor:
    """Indices of the chosen samples, beside the images."""
    return mask.nonzero().squeeze(1).to(images.device)


def crop(images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
    """Crop, resize to the old size (antialiased bilinear) and flip where ``flip``, by two matrix products.

    Args:
        images: (B, C, H, W).
        boxes: (B, 4) top, left, height, width.
        flip: (B,) bool.
    """
    height, width = images.shape[2:]
    top, left, h, w = boxes.to(images).unbind(1)
    vertical = _resampling(top, h, height, torch.zeros_like(flip, device=images.device), images)  # (B, H, H)
    horizontal = _resampling(left, w, width, flip.to(images.device), images)  # (B, W, W)
    return _transform_lines(images, vertical, horizontal)


def _resampling(start: Tensor, length: Tensor, size: int, reverse: Tensor, like: Tensor) -> Tensor:
    """Weights (B, in, out) that stretch pixels start … start + length - 1 over a line of ``size`` pixels.

    A triangle filter, widened when it shrinks: the antialiased bilinear resize.
    """
    pixels = torch.arange(size, device=like.device, dtype=like.dtype)
    target = torch.where(reverse[:, None], size - 1 - pixels, pixels)  # (B, out)
    scale = (length / size)[:, None]
    center = start[:, None] + scale * (target + 0.5) - 0.5
    slope = scale.clamp(min=1).reciprocal()
    inside = (pixels >= start[:, None]) & (pixels < (start + length)[:, None])  # (B, in)
    weights = (center * slope)[:, None, :] - (pixels * slope)[:, :, None]  # (B, in, out)
    weights = weights.abs_().neg_().add_(1).clamp_(min=0).mul_(inside[:, :, None].to(like.dtype))
    return weights.div_(weights.sum(1, keepdim=True))


def _transform_lines(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """``vertical.T @ image @ horizontal`` for every channel, with matrices (B, H, H) and (B, W, W) per sample."""
    batch, channels, height, width = images.shape
    lines = torch.bmm(images.reshape(batch, channels * height, width), horizontal)
    return torch.matmul(vertical.mT.unsqueeze(1), lines.view(batch, channels, height, width))


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Rotate about the center by ``angles`` (B,) degrees counter-clockwise; bilinear, black outside."""
    height, width = images.shape[2:]
    radians = angles.to(images).deg2rad()
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    rows = [torch.stack(row, 1) for row in ((cos, -sin * height / width, zero), (sin * width / height, cos, zero))]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, for every sample in its own order.

    Args:
        images: (B, C, H, W).
        factors: (B, 4) brightness, contrast, saturation, hue.
        order: (B, K) which of them, first to last; every row names the same K.
    """
    if images.shape[1] != 3:
        order = order[order < SATURATION].view(len(order), -1)
    blends = order[order != HUE].view(len(order), -1)
    # The number of blends that come before the hue; K, which no step reaches, where the hue does not change.
    before_hue = (order != HUE).cumprod(1).sum(1).masked_fill(factors[:, HUE] == 0, order.shape[1])
    for step in range(order.shape[1]):
        if len(rows := _rows(before_hue == step, images)):
            shifts = factors[:, HUE].to(images)[rows]
            images = images.index_copy(0, rows, shift_hue(images[rows], shifts))
        if step < blends.shape[1]:
            kind = blends[:, step]
            images = blend(images, factors.gather(1, kind[:, None]).squeeze(1), kind)
    return images


def blend(images: Tensor, factors: Tensor, kinds: Tensor) -> Tensor:
    """``factor * image + (1 - factor) * reference``, clamped to [0, 1].

    Args:
        images: (B, C, H, W).
        factors: (B,).
        kinds: (B,) ``BRIGHTNESS`` blends with black, ``CONTRAST`` with the mean gray of the image (the mean over all
            values unless C = 3), ``SATURATION`` with the gray image (C = 3 only).
    """
    color = images.shape[1] == 3
    rest = 1 - factors
    blended = images * factors.to(images).view(-1, 1, 1, 1)
    if bool((kinds == CONTRAST).any()):
        means = images.flatten(2).mean(2)  # (B, C)
        gray = means @ images.new_tensor(GRAY_WEIGHTS) if color else means.mean(1)
        blended += (gray * (rest * (kinds == CONTRAST)).to(images)).view(-1, 1, 1, 1)
    if color and bool((kinds == SATURATION).any()):
        blended += to_gray(images).mul_((rest * (kinds == SATURATION)).to(images).view(-1, 1, 1, 1))
    return blended.clamp_(0, 1)


def to_gray(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W) of color images (B, 3, H, W)."""
    red, green, blue = images.unbind(1)
    weights = GRAY_WEIGHTS
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2]).unsqueeze(1)


def shift_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue of color images (B, 3, H, W) by ``shifts`` (B,) of the full circle.

    HSV without its detours: lightest and darkest channel stay, only the hue angle u, in sixths of the circle, is
    computed. With channels scaled to [0, 1], u = ±(1 - R + G + B), negative where G < B.
    """
    red, green, blue = images.unbind(1)  # (B, H, W)
    low, high = images.amin(1), images.amax(1)
    chroma = high - low
    angle = (green + blue).sub_(red).add_(high).sub_(low, alpha=2).div_(chroma.clamp(min=1e-12))
    angle = angle.copysign_(green - blue).add_(6 * shifts.view(-1, 1, 1))
    angle -= (angle / 6).floor_().mul_(6)  # in [0, 6)
    shifted = torch.empty_like(images)
    torch.sub(angle, 3, out=shifted[:, 0]).abs_().sub_(1)
    torch.sub(angle, 2, out=shifted[:, 1]).abs_().neg_().add_(2)
    torch.sub(angle, 4, out=shifted[:, 2]).abs_().neg_().add_(2)
    return shifted.clamp_(0, 1).mul_(chroma.unsqueeze(1)).add_(low.unsqueeze(1))


def grayscale(images: Tensor, mask: Tensor) -> Tensor:
    """Replace the masked color images by their luma in all three channels; C other than 3 stays as it is."""
    rows = _rows(mask, images)
    if images.shape[1] != 3 or not len(rows):
        return images
    return images.index_copy(0, rows, to_gray(images[rows]).expand(-1, 3, -1, -1))


def blur_kernel_size(size: tuple[int, int]) -> int:
    """Odd kernel length of about a tenth of the shorter side, at least 3: 23 pixels for 224 as in SimCLR."""
    return max(3, 2 * (min(size) // 20) + 1)


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur by ``sigmas`` (B,) pixels, with reflected borders; a sample with sigma 0 stays as it is."""
    rows = _rows(sigmas > 0, images)
    if not len(rows):
        return images
    chosen, sigma = images[rows], sigmas.to(images)[rows]
    height, width = images.shape[2:]
    length = blur_kernel_size((height, width))
    blurred = _transform_lines(chosen, _smoothing(sigma, length, height), _smoothing(sigma, length, width))
    return images.index_copy(0, rows, blurred)


def _smoothing(sigma: Tensor, length: int, size: int) -> Tensor:
    """Matrices (B, in, out) that convolve a reflected line with a Gaussian of ``length`` taps."""
    half = length // 2
    offsets = torch.arange(-half, half + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel /= kernel.sum(1, keepdim=True)
    source = (torch.arange(size, device=sigma.device)[:, None] + offsets).abs()  # (size, taps), reflected at 0 …
    source = (size - 1 - (size - 1 - source).abs()).clamp(min=0)  # … and at size - 1; one pixel mirrors itself
    taps = torch.nn.functional.one_hot(source, size).to(sigma.dtype)  # (size, taps, size)
    return torch.einsum("bt,itj->bji", kernel, taps)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert the values at or above each sample's threshold (B,)."""
    rows = _rows(thresholds.isfinite(), images)
    if not len(rows):
        return images
    chosen = images[rows]
    limit = thresholds.to(images)[rows].view(-1, 1, 1, 1)
    return images.index_copy(0, rows, torch.where(chosen >= limit, 1 - chosen, chosen))
