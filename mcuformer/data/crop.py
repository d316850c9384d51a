# SPDX-License-Identifier: Apache-2.0
"""Crop: a random part of a picture, of random size and shape, that is resized to fill a network's image."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from mcuformer.sizes import Size, sides

REDUCING_GAP = 2.0  # a part more than so many times larger than the image is averaged before it is resized


@dataclass(frozen=True)
class Crop:
    """area: of the part, as a share of the picture's, above 0 to 1; aspect: the part's width to height, over that of
    the image it fills; down, right: from 0 to 1, where it lies in the room that the picture leaves; mirrored: left and
    right are swapped then.

    A part that would stick out of the picture is made smaller, in its shape.
    """

    area: float
    aspect: float
    down: float
    right: float
    mirrored: bool = False

    def box(self, width: int, height: int, size: Size) -> tuple[float, float, float, float]:
        """(left, top, right, bottom), in pixels, of a picture of width x height. size: of the image."""
        rows, columns = sides(size)
        shape = self.aspect * columns / rows
        across, down = (self.area * width * height * shape) ** 0.5, (self.area * width * height / shape) ** 0.5
        fitting = min(1.0, width / across, height / down)
        across, down = min(across * fitting, width), min(down * fitting, height)
        left, top = self.right * (width - across), self.down * (height - down)
        return left, top, min(left + across, width), min(top + down, height)

    def enlargement(self, width: int, height: int, size: Size) -> float:
        """By how much the part is enlarged to fill the image, the larger of both sides; below 1 it is reduced."""
        left, top, right, bottom = self.box(width, height, size)
        rows, columns = sides(size)
        return max(columns / (right - left), rows / (bottom - top))

    def cut(self, picture: Image.Image, size: Size) -> Image.Image:
        """The part of the picture as an image of `size`."""
        rows, columns = sides(size)
        box = self.box(*picture.size, size)
        image = picture.resize((columns, rows), Image.Resampling.BILINEAR, box, reducing_gap=REDUCING_GAP)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else image
