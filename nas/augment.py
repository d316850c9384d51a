# SPDX-License-Identifier: Apache-2.0
"""Augmentation whose random numbers depend only on seed, epoch and image index.

So a batch is the same however it is split over processes.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
import torch.nn.functional as F

from mcuformer.data.crop import Crop

MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
GOLDEN = 0x9E3779B97F4A7C15
MOST_ASPECT = 4 / 3  # a crop of a file is up to so much wider or higher than the image


class Draw(IntEnum):
    """What a random number decides."""

    DOWN = 0
    RIGHT = 1
    FLIP = 2
    CROP = 3
    CROP_DOWN = 4
    CROP_RIGHT = 5
    KIND = 7
    SHARE = 8
    BOX_DOWN = 9
    BOX_RIGHT = 10
    CROP_ASPECT = 11


def uniform(seed: int, epoch: int, indices: np.ndarray, draw: Draw) -> np.ndarray:
    """float64 [n] in [0, 1), one per index (splitmix64 of seed, epoch, draw and index)."""
    state = _hashed(np.uint64(((seed * 2 + 1) * GOLDEN) % 2**64))
    for word in (epoch, int(draw)):
        state = _hashed(state ^ np.uint64(((word + 1) * GOLDEN) % 2**64))
    with np.errstate(over="ignore"):
        state = _hashed(state ^ (indices.astype(np.uint64) * np.uint64(GOLDEN)))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hashed(x):
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * MIX[0]
        x = (x ^ (x >> np.uint64(27))) * MIX[1]
    return x ^ (x >> np.uint64(31))


def shift_and_flip(
    images: torch.Tensor, indices: np.ndarray, shift: int | tuple[int, int], flip: bool, seed: int, epoch: int
) -> torch.Tensor:
    """Moves each image by up to `shift` pixels, or (down or up, right or left), edges repeated, and mirrors half of
    them.

    images: [n, height, width, channels], any type, on any device; indices: [n], of the samples; returns the same shape
    and type.
    """
    n, height, width, _ = images.shape
    down, right = shift if isinstance(shift, tuple) else (shift, shift)

    def moved(draw: Draw, most: int) -> torch.Tensor:
        u = uniform(seed, epoch, indices, draw)
        return torch.from_numpy(np.floor(u * (2 * most + 1)).astype(np.int64) - most)[:, None]

    rows = (torch.arange(height) + moved(Draw.DOWN, down)).clamp_(0, height - 1)
    columns = (torch.arange(width) + moved(Draw.RIGHT, right)).clamp_(0, width - 1)
    if flip:
        mirrored = torch.from_numpy(uniform(seed, epoch, indices, Draw.FLIP) < 0.5)[:, None]
        columns = torch.where(mirrored, columns.flip(1), columns)
    chosen = torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]
    return images[tuple(part.to(images.device) for part in chosen)]


def random_crop(images: torch.Tensor, indices: np.ndarray, least: float, seed: int, epoch: int) -> torch.Tensor:
    """Crops a random part of the image's shape, with `least` to all of its area, and enlarges it to the whole.

    images: float [n, channels, height, width], on any device; returns the same shape.
    """
    u = [uniform(seed, epoch, indices, d) for d in (Draw.CROP, Draw.CROP_DOWN, Draw.CROP_RIGHT)]
    side = np.sqrt(least + (1 - least) * u[0])
    theta = np.zeros((len(indices), 2, 3), np.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, 0, 2], theta[:, 1, 2] = ((1 - side) * (2 * v - 1) for v in (u[2], u[1]))
    grid = F.affine_grid(torch.from_numpy(theta).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)


def crops(indices: np.ndarray, least: float, flip: bool, seed: int, epoch: int) -> list[Crop]:
    """Of each sample: a part with `least` to all of its picture's area, up to MOST_ASPECT wider or higher than the
    image. flip: half of them are mirrored."""
    draws = (Draw.CROP, Draw.CROP_ASPECT, Draw.CROP_DOWN, Draw.CROP_RIGHT)
    area, aspect, down, right = (uniform(seed, epoch, indices, draw) for draw in draws)
    parts = least + (1 - least) * area, MOST_ASPECT ** (2 * aspect - 1), down, right
    mirrored = (uniform(seed, epoch, indices, Draw.FLIP) < 0.5) & flip
    return [Crop(*part) for part in zip(*(part.tolist() for part in (*parts, mirrored)), strict=True)]


def partners(count: int) -> torch.Tensor:
    """int64 [count]: the place in a batch of the image that each is mixed with, its neighbour: 0 with 1, 2 with 3 ...

    Batches are in random order, so neighbours are any two images, and an even share of a batch has them together. The
    last of an odd one is its own.
    """
    places = torch.arange(count)
    return torch.where((places ^ 1) < count, places ^ 1, places)


def mix(
    images: torch.Tensor, others: torch.Tensor, indices: np.ndarray, mixup: float, cutmix: float, seed: int, epoch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixes each image with another: blends them with probability `mixup`, or pastes a box with probability `cutmix`.

    images, others: float [n, channels, height, width], on any device. Returns the images and the share of the first
    one, float32 [n], there.
    """
    _, _, height, width = images.shape
    kind, share = (uniform(seed, epoch, indices, d) for d in (Draw.KIND, Draw.SHARE))
    blended, pasted = kind < mixup, (kind >= mixup) & (kind < mixup + cutmix)
    side = np.sqrt(1 - share)

    def span(draw: Draw, length: int) -> tuple[np.ndarray, np.ndarray]:
        centre = uniform(seed, epoch, indices, draw) * length
        low, high = (np.rint(np.clip(centre + sign * side * length / 2, 0, length)) for sign in (-1, 1))
        return low, np.where(pasted, high, low)

    def inside(ends: tuple[np.ndarray, np.ndarray], length: int) -> torch.Tensor:
        low, high = (torch.from_numpy(end).to(images.device)[:, None] for end in ends)
        at = torch.arange(length, device=images.device)
        return (at >= low) & (at < high)

    down, right = span(Draw.BOX_DOWN, height), span(Draw.BOX_RIGHT, width)
    box_share = 1 - (down[1] - down[0]) * (right[1] - right[0]) / (height * width)
    first = torch.from_numpy(np.where(blended, share, box_share).astype(np.float32)).to(images.device)
    of_whole = torch.from_numpy(np.where(blended, share, 1.0).astype(np.float32)).to(images.device)
    in_box = inside(down, height)[:, None, :, None] & inside(right, width)[:, None, None, :]
    mixed = torch.lerp(others, images, of_whole[:, None, None, None])
    return torch.where(in_box, others, mixed), first
