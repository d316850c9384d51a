# SPDX-License-Identifier: Apache-2.0
"""What a live module says about itself, found without importing its library."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from mcuformer.converter.float_vit import ACTIVATIONS
from mcuformer.errors import ModelError


def class_name(module: nn.Module) -> str:
    """Such as timm.models.vision_transformer.VisionTransformer."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def activation(modules: Iterable[nn.Module]) -> str:
    """The activation that all of them compute, by trying: names differ between libraries, functions do not."""
    x = torch.linspace(-8, 8, 1601)
    found = {}
    for module in modules:
        with torch.no_grad():
            y = module(x.clone())
        name = next((name for name, f in ACTIVATIONS.items() if float((f(x) - y).abs().max()) < 2e-5), None)
        if name is None:
            raise ModelError(f"activation {class_name(module)}: none that the network has, {', '.join(ACTIVATIONS)}")
        found[name] = module
    if len(found) != 1:
        raise ModelError(
            f"activations differ between layers ({', '.join(found) or 'none found'}): one for all is needed"
        )
    return next(iter(found))


def norm_epsilon(module: nn.Module) -> float:
    """That of all LayerNorms of the module. ModelError if they differ, or if it has another kind of norm."""
    found: dict[float, str] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.LayerNorm):
            found.setdefault(part.eps, name)
        elif "norm" in type(part).__name__.lower() and not list(part.children()):
            raise ModelError(f"{name} is a {type(part).__name__}: the network has only LayerNorm")
    if len(found) != 1:
        held = ", ".join(f"{eps} in {name}" for eps, name in found.items())
        raise ModelError(f"the LayerNorms have several epsilons ({held}): the network has one" if found else
                         "no LayerNorm found: not a Vision Transformer")  # fmt: skip
    return next(iter(found))


def state_dict(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's, with ones and zeros where a LayerNorm has no weight or bias."""
    state = dict(module.state_dict())
    for name, part in module.named_modules():
        if isinstance(part, nn.LayerNorm):
            shape = part.normalized_shape
            state.setdefault(f"{name}.weight", torch.ones(shape))
            state.setdefault(f"{name}.bias", torch.zeros(shape))
    return state
