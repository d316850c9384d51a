# SPDX-License-Identifier: Apache-2.0
"""Settings: what a state dict cannot say about its network, and where each value came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcuformer.checks import is_number, is_whole
from mcuformer.converter.ops.int_gelu import ACTIVATIONS
from mcuformer.converter.subnet_config import NORMS, POOLS
from mcuformer.errors import ConfigError


def _choice(*known: str) -> Callable[[Any], bool]:
    return lambda value: value in known


def _each(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """One value, or a list of them."""

    def checked(value: Any) -> bool:
        values = value if isinstance(value, list | tuple) else [value]
        return len(values) > 0 and all(check(one) for one in values)

    return checked


def _pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(is_whole(side, 1) for side in value)


def _finite(value: Any) -> bool:
    return is_number(value) and abs(value) < float("inf")


def _positive(value: Any) -> bool:
    return is_number(value) and 0 < value < float("inf")


# name -> (check, what it must be, an example)
KNOWN: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "arch": (lambda v: isinstance(v, str), "a name of timm's, with its tag or without", "deit_tiny_patch16_224"),
    "num_heads": (_each(lambda v: is_whole(v, 1)), "heads of attention, or a list of one per layer", "3"),
    "head_dim": (lambda v: is_whole(v, 1), "channels per head", "64"),
    "attention_scale": (_positive, "the factor of the attention's products", "0.125"),
    "activation": (_choice(*ACTIVATIONS), f"one of {', '.join(ACTIVATIONS)}", "gelu"),
    "norm_epsilon": (_positive, "the epsilon of every LayerNorm", "1e-6"),
    "mean": (_each(_finite), "the mean of pixels in [0, 1], one value or one per channel", "[0.485,0.456,0.406]"),
    "std": (_each(_positive), "the deviation of pixels in [0, 1], one value or one per channel", "[0.229,0.224,0.225]"),
    "pool": (_choice(*POOLS), f"what the head reads, one of {', '.join(POOLS)}", "token"),
    "norm": (_choice(*NORMS), "pre for x + f(norm(x)) in each half of a layer, post for norm(x + f(x))", "post"),
    "grid_shape": (_pair, "rows and columns of patches in the position table", "[14,14]"),
    "prefix_positions": (lambda v: is_whole(v, 0), "prefix tokens that the position table holds", "1"),
    "patch_size": (lambda v: is_whole(v, 1) or _pair(v), "pixels, or [height,width]", "16"),
    "embed_dim": (lambda v: is_whole(v, 1), "the subnet's width", "192"),
    "depth": (lambda v: is_whole(v, 1), "the number of layers", "13"),
    "mlp_ratio": (_each(_positive), "the MLPs' widths by embed_dim, or a list of one per layer", "3.5"),
    "change_qkv": (lambda v: isinstance(v, bool), "whether the width of q, k and v depends on the heads", "true"),
    "rank_ratio": (lambda v: is_number(v) and 0 < v <= 1, "the rank of the matrices by width", "0.9"),
}


class Settings:
    """Values by name: what the user gave, and what a module or its config says, which must not differ.

    family: for messages. names: those that the family can use; needed: those it always does. source: of `said`: "the
    module", "the checkpoint".
    """

    def __init__(
        self,
        family: str,
        names: Iterable[str],
        needed: Iterable[str],
        given: Mapping[str, Any],
        said: Mapping[str, Any],
        source: str,
    ):
        self.family = family
        self.source = source
        self.needed = tuple(needed)
        self.used: dict[str, Any] = {}
        self._values = dict(said)
        names = tuple(names)
        for name, value in given.items():
            if name not in names:
                raise ConfigError(f"unknown setting {name!r} of family {family}: known are {', '.join(sorted(names))}")
            check, meaning, _ = KNOWN[name]
            if not check(value):
                raise ConfigError(f"{name} = {value!r}: must be {meaning}")
            if name in said and not _same(said[name], value):
                raise ConfigError(f"{name} = {value!r}: {source} says {said[name]!r}; leave it out")
            self._values[name] = value

    def get(self, name: str, fixed: Any = None) -> Any:
        """The value; else `fixed`, which is what the family's code always has, or None."""
        value = self._values.get(name, fixed)
        if value is not None:
            self.used[name] = value
        return value

    def need(self, name: str) -> Any:
        """The value; ConfigError if it is not known: which ones are missing, and how to give them."""
        value = self.get(name)
        if value is not None:
            return value
        missing = [one for one in dict.fromkeys((name, *self.needed)) if self._values.get(one) is None]
        if len(missing) == 1:
            _, meaning, example = KNOWN[name]
            raise ConfigError(f"{name} is not in {self.source}: set it ({meaning}), for example {name}={example}")
        examples = " ".join(f"{one}={KNOWN[one][2]}" for one in missing)
        raise ConfigError(f"{', '.join(missing)} are not in {self.source}: set them, for example {examples}")

    def per_layer(self, name: str, layers: int) -> list[Any]:
        """need(), one value for each layer; ConfigError if it is a list of another length."""
        value = self.need(name)
        if not isinstance(value, list | tuple):
            return [value] * layers
        if len(value) != layers:
            raise ConfigError(f"{name} has {len(value)} values for {layers} layers: give one, or one per layer")
        return list(value)

    def implied(self, name: str, value: Any, by: str) -> Any:
        """The value that the weights or the family's code leave no choice of; ConfigError if another one was given."""
        given = self._values.get(name)
        if given is not None and not _same(given, value):
            raise ConfigError(f"{name} = {given!r}: {by} {value!r}; leave it out")
        self.used[name] = value
        return value


def _same(a: Any, b: Any) -> bool:
    """Equal, where (1, 2) is [1, 2] and one value stands for a list of it."""
    a, b = (list(v) if isinstance(v, list | tuple) else v for v in (a, b))
    if isinstance(a, list) != isinstance(b, list):
        many, one = (a, b) if isinstance(a, list) else (b, a)
        return all(value == one for value in many)
    return a == b
