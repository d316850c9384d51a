# SPDX-License-Identifier: Apache-2.0
"""SubnetConfig: the dimensions of one Vision Transformer, the contract between search, converter and kernels."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mcuformer.checks import is_number, is_whole
from mcuformer.converter.ops.int_gelu import ACTIVATIONS
from mcuformer.converter.ops.relative_position import Relative
from mcuformer.errors import ConfigError
from mcuformer.sizes import Size, is_size, shortest, sides, size_text

MAX_TOKENS = 2048  # IntAttention
MAX_EMBED_DIM = 4096  # IntLayerNorm
MAX_HEAD_DIM = 1024  # IntAttention
MAX_FEATURES = 16384  # InPlaceFC
MAX_STEM_CHANNELS = 1024  # StemConv, StreamedStem
MAX_STEM_EXPANSION = 8
MAX_IMAGE_SIZE, MAX_IN_CHANNELS, MAX_PATCH_SIZE = 4096, 64, 256  # DecomposedPatchEmbed
MAX_DEPTH, MAX_MLP_RATIO, MAX_NORM_EPSILON = 64, 64, 1.0
MAX_PATCH_INPUTS = 65000  # DecomposedPatchEmbed

POOLS = ("mean", "mean-all", "token", "token+mean", "token+token")
FINAL_NORMS = ("before", "after", "none")
NORMS = ("pre", "post")
RELATIVE_POSITIONS = ("none", "bias", "tables")


class LayerConfig(NamedTuple):
    """The dimensions of one transformer layer, all integers."""

    num_heads: int
    kv_heads: int
    head_dim: int
    mlp_dim: int
    rank: int | None  # of both MLP matrices; None: dense
    attention_rank: int | None = None  # of qkv, and of the projection up to q_dim; None: dense

    @property
    def q_dim(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def qkv_dim(self) -> int:
        return self.q_dim + 2 * self.kv_dim

    @property
    def proj_rank(self) -> int | None:
        """Of the projection: it has q_dim inputs."""
        return None if self.attention_rank is None else min(self.attention_rank, self.q_dim)


class Readout(NamedTuple):
    """parts: (first token, number of tokens) of each mean that the head reads, one after the other. norm_before: the
    last LayerNorm works on all tokens, before pooling; norm_after: on what is pooled, also where pooling only picks
    tokens, which is equal."""

    parts: tuple[tuple[int, int], ...]
    norm_before: bool
    norm_after: bool


@dataclass(frozen=True)
class SubnetConfig:
    """A Vision Transformer (docs/how_it_works.md).

    `num_heads`, `kv_heads`, `head_dim`, `mlp_ratio`, `rank_ratio` and `attention_rank_ratio` are scalars or one value
    per layer.

    image_size   pixels, or (height, width); cropped to whole patches (a convolution stem pads instead)
    in_channels  1 for grey, 3 for RGB
    patch_size   pixels, or (height, width); with stem="conv" one power of two, made by log2(patch_size) convolutions of
                 stride 2
    embed_dim    width d of the residual stream
    depth        number of layers
    num_heads    query heads; num_heads * head_dim need not equal embed_dim
    head_dim     channels per head; default: embed_dim / num_heads
    kv_heads     key/value heads, a divisor of num_heads; default: num_heads
    mlp_ratio    hidden width of the MLP = round(mlp_ratio * embed_dim)
    rank_ratio   both MLP matrices as two factors of rank round(rank_ratio * embed_dim); None: dense
    num_classes  outputs of the head; 0: no head, the pooled tokens are the output
    stem         "patch" (one convolution, kernel = stride = patch_size) or "conv" (3x3 convolutions, stride 2)
    stem_channels  outputs of all stem convolutions except the last; default: embed_dim halved per step back, at least 8
    prefix_tokens  tokens before those of the patches: class, distillation, registers
    pool         what the head reads: "mean" of the patch tokens, "mean-all" of all tokens, "token" (the first),
                 "token+mean" (the first, then the mean of the patch tokens), "token+token" (the first two)
    final_norm   the last LayerNorm: "before" pooling, "after" it, "none"
    norm_pre     LayerNorm before the layers too
    norm         "pre": x + f(norm(x)) in each half of a layer; "post": norm(x + f(x))
    norm_epsilon of every LayerNorm
    activation   of the MLP, a key of int_gelu.ACTIVATIONS
    relative_position  of a key from a query, by rows and columns of the grid: "none", "bias" (a number per head and
                 offset is added to the scores) or "tables" (vectors per offset are added to keys and to values)
    patch_padding  pixels on every side of the image before it is cut into patches, 0 after x / 127.5 - 1; fewer than a
                 patch's
    attention_rank_ratio  the matrices before and after attention (q, k and v; the projection) as two factors each, of
                 rank round(attention_rank_ratio * embed_dim); None: dense
    stem_blocks  expansion of the inverted residual (1x1, 3x3 per channel, 1x1) behind each stem convolution except the
                 last, 0: none there; None: none at all
    """

    image_size: Size = 96
    in_channels: int = 3
    patch_size: Size = 16
    embed_dim: int = 96
    depth: int = 6
    num_heads: int | tuple[int, ...] = 3
    head_dim: int | tuple[int, ...] | None = None
    kv_heads: int | tuple[int, ...] | None = None
    mlp_ratio: float | tuple[float, ...] = 4.0
    rank_ratio: float | tuple[float | None, ...] | None = None
    num_classes: int = 10
    stem: str = "patch"
    stem_channels: tuple[int, ...] | None = None
    prefix_tokens: int = 0
    pool: str = "mean"
    final_norm: str = "before"
    norm_pre: bool = False
    norm: str = "pre"
    norm_epsilon: float = 1e-6
    activation: str = "gelu"
    relative_position: str = "none"
    patch_padding: int = 0
    attention_rank_ratio: float | tuple[float | None, ...] | None = None
    stem_blocks: tuple[int, ...] | None = None

    def __post_init__(self):
        for field in (*_PER_LAYER, "stem_channels", "stem_blocks"):
            value = getattr(self, field)
            if isinstance(value, list):
                object.__setattr__(self, field, tuple(value))
        self._check_sizes()
        whole = {
            "in_channels": (1, MAX_IN_CHANNELS), "embed_dim": (1, MAX_EMBED_DIM), "depth": (1, MAX_DEPTH),
            "num_classes": (0, MAX_FEATURES), "prefix_tokens": (0, MAX_TOKENS - 1),
        }  # fmt: skip
        for field, (least, most) in whole.items():
            if not is_whole(getattr(self, field), least, most):
                raise ConfigError(f"{field} = {getattr(self, field)!r}: must be an integer from {least} to {most}")
        self._check_stem()
        self._check_options()
        if self.tokens > MAX_TOKENS:
            raise ConfigError(
                f"image_size = {size_text(self.image_size)} with patch_size = {size_text(self.patch_size)} makes "
                f"{self.tokens} tokens, more than {MAX_TOKENS}: use a larger patch or a smaller image"
            )
        _ = self.layers  # checks every per-layer value

    def _check_sizes(self):
        for field, most in (("image_size", MAX_IMAGE_SIZE), ("patch_size", MAX_PATCH_SIZE)):
            value = getattr(self, field)
            if not is_size(value, most):
                raise ConfigError(
                    f"{field} = {value!r}: must be an integer from 1 to {most}, or (height, width) of two of them"
                )
            object.__setattr__(self, field, shortest(*sides(value)))
        if any(patch > image for patch, image in zip(self.patch_shape, self.image_shape[:2], strict=True)):
            raise ConfigError(
                f"patch_size = {size_text(self.patch_size)} is larger than image_size = {size_text(self.image_size)}: "
                "use a smaller patch"
            )

    def _check_stem(self):
        if self.stem not in ("patch", "conv"):
            raise ConfigError(f'stem = {self.stem!r}: must be "patch" or "conv"')
        size = self.patch_size
        most = 0 if self.stem == "conv" else min(self.patch_shape) - 1
        if not is_whole(self.patch_padding, 0, most):
            raise ConfigError(
                f"patch_padding = {self.patch_padding!r} with patch_size = {size_text(size)} and stem = {self.stem!r}: "
                f"must be pixels from 0 to {most}"
            )
        if self.stem == "conv" and (isinstance(size, tuple) or size < 2 or size & (size - 1)):
            raise ConfigError(
                f"patch_size = {size_text(size)} with stem = 'conv': must be a power of two, at least 2, since every "
                "stem convolution halves the image; stem = 'patch' takes any"
            )
        inputs = self.patch_shape[0] * self.patch_shape[1] * self.in_channels
        if self.stem == "patch" and inputs > MAX_PATCH_INPUTS:
            raise ConfigError(
                f"patch_size = {size_text(size)} with in_channels = {self.in_channels} is a patch of {inputs} inputs: "
                f"more than {MAX_PATCH_INPUTS}, use a smaller patch"
            )
        self._check_stem_channels()
        self._check_stem_blocks()

    def _check_options(self):
        choices = {
            "pool": POOLS, "final_norm": FINAL_NORMS, "norm": NORMS, "activation": tuple(ACTIVATIONS),
            "relative_position": RELATIVE_POSITIONS,
        }  # fmt: skip
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise ConfigError(f"{field} = {getattr(self, field)!r}: must be one of {', '.join(known)}")
        if not isinstance(self.norm_pre, bool):
            raise ConfigError(f"norm_pre = {self.norm_pre!r}: must be true or false")
        if not is_number(self.norm_epsilon) or not 0 < self.norm_epsilon <= MAX_NORM_EPSILON:
            raise ConfigError(
                f"norm_epsilon = {self.norm_epsilon!r}: must be a number in (0, {MAX_NORM_EPSILON}], usually 1e-6"
            )
        needed = self.pool.split("+").count("token")
        if self.prefix_tokens < needed:
            raise ConfigError(
                f'pool = "{self.pool}" reads {needed} prefix tokens and prefix_tokens = {self.prefix_tokens}: give '
                f'prefix_tokens = {needed} or more, or pool = "mean"'
            )

    def _check_stem_channels(self):
        if self.stem_channels is None:
            return
        if self.stem != "conv":
            raise ConfigError("stem_channels is given but stem = 'patch': leave it out, or use stem = 'conv'")
        steps = self._stem_steps
        if not isinstance(self.stem_channels, tuple) or not (
            len(self.stem_channels) == steps - 1
            and all(type(c) is int and 1 <= c <= MAX_STEM_CHANNELS for c in self.stem_channels)
        ):
            raise ConfigError(
                f"stem_channels = {self.stem_channels!r}: patch_size = {self.patch_size} needs {steps - 1} integers "
                f"from 1 to {MAX_STEM_CHANNELS} (the last convolution makes embed_dim channels)"
            )

    def _check_stem_blocks(self):
        if self.stem_blocks is None:
            return
        if self.stem != "conv":
            raise ConfigError("stem_blocks is given but stem = 'patch': leave it out, or use stem = 'conv'")
        inner = self._stem_steps - 1
        if not isinstance(self.stem_blocks, tuple) or not (
            len(self.stem_blocks) == inner and all(is_whole(e, 0, MAX_STEM_EXPANSION) for e in self.stem_blocks)
        ):
            raise ConfigError(
                f"stem_blocks = {self.stem_blocks!r}: patch_size = {self.patch_size} needs {inner} integers from 0 to "
                f"{MAX_STEM_EXPANSION}, one behind each stem convolution but the last (0: no block there)"
            )
        for expansion, channels in zip(self.stem_blocks, self.conv_channels, strict=False):
            if expansion * channels > MAX_STEM_CHANNELS:
                raise ConfigError(
                    f"stem_blocks: {expansion} behind a convolution of {channels} channels makes "
                    f"{expansion * channels}, more than {MAX_STEM_CHANNELS}: use a smaller expansion or fewer channels"
                )
        if not any(self.stem_blocks):
            object.__setattr__(self, "stem_blocks", None)

    @functools.cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return *sides(self.image_size), self.in_channels

    @functools.cached_property
    def patch_shape(self) -> tuple[int, int]:
        """Height and width of a patch."""
        return sides(self.patch_size)

    @functools.cached_property
    def grid_shape(self) -> tuple[int, int]:
        """Rows of patches, and patches per row."""
        height, width, _ = self.image_shape
        if self.stem == "patch":
            patch_height, patch_width = self.patch_shape
            both = 2 * self.patch_padding
            return (height + both) // patch_height, (width + both) // patch_width
        for _ in self.conv_channels:
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width

    @property
    def patch_tokens(self) -> int:
        """Tokens that stand for a place in the image."""
        rows, columns = self.grid_shape
        return rows * columns

    @functools.cached_property
    def tokens(self) -> int:
        """Tokens of the residual stream: the prefix, then those of the patches."""
        return self.prefix_tokens + self.patch_tokens

    @property
    def relative(self) -> Relative | None:
        """What attention knows of the places of keys and queries; None: nothing."""
        kind = self.relative_position
        return None if kind == "none" else Relative(*self.grid_shape, tables=kind == "tables")

    @property
    def readout(self) -> Readout:
        """What is between the layers and the head."""
        return _readout(self.pool, self.final_norm, self.prefix_tokens, self.patch_tokens)

    @property
    def pool_parts(self) -> tuple[tuple[int, int], ...]:
        return self.readout.parts

    @property
    def norm_before_pool(self) -> bool:
        return self.readout.norm_before

    @property
    def norm_after_pool(self) -> bool:
        return self.readout.norm_after

    @property
    def pool_dim(self) -> int:
        """Inputs of the head."""
        return len(self.pool_parts) * self.embed_dim

    @property
    def outputs(self) -> int:
        """Length of the network's output: logits, or the pooled tokens if it has no head."""
        return self.num_classes or self.pool_dim

    @property
    def _stem_steps(self) -> int:
        """Convolutions of the stem."""
        return self.patch_shape[0].bit_length() - 1

    @functools.cached_property
    def conv_channels(self) -> tuple[int, ...]:
        """Output channels of each stem convolution; empty for a patch embedding."""
        if self.stem == "patch":
            return ()
        steps = self._stem_steps
        inner = self.stem_channels or tuple(
            min(max(8, self.embed_dim >> (steps - 1 - i)), MAX_STEM_CHANNELS) for i in range(steps - 1)
        )
        return (*inner, self.embed_dim)

    @functools.cached_property
    def block_hidden(self) -> tuple[int, ...]:
        """Hidden channels of the block behind each stem convolution but the last, 0 where there is none; empty without
        any block."""
        return tuple(e * channels for e, channels in zip(self.stem_blocks or (), self.conv_channels, strict=False))

    @functools.cached_property
    def layers(self) -> tuple[LayerConfig, ...]:
        """The integer dimensions of each layer."""
        fields = [self._per_layer(field) for field in _PER_LAYER]
        return tuple(self._layer(i, *values) for i, values in enumerate(zip(*fields, strict=True)))

    def _per_layer(self, field: str) -> Sequence:
        value = getattr(self, field)
        if not isinstance(value, tuple):
            return (value,) * self.depth
        if len(value) != self.depth:
            raise ConfigError(
                f"{field} has {len(value)} values for depth = {self.depth}: give one value, or one per layer"
            )
        return value

    def _layer(self, i, num_heads, head_dim, kv_heads, mlp_ratio, rank_ratio, attention_rank_ratio) -> LayerConfig:
        def positive_int(name, value):
            if not is_whole(value, 1):
                raise ConfigError(f"{name} = {value!r} in layer {i}: must be a positive integer")

        positive_int("num_heads", num_heads)
        if head_dim is None:
            if self.embed_dim % num_heads:
                raise ConfigError(
                    f"embed_dim = {self.embed_dim} is not divisible by num_heads = {num_heads} in layer {i}: "
                    "change one of them, or give head_dim"
                )
            head_dim = self.embed_dim // num_heads
        positive_int("head_dim", head_dim)
        kv_heads = num_heads if kv_heads is None else kv_heads
        positive_int("kv_heads", kv_heads)
        if num_heads % kv_heads:
            raise ConfigError(
                f"kv_heads = {kv_heads} does not divide num_heads = {num_heads} in layer {i}: use a divisor"
            )
        if head_dim > MAX_HEAD_DIM or (num_heads + 2 * kv_heads) * head_dim > MAX_FEATURES:
            raise ConfigError(
                f"head_dim = {head_dim} with {num_heads} heads and {kv_heads} key/value heads in layer {i}: too wide, "
                f"at most {MAX_HEAD_DIM} a head, {MAX_FEATURES} for q, k and v together"
            )
        if not is_number(mlp_ratio) or not 0 < mlp_ratio <= MAX_MLP_RATIO:
            raise ConfigError(f"mlp_ratio = {mlp_ratio!r} in layer {i}: must be a number in (0, {MAX_MLP_RATIO}]")
        mlp_dim = round(mlp_ratio * self.embed_dim)
        if not 1 <= mlp_dim <= MAX_FEATURES:
            raise ConfigError(
                f"mlp_ratio = {mlp_ratio} gives a hidden width of {mlp_dim} in layer {i}: 1 to {MAX_FEATURES}"
            )
        rank = self._rank("rank_ratio", rank_ratio, i, mlp_dim)
        qkv_dim = (num_heads + 2 * kv_heads) * head_dim
        attention_rank = self._rank("attention_rank_ratio", attention_rank_ratio, i, qkv_dim)
        return LayerConfig(num_heads, kv_heads, head_dim, mlp_dim, rank, attention_rank)

    def _rank(self, field: str, ratio: float | None, i: int, most: int) -> int | None:
        """The rank of a layer's matrices, 1 to `most`."""
        if ratio is None:
            return None
        if not is_number(ratio) or not 0 < ratio <= 1:
            raise ConfigError(f"{field} = {ratio!r} in layer {i}: must be a number in (0, 1], or None")
        return max(1, min(round(ratio * self.embed_dim), most))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, as lowered (a rank above break-even runs dense)."""
        from mcuformer.converter.estimate.macs import macs  # which folds over this config's ops

        return macs(self)

    def to_dict(self) -> dict:
        """Plain values (for JSON and subnet.pt). Options that came after the first version stand in it only where they
        are not at their defaults, so that earlier versions read the networks that they know."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        for field in dataclasses.fields(self):
            if field.name in _LATER_FIELDS and values[field.name] == field.default:
                del values[field.name]
        return values

    @classmethod
    def from_dict(cls, values: dict) -> SubnetConfig:
        known = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(values, dict):
            raise ConfigError(f"a config must be a mapping of field to value, not {type(values).__name__}")
        if unknown := sorted(map(str, set(values) - known)):
            raise ConfigError(f"unknown config field {unknown[0]!r}: known are {', '.join(sorted(known))}")
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())


@functools.lru_cache(maxsize=512)  # a search space has few, and every estimate of a config asks
def _readout(pool: str, final_norm: str, prefix_tokens: int, patch_tokens: int) -> Readout:
    patches, parts, tokens = (prefix_tokens, patch_tokens), [], 0
    for name in pool.split("+"):
        if name == "mean-all":
            parts.append((0, prefix_tokens + patch_tokens))
        else:
            parts.append(patches if name == "mean" else (tokens, 1))
        tokens += name == "token"
    before = final_norm == "before" and any(count > 1 for _, count in parts)
    return Readout(tuple(parts), before, final_norm != "none" and not before)


_PER_LAYER = ("num_heads", "head_dim", "kv_heads", "mlp_ratio", "rank_ratio", "attention_rank_ratio")
_LATER_FIELDS = (
    "prefix_tokens", "pool", "final_norm", "norm_pre", "norm", "norm_epsilon", "activation", "relative_position",
    "patch_padding", "attention_rank_ratio", "stem_blocks",
)  # fmt: skip
