# SPDX-License-Identifier: Apache-2.0
"""SearchSpace: the subnets that a supernet holds, read from YAML; sampled, mutated and crossed over.

    space = load_space("fashion-mnist")          # one of the package's (nas/spaces), or a path
    config = space.sample(random.Random(0))      # a SubnetConfig, one value per layer

A file holds the fields of SubnetConfig; lists are choices. num_heads, kv_heads, mlp_ratio, rank_ratio and
attention_rank_ratio are chosen per layer; image_sizes, patch_size, stem, stem_channels, stem_blocks, embed_dim and
depth once; the others are one value for all subnets. image_size is that of the data, image_sizes are what networks
take: the same or smaller, images are resized. stem: patch or conv, or a list of both to choose from. stem_channels and
stem_blocks, of conv alone: a list, or a list of them to choose from, any of the one with any of the other. kv_heads
"all": as many as num_heads.
patch_padding: {28: 6} is that of patches of 28; others have none. budgets: bytes of arena that the space is made for.
Without rank_ratio the MLPs are dense; with it they are two factors; a rank above break-even runs dense (lowering
multiplies the factors), so 1.0 means dense. So do the matrices around attention with attention_rank_ratio.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mcuformer.checks import is_number, is_whole, whole
from mcuformer.converter.subnet_config import Size, SubnetConfig
from mcuformer.errors import ConfigError
from mcuformer.files import read_text
from mcuformer.sizes import is_size, read_size, shortest, sides, size_text

SPACES = Path(__file__).parent / "spaces"
MAX_DEPTH = 64
STEMS = ("patch", "conv")
MAX_UNIFORM = 50_000  # subnets with equal layers in a space: all are checked when it is read
FIXED = (
    "prefix_tokens", "pool", "final_norm", "norm_pre", "norm", "norm_epsilon", "activation", "relative_position",
)  # fmt: skip
"""Fields of SubnetConfig that all subnets share; in files only where they are not at their defaults."""


@dataclass(frozen=True)
class EvolutionRange:
    """Where the window (rank ratio, tokens) of a space may move, and by what rule (evolve_space.py).

    rank_ratio, patch_size  the values along each axis, in order; a window holds some adjacent ones
    window                  how many values a window holds along each axis
    threshold               h of each axis: how much S must gain, per unit of rank ratio and per token, for a step
    start                   places (index of the window's first value along each axis) of the first spaces
    """

    rank_ratio: tuple[float, ...]
    patch_size: tuple[int, ...]
    window: tuple[int, int]
    threshold: tuple[float, float]
    start: tuple[tuple[int, int], ...]

    @property
    def places(self) -> tuple[int, int]:
        """Number of places of a window along each axis."""
        return (len(self.rank_ratio) - self.window[0] + 1, len(self.patch_size) - self.window[1] + 1)

    def every(self) -> list[tuple[int, int]]:
        """All places."""
        ranks, patches = self.places
        return [(rank, patch) for rank in range(ranks) for patch in range(patches)]


class Stem(NamedTuple):
    """A choice of stem, stem_channels and stem_blocks, those of the largest patch. channels None: of a patch embedding,
    or they follow embed_dim; blocks None: none."""

    kind: str
    channels: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None


class Genes(NamedTuple):
    """A subnet's choices that are not of a layer."""

    patch_size: Size
    embed_dim: int
    depth: int
    image_size: Size
    stem: Stem


@dataclass(frozen=True)
class SearchSpace:
    """All subnets that can be made from the choices (see the module's docstring). Made by load_space, or from tuples.

    image_size: pixels, or (height, width), and so is each choice of image_sizes and patch_size. patch_padding: (patch
    size, pixels) of the patches that have some. flip: whether a mirrored image is as good as the image; training
    mirrors half of them by default then.

    Raises ConfigError if a choice is empty or gives no valid network.
    """

    image_size: Size
    in_channels: int
    num_classes: int
    patch_size: tuple[Size, ...]
    embed_dim: tuple[int, ...]
    depth: tuple[int, ...]
    head_dim: int
    num_heads: tuple[int, ...]
    mlp_ratio: tuple[float, ...]
    kv_heads: tuple[int | str, ...] = ("all",)
    rank_ratio: tuple[float, ...] | None = None
    stem: str | tuple[str, ...] = "patch"
    stem_channels: tuple[int, ...] | tuple[tuple[int, ...], ...] | None = None
    prefix_tokens: int = SubnetConfig.prefix_tokens
    pool: str = SubnetConfig.pool
    final_norm: str = SubnetConfig.final_norm
    norm_pre: bool = SubnetConfig.norm_pre
    norm: str = SubnetConfig.norm
    norm_epsilon: float = SubnetConfig.norm_epsilon
    activation: str = SubnetConfig.activation
    relative_position: str = SubnetConfig.relative_position
    flip: bool = True
    evolution: EvolutionRange | None = None
    attention_rank_ratio: tuple[float, ...] | None = None
    patch_padding: tuple[tuple[Size, int], ...] = ()
    image_sizes: tuple[Size, ...] | None = None
    budgets: tuple[int, ...] = ()
    stem_blocks: tuple[int, ...] | tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", _size(self.image_size))
        for name in SIZES:
            if isinstance(sizes := getattr(self, name), tuple):
                object.__setattr__(self, name, tuple(map(_size, sizes)))
        if isinstance(self.stem, tuple) and len(self.stem) == 1:
            object.__setattr__(self, "stem", self.stem[0])
        for name in CHOICES:
            if (value := getattr(self, name)) is not None or name not in OPTIONAL:
                _check_choices(name, value)
        self._check_fixed()
        self._check_images()
        if max(self.depth) > MAX_DEPTH:
            raise ConfigError(f"depth = {max(self.depth)}: must be at most {MAX_DEPTH}")
        self._check_stem()
        self._check_heads()
        count = len(self._outsides()) * len(self.embed_dim) * len(self.layer_choices)
        if count > MAX_UNIFORM:
            raise ConfigError(f"{count:,} subnets with equal layers are more than {MAX_UNIFORM:,}: give fewer choices")
        for _ in self.uniform(min(self.depth)):  # every choice gives a valid network
            pass
        first = self._first_genes()
        for depth in self.depth:
            self._config(first._replace(depth=depth), (self.layer_choices[0],) * depth)

    def _check_fixed(self) -> None:
        for name in FIXED:
            if isinstance(value := getattr(self, name), tuple):
                raise ConfigError(f"{name} = {_plain(value)!r}: not a list of choices; give one value for all subnets")
        sizes = self.patch_size if self.evolution is None else self.evolution.patch_size
        for size, _ in self.patch_padding:
            if size not in sizes:
                raise ConfigError(
                    f"patch_padding: {_plain(size)} is none of patch_size = {_plain(sizes)}; leave it out, or "
                    "add it there"
                )
        if not isinstance(self.flip, bool):
            raise ConfigError(f"flip = {_plain(self.flip)!r}: must be true or false")

    def _check_images(self) -> None:
        if not is_size(self.image_size):
            return  # a network's config says what is wrong
        height, width = sides(self.image_size)
        for size in self.image_sizes or ():
            rows, columns = sides(size)
            if rows * width != columns * height or rows > height:
                raise ConfigError(
                    f"image_sizes: {_plain(size)} is not image_size = {_plain(self.image_size)} made smaller; give "
                    "sizes of the same shape, that of the data at most"
                )
        if not (isinstance(self.budgets, tuple) and all(map(_is_positive, self.budgets))):
            raise ConfigError(f"budgets = {_plain(self.budgets)!r}: give a list of bytes of arena")

    def _check_stem(self) -> None:
        if self.stem not in (*STEMS, STEMS, STEMS[::-1]):
            raise ConfigError(f"stem = {_plain(self.stem)!r}: must be patch, conv, or [patch, conv]")
        for name, least in (("stem_channels", 1), ("stem_blocks", 0)):
            self._check_stem_choices(name, least)
        if "conv" in self.kinds:
            self._check_convolutions()

    def _check_stem_choices(self, name: str, least: int) -> None:
        """Those of stem_channels or stem_blocks, of whole numbers from `least`."""
        given = _lists(value := getattr(self, name))
        for choice in given:
            if not (isinstance(choice, tuple) and all(is_whole(number, least) for number in choice)):
                raise ConfigError(
                    f"{name} = {_plain(value)!r}: give a list of whole numbers from {least}, or a list of such lists"
                )
        if len(set(given)) < len(given):
            raise ConfigError(f"{name} = {_plain(value)!r}: the same choice twice; leave one out")
        if given and "conv" not in self.kinds:
            raise ConfigError(f"{name} is given but stem = 'patch': leave it out, or use stem: conv")

    def _check_convolutions(self) -> None:
        sizes = self.patch_size if self.evolution is None else (*self.patch_size, *self.evolution.patch_size)
        for size in sizes:
            if isinstance(size, tuple):
                raise ConfigError(
                    f"patch_size: {_plain(size)} with stem = 'conv': a convolution stem is for square patches; give "
                    "one number, or stem: patch"
                )
        if len(self.patch_size) > 1 and self.stem_channels is None:
            raise ConfigError(
                f"patch_size = {_plain(self.patch_size)} with stem = 'conv': of several, stems share their first "
                "convolutions; give stem_channels"
            )
        used = max(_inner_convolutions(size) for size in sizes if not isinstance(size, tuple))
        for name in ("stem_channels", "stem_blocks"):
            for choice in _lists(getattr(self, name)):
                if len(choice) != used:
                    raise ConfigError(
                        f"{name} = {list(choice)}: patches of {max(sizes)} have {used} convolutions before the last "
                        "one; give as many"
                    )

    def _check_heads(self) -> None:
        for heads in self.num_heads:
            if not any(h == heads for h, _ in self._head_pairs()):
                raise ConfigError(
                    f"num_heads: {heads} is divided by none of kv_heads = {list(self.kv_heads)}; add 1 or all"
                )
        for kv in self.kv_heads:
            if kv != "all" and not any(k == kv for _, k in self._head_pairs()):
                raise ConfigError(f"kv_heads: {kv} divides none of num_heads = {list(self.num_heads)}; leave it out")

    def _head_pairs(self) -> list[tuple[int, int]]:
        pairs = {(h, h if isinstance(kv, str) else kv) for h in self.num_heads for kv in self.kv_heads}  # "all"
        return sorted((h, kv) for h, kv in pairs if kv > 0 and h % kv == 0)

    @functools.cached_property
    def layer_choices(self) -> tuple[tuple, ...]:
        """Every (num_heads, kv_heads, mlp_ratio, rank_ratio, attention_rank_ratio) that a layer may have."""
        ranks = (getattr(self, name) or (None,) for name in RANKS)
        return tuple((*pair, *rest) for pair, *rest in itertools.product(self._head_pairs(), self.mlp_ratio, *ranks))

    @property
    def images(self) -> tuple[Size, ...]:
        """Choices of image_size."""
        return (self.image_size,) if self.image_sizes is None else self.image_sizes

    @property
    def kinds(self) -> tuple[str, ...]:
        """Choices of stem, without their channels."""
        return (self.stem,) if isinstance(self.stem, str) else self.stem

    @functools.cached_property
    def stems(self) -> tuple[Stem, ...]:
        """Choices of a stem with its channels and blocks."""
        channels, blocks = _lists(self.stem_channels) or (None,), _lists(self.stem_blocks) or (None,)
        convolutions = tuple(Stem("conv", *both) for both in itertools.product(channels, blocks))
        of_kind = {"patch": (Stem("patch"),), "conv": convolutions}
        return tuple(stem for kind in self.kinds for stem in of_kind[kind])

    @functools.cached_property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Choices of a subnet's Genes, by name."""
        return {
            "patch_size": self.patch_size, "embed_dim": self.embed_dim, "depth": self.depth, "image_size": self.images,
            "stem": self.stems,
        }  # fmt: skip

    def genes(self, config: SubnetConfig) -> Genes:
        """A subnet's; ValueError if it is none of this space."""
        of_patch = {self.stem_for(config.patch_size, stem): stem for stem in reversed(self.stems)}
        stem = of_patch.get(Stem(config.stem, config.stem_channels, config.stem_blocks))
        if stem is None:
            raise ValueError(
                f"the space has no stem {config.stem} with stem_channels = {config.stem_channels} and stem_blocks = "
                f"{config.stem_blocks}"
            )
        return Genes(config.patch_size, config.embed_dim, config.depth, config.image_size, stem)

    @property
    def subnets(self) -> int:
        """How many subnets there are."""
        layer = len(self.layer_choices)
        return len(self._outsides()) * len(self.embed_dim) * sum(layer**depth for depth in self.depth)

    def _outsides(self) -> list[tuple[Size, Size, Stem]]:
        """Every image size, patch size and stem; stems that are the same for a patch once."""
        found = []
        for image, patch in itertools.product(self.images, self.patch_size):
            stems = {self.stem_for(patch, stem): stem for stem in reversed(self.stems)}
            found += [(image, patch, stem) for stem in reversed(stems.values())]
        return found

    def _first_genes(self) -> Genes:
        return Genes(*(choices[0] for choices in self.choices.values()))

    def _config(self, genes: Genes, layers: tuple[tuple, ...]) -> SubnetConfig:
        """The subnet of these choices; of more layers than genes.depth the first."""
        patch_size, embed_dim, depth, image_size, chosen_stem = genes
        stem, channels, blocks = self.stem_for(patch_size, chosen_stem)
        num_heads, kv_heads, mlp_ratio, *chosen = zip(*layers[:depth], strict=True)
        ranks: Any = {n: None if getattr(self, n) is None else rank for n, rank in zip(RANKS, chosen, strict=True)}
        return SubnetConfig(
            image_size=image_size, in_channels=self.in_channels, num_classes=self.num_classes, stem=stem,
            stem_channels=channels, stem_blocks=blocks, patch_size=patch_size,
            patch_padding=self.padding_for(patch_size), embed_dim=embed_dim, depth=depth, head_dim=self.head_dim,
            num_heads=num_heads, kv_heads=kv_heads, mlp_ratio=mlp_ratio,
            **ranks, **{name: getattr(self, name) for name in FIXED},
        )  # fmt: skip

    def stem_for(self, patch_size: Size, stem: Stem) -> Stem:
        """Of a choice of a stem, that of a patch: a smaller one has fewer convolutions, the first ones; the last one
        makes embed_dim channels."""
        if isinstance(patch_size, tuple):
            return stem
        kind, *lists = stem
        channels, blocks = (None if one is None else one[: _inner_convolutions(patch_size)] for one in lists)
        return Stem(kind, channels, blocks if blocks and any(blocks) else None)

    def padding_for(self, patch_size: Size) -> int:
        """Pixels around the image for patches of this size."""
        return dict(self.patch_padding).get(patch_size, 0)

    def uniform(self, depth: int) -> Iterator[SubnetConfig]:
        """Every subnet of a depth whose layers are equal."""
        for (image, patch, stem), width in itertools.product(self._outsides(), self.embed_dim):
            for layer in self.layer_choices:
                yield self._config(Genes(patch, width, depth, image, stem), (layer,) * depth)

    def every(self) -> Iterator[SubnetConfig]:
        """Every subnet; check with `subnets` first how many there are."""
        for (image, patch, stem), width, depth in itertools.product(self._outsides(), self.embed_dim, self.depth):
            for layers in itertools.product(self.layer_choices, repeat=depth):
                yield self._config(Genes(patch, width, depth, image, stem), layers)

    def embeddings(self) -> Iterator[SubnetConfig]:
        """A subnet for every image size, patch size, stem and embed_dim: all that decides how an image becomes
        tokens."""
        depth = min(self.depth)
        for (image, patch, stem), width in itertools.product(self._outsides(), self.embed_dim):
            yield self._config(Genes(patch, width, depth, image, stem), self.layer_choices[:1] * depth)

    @functools.cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image of the data."""
        return *sides(self.image_size), self.in_channels

    @functools.cached_property
    def _by_tokens(self) -> tuple[tuple[Size, Size, Stem], ...]:
        """_outsides() from the fewest tokens to the most; of equals, the smaller image, the larger patch, a patch
        embedding, the narrower stem and smaller blocks first."""
        depth = min(self.depth)

        def order(outside: tuple[Size, Size, Stem]) -> tuple[int, ...]:
            image, patch, stem = outside
            config = self._config(Genes(patch, self.embed_dim[0], depth, image, stem), self.layer_choices[:1] * depth)
            widths = STEMS.index(stem.kind), sum(stem.channels or ()), sum(stem.blocks or ())
            return config.patch_tokens, math.prod(sides(image)), -math.prod(config.patch_shape), *widths

        return tuple(sorted(self._outsides(), key=order))

    def largest(self) -> SubnetConfig:
        """The subnet with the most tokens and the largest of every other choice."""
        heads = max(self.num_heads)
        kv_heads = max(kv for h, kv in self._head_pairs() if h == heads)
        layer = (heads, kv_heads, max(self.mlp_ratio), *(_of(max, getattr(self, name)) for name in RANKS))
        depth, (image, patch, stem) = max(self.depth), self._by_tokens[-1]
        return self._config(Genes(patch, max(self.embed_dim), depth, image, stem), (layer,) * depth)

    def smallest(self) -> SubnetConfig:
        """The subnet with the fewest tokens and the smallest of every other choice."""
        heads = min(self.num_heads)
        kv_heads = min(kv for h, kv in self._head_pairs() if h == heads)
        layer = (heads, kv_heads, min(self.mlp_ratio), *(_of(min, getattr(self, name)) for name in RANKS))
        depth, (image, patch, stem) = min(self.depth), self._by_tokens[0]
        return self._config(Genes(patch, min(self.embed_dim), depth, image, stem), (layer,) * depth)

    def sample(self, rng: random.Random) -> SubnetConfig:
        """A random subnet, every choice equally likely."""
        genes = Genes(*(_one_of(rng, name, choices) for name, choices in self.choices.items()))
        return self._config(genes, tuple(rng.choice(self.layer_choices) for _ in range(genes.depth)))

    def mutate(self, config: SubnetConfig, rng: random.Random, probability: float) -> SubnetConfig:
        """The subnet with each of its choices drawn again with this probability."""

        def drawn(value, choices):
            return rng.choice(choices) if rng.random() < probability else value

        genes = Genes._make(
            value if is_fixed(name, choices) else drawn(value, choices)
            for value, (name, choices) in zip(self.genes(config), self.choices.items(), strict=True)
        )
        layers = [drawn(layer, self.layer_choices) for layer in _layers(config)]
        layers += [rng.choice(self.layer_choices) for _ in range(genes.depth - len(layers))]
        return self._config(genes, tuple(layers))

    def cross(self, a: SubnetConfig, b: SubnetConfig, rng: random.Random) -> SubnetConfig:
        """Each choice from one of two subnets; layers that only the deeper one has come from it."""
        both = zip(self.choices.items(), self.genes(a), self.genes(b), strict=True)
        genes = Genes._make(x if is_fixed(*choice) else rng.choice((x, y)) for choice, x, y in both)
        short, long = sorted((_layers(a), _layers(b)), key=len)
        layers = [rng.choice(pair) for pair in zip(short, long, strict=False)] + long[len(short) :]
        return self._config(genes, tuple(layers))

    def holds(self, config: SubnetConfig) -> bool:
        """Whether the subnet can be made from the choices."""
        try:
            genes, layers = self.genes(config), tuple(_layers(config))
            if any(gene not in choices for gene, choices in zip(genes, self.choices.values(), strict=True)):
                return False
            return set(layers) <= set(self.layer_choices) and config == self._config(genes, layers)
        except (TypeError, ValueError, ConfigError):
            return False

    @property
    def evolution_range(self) -> EvolutionRange:
        """`evolution`; ConfigError if the space has none."""
        if self.evolution is None:
            raise ConfigError(
                "the space has no key evolution: where its window may move (see nas/spaces/mcuformer.yaml)"
            )
        return self.evolution

    def window(self, place: tuple[int, int]) -> SearchSpace:
        """The space at a place of its evolution range."""
        evolution = self.evolution_range
        (rank, patch), (ranks, patches) = place, evolution.window
        return dataclasses.replace(
            self,
            rank_ratio=evolution.rank_ratio[rank : rank + ranks],
            patch_size=evolution.patch_size[patch : patch + patches],
        )

    def to_dict(self) -> dict:
        """Plain values, as in the YAML file."""
        values = dataclasses.asdict(self)
        values["evolution"] = None if self.evolution is None else _plain(values["evolution"])
        default = {field.name: field.default for field in dataclasses.fields(self)}
        for name in (*FIXED, "flip", "budgets"):
            if values[name] == default[name]:
                del values[name]
        padding = {size_text(size): pixels for size, pixels in values.pop("patch_padding")}  # JSON's keys are text
        if padding:
            values["patch_padding"] = padding
        return {name: _plain(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: object) -> SearchSpace:
        """ConfigError if a key is unknown or missing, or the choices give no valid networks."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        if not isinstance(values, dict):
            raise ConfigError(f"a space must be a mapping of keys to choices, not {type(values).__name__}")
        _check_keys(values, fields, "")
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        for name in ("stem_channels", "stem_blocks"):
            if isinstance(stems := given.get(name), tuple):
                given[name] = tuple(tuple(stem) if isinstance(stem, list) else stem for stem in stems)
        for name in ("in_channels", "num_classes", "head_dim"):
            whole(name, _plain(given[name]), 1)
        if isinstance(given.get("norm_epsilon"), str):
            given["norm_epsilon"] = _number(given["norm_epsilon"])
        if "patch_padding" in given:
            given["patch_padding"] = _padding(given["patch_padding"])
        if given.get("evolution") is not None:
            given["evolution"] = _evolution(given["evolution"], given)
        space = cls(**given)
        if space.evolution is not None:
            for place in space.evolution.every():
                space.window(place)  # each gives valid networks
        return space


RANKS = ("rank_ratio", "attention_rank_ratio")  # choices of a layer, or None
SIZES = ("patch_size", "image_sizes")
CHOICES = (*SIZES, "embed_dim", "depth", "num_heads", "kv_heads", "mlp_ratio", *RANKS)
OPTIONAL = ("image_sizes", *RANKS)
ALWAYS_DRAWN = ("patch_size", "embed_dim", "depth")  # of one choice too: so seeds give what they gave


def is_fixed(name: str, choices: tuple) -> bool:
    """Whether a gene has one value, and so is neither drawn nor predicted from."""
    return len(choices) == 1 and name not in ALWAYS_DRAWN


def _one_of(rng: random.Random, name: str, choices: tuple) -> Any:
    return choices[0] if is_fixed(name, choices) else rng.choice(choices)


def _check_choices(name: str, value: Any) -> None:
    if not isinstance(value, tuple) or not value:
        raise ConfigError(f"{name} = {_plain(value)!r}: give a list of at least one choice")
    for choice in value:
        if name == "kv_heads" and choice == "all":
            continue
        if name in ("mlp_ratio", *RANKS):
            if not is_number(choice):
                raise ConfigError(f"{name}: {_plain(choice)!r} is not a number; give a list of numbers")
        elif name in SIZES:
            if not is_size(choice):
                raise ConfigError(
                    f"{name}: {_plain(choice)!r} is not a whole number from 1, nor [height, width]; give a list of them"
                )
        elif not is_whole(choice, 1):
            raise ConfigError(f"{name}: {_plain(choice)!r} is not a whole number from 1; give a list of them")
    if len(set(value)) < len(value):
        raise ConfigError(f"{name} = {_plain(value)!r}: the same choice twice; leave one out")


def _of(pick: Callable[[tuple[float, ...]], float], choices: tuple[float, ...] | None) -> float | None:
    return None if choices is None else pick(choices)


def _lists(value: Any) -> tuple[Any, ...]:
    """The choices in a list of numbers, which is one, or a list of such lists; none if it is left out."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return value
    return () if value is None else (value,)


def _is_positive(value: object) -> bool:
    return is_whole(value, 1)


def _size(value: Any) -> Any:
    """A size as SubnetConfig keeps it, from whole numbers, [98, 40] or 98x40; anything else as it is."""
    if isinstance(value, str):
        value = read_size(value) or value
    return shortest(*sides(value)) if is_size(value) else value


def _padding(values: object) -> tuple[tuple[Size, int], ...]:
    if not isinstance(values, dict):
        raise ConfigError(f"patch_padding = {_plain(values)!r}: give pixels for some patch sizes, such as {{28: 6}}")
    found = {_size(str(size)): pixels for size, pixels in values.items()}
    if len(found) < len(values):
        raise ConfigError(f"patch_padding = {values!r}: the same patch size twice; leave one out")
    return tuple(found.items())


def _number(text: str) -> float | str:
    """YAML reads 1e-5, without a point, as text."""
    try:
        return float(text)
    except ValueError:
        return text


def _inner_convolutions(patch_size: int) -> int:
    """Convolutions of a stem before the last, which makes embed_dim channels: each halves the image."""
    return max(0, patch_size.bit_length() - 2)


def _layers(config: SubnetConfig) -> list[tuple]:
    ranks = (getattr(config, name) or (None,) * config.depth for name in RANKS)
    per_layer: Any = (config.num_heads, config.kv_heads, config.mlp_ratio, *ranks)  # one value per layer each
    return list(zip(*per_layer, strict=True))


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _check_keys(values: dict, fields: dict, where: str) -> None:
    if unknown := sorted(map(str, set(values) - set(fields))):
        raise ConfigError(f"unknown key {where}{unknown[0]}: known are {', '.join(fields)}")
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise ConfigError(f"{where}{name} is missing; add it")


def _evolution(values, space: dict) -> EvolutionRange:
    if not isinstance(values, dict):
        raise ConfigError(f"evolution = {values!r}: must be a mapping")
    _check_keys(values, {f.name: f for f in dataclasses.fields(EvolutionRange)}, "evolution.")
    try:
        made = EvolutionRange(
            tuple(values["rank_ratio"]),
            tuple(values["patch_size"]),
            tuple(values["window"]),
            tuple(values["threshold"]),
            tuple(tuple(place) for place in values["start"]),
        )
    except TypeError as error:
        raise ConfigError(f"evolution: {error}; see nas/spaces for one that is right") from error
    if space.get("rank_ratio") is None:
        raise ConfigError("evolution without rank_ratio: give the space the rank ratios it starts with")
    if len(made.window) != 2 or not all(map(_is_positive, made.window)):
        raise ConfigError(f"evolution.window = {_plain(made.window)}: must be two whole numbers from 1")
    for name, legal, words in (
        ("rank_ratio", is_number, "numbers"),
        ("patch_size", _is_positive, "whole numbers from 1"),
    ):
        axis, width = getattr(made, name), made.window[name == "patch_size"]
        if not all(map(legal, axis)):
            raise ConfigError(f"evolution.{name} = {_plain(axis)}: must be {words}")
        if list(axis) != sorted(set(axis)) or width > len(axis):
            raise ConfigError(
                f"evolution.{name} = {list(axis)}: must rise and hold at least the window's {width} values"
            )
    if len(made.threshold) != 2 or not all(is_number(h) and 0 < h < math.inf for h in made.threshold):
        raise ConfigError(f"evolution.threshold = {_plain(made.threshold)}: must be two numbers above 0")
    for place in made.start:
        if len(place) != 2 or not all(map(is_whole, place)):
            raise ConfigError(f"evolution.start: {_plain(place)} is not a place; give two whole numbers")
        if not all(0 <= at < most for at, most in zip(place, made.places, strict=True)):
            raise ConfigError(
                f"evolution.start: {list(place)} is outside the {made.places[0]} x {made.places[1]} places"
            )
    return made


def load_space(source: str | os.PathLike) -> SearchSpace:
    """The space in a YAML file, or the package's of that name. ConfigError names the file, the key and why."""
    builtin = SPACES / f"{source}.yaml"
    path = builtin if builtin.is_file() else Path(source)
    try:
        values = yaml.safe_load(read_text(path))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in SPACES.glob("*.yaml")))
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file, or one of {known}") from error
    except Exception as error:  # of PyYAML: a date that is none, a tag without a value, lists too deep
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    try:
        return SearchSpace.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def space_yaml(space: SearchSpace) -> str:
    """The text of a file that load_space() reads as the same space."""
    return yaml.safe_dump(space.to_dict(), sort_keys=False, default_flow_style=None)
