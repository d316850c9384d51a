# SPDX-License-Identifier: Apache-2.0
"""A space or a network for the user's data: --set, and what the data say where nothing is set.

A network's number of classes and channels are those of the data. So is its image size if the data are arrays, the
network's images are squares, and at least LEAST_PATCHES patches come of it; else images are resized to the network's.
With the image size of a space its image_sizes change in proportion.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mcuformer.errors import ConfigError
from mcuformer.sizes import Size, shortest, sides

if TYPE_CHECKING:
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.data.loading import Outline
    from mcuformer.nas import SearchSpace, TrainOptions

Made = TypeVar("Made", "SubnetConfig", "SearchSpace")
LEAST_PATCHES = 4
SET_HELP = "Fields of the config or the space, such as --set depth=4 image_size=120x160 (height x width)."
setting_option = click.option("--set", "setting", multiple=True, help=SET_HELP)
more_settings = click.argument("more", nargs=-1, metavar="[FIELD=VALUE]...")


def settings(setting: Sequence[str], more: Sequence[str]) -> list[str]:
    """All of --set, which may be followed by more fields without the flag."""
    if more and not setting:
        raise ConfigError(f"{more[0]!r}: unexpected; write fields as --set field=value")
    return [*setting, *more]


def space_for(name: str | os.PathLike, given: dict[str, Any], data: Outline) -> SearchSpace:
    """The space of a YAML file with the fields `given`; one of the package's also takes from the data what is not
    given. ConfigError or DataError if that is no space, or not one for the data."""
    from mcuformer import nas
    from mcuformer.nas.evaluation import check_images
    from mcuformer.nas.search_space import SPACES

    made = read = nas.load_space(name)
    if given:
        values = made.to_dict()
        if "image_size" in given:
            values.pop("image_sizes", None)
        made = nas.SearchSpace.from_dict(values | given)
    if (SPACES / f"{name}.yaml").is_file():
        made = from_data(made, given, data, f"space {name}")
    if "image_sizes" not in given:
        made = dataclasses.replace(made, image_sizes=_in_proportion(made, read))
    check_images(made, data.as_dataset(made.image_size, made.in_channels))
    return made


def from_data(made: Made, given: dict[str, Any], data: Outline, what: str) -> Made:
    """`made` with what the data say and `given` does not; a line on standard error tells what changed. what: its name
    there."""
    from mcuformer.data.source import say_once

    values = made.to_dict()
    found: dict[str, Any] = {"num_classes": len(data.class_names)}
    if data.shape is not None:
        found["in_channels"] = data.shape[2]
    elif data.sound or made.in_channels not in (1, 3):
        found["in_channels"] = 1 if data.sound else 3
    if data.shape is not None and isinstance(values["image_size"], int):
        size = shortest(*data.shape[:2])
        whole = {name: value for name, value in values.items() if name != "image_sizes"} | {"image_size": size}
        if not {"image_size", "image_sizes"} & set(given) and _makes_patches(type(made).from_dict, whole):
            found["image_size"] = size if isinstance(size, int) else list(size)
    changed = {name: value for name, value in found.items() if name not in given and values[name] != value}
    if not changed:
        return made
    listed = ", ".join(f"{name} = {value} instead of {values[name]}" for name, value in changed.items())
    say_once(f"{what}: {listed}, as {data.name} has; --set says otherwise")
    if "image_size" in changed:
        values.pop("image_sizes", None)  # space_for() makes those in proportion
    return type(made).from_dict(values | changed)


def _in_proportion(space: SearchSpace, read: SearchSpace) -> tuple[Size, ...] | None:
    """image_sizes for the space: of its image the same parts as `read` has of its own, where these are whole pixels and
    LEAST_PATCHES patches."""
    if space.image_size == read.image_size:
        return read.image_sizes
    height, width = sides(space.image_size)
    parts = [Fraction(sides(size)[0], sides(read.image_size)[0]) for size in read.image_sizes or ()]
    scaled = [(int(part * height), int(part * width)) for part in parts if height * part % 1 == width * part % 1 == 0]
    whole = dataclasses.replace(space, image_sizes=None).to_dict()
    sizes = [s for s in scaled if _makes_patches(type(space).from_dict, whole | {"image_sizes": [list(s)]})]
    return tuple(sizes) or None


def _makes_patches(make: Callable[[dict], Any], values: dict) -> bool:
    """Whether these values give a network of LEAST_PATCHES or more."""
    try:
        made = make(values)
    except ConfigError:
        return False
    return (made.smallest() if hasattr(made, "smallest") else made).patch_tokens >= LEAST_PATCHES


def check_before_loading(
    made: SubnetConfig | SearchSpace,
    data: Outline,
    options: TrainOptions,
    limit: int | None,
    held_out: int | None = None,
) -> None:
    """Refuses what does not fit the data, before their pixels are read."""
    from mcuformer.nas.class_weights import class_weights
    from mcuformer.nas.evaluation import check_images

    check_images(made, data.as_dataset(made.image_size, made.in_channels))
    class_weights(options, data)
    count = len(data.labels) if limit is None else min(limit, len(data.labels))
    if held_out is not None and not 0 < held_out < count:
        raise ConfigError(f"--held-out {held_out}: there are {count} training images; give 1 to {count - 1}")
