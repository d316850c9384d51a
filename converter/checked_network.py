# SPDX-License-Identifier: Apache-2.0
"""Whether a float network is the one that its config describes, and one that can be lowered."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from mcuformer.converter.calibrate import check_weights
from mcuformer.converter.float_vit import Attention, FloatViT, Layer, Mlp, StemBlock
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError, ModelError

LARGEST_WEIGHT = 1e4
"""In size. Of networks that were trained, a few reach 100. One far above the others takes all of the int8 range."""

WRAPPERS = ("_orig_mod", "module")
"""Where torch.compile, DataParallel and averaged models keep the network; the names of its weights begin with it."""

FORWARDS = (FloatViT, Layer, Attention, Mlp, StemBlock)
# What a module computes, besides its tensors.
ATTRIBUTES: dict[type, tuple[str, ...]] = {
    nn.Conv2d: ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    nn.LayerNorm: ("normalized_shape",),
    Layer: ("post_norm",),
    Attention: ("layer",),
    Mlp: ("activation",),
}
# What may be missing, and the values that change nothing.
NEUTRAL = {
    nn.Linear: {"bias": torch.zeros},
    nn.Conv2d: {"bias": torch.zeros},
    nn.LayerNorm: {"weight": torch.ones, "bias": torch.zeros},
    nn.BatchNorm2d: {"weight": torch.ones, "bias": torch.zeros},
}


def innermost(net: Any) -> Any:
    """The module in DataParallel, DistributedDataParallel, torch.compile and averaged models; all else as it is."""
    while isinstance(net, nn.Module) and (held := [name for name in WRAPPERS if name in net._modules]):
        net = net._modules[held[0]]
    return net


def unwrapped(net: Any) -> FloatViT:
    """The network itself, out of DataParallel, DistributedDataParallel, torch.compile and averaged models.

    ConfigError, with the fix, if it is none.
    """
    net = innermost(net)
    if isinstance(net, FloatViT):
        return net
    raise ConfigError(f"a {type(net).__name__} is no network to convert: {_instead(net)}")


def without_wrappers(state: dict[str, torch.Tensor], more: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """A state dict without what WRAPPERS, and `more` of them, put before all its names."""
    prefixes = [f"{wrapper}." for wrapper in (*WRAPPERS, *more)]
    while state and (prefix := next((p for p in prefixes if all(name.startswith(p) for name in state)), None)):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def unusual(tensor: torch.Tensor) -> str | None:
    """What a tensor is, in words, if it is not plain numbers in memory."""
    if tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta:
        return None
    return f"a tensor of an unusual kind ({tensor.layout}, {tensor.dtype}, on {tensor.device})"


def _instead(net: Any) -> str:
    if isinstance(net, str) or hasattr(net, "__fspath__"):
        return "read the file, with mcuformer.nas.load_subnet(path)"
    if isinstance(net, Mapping):
        return "net = build_subnet(config), then net.load_state_dict(...), and give net"
    if isinstance(net, SubnetConfig):
        return "it has no weights; build_subnet(config) makes a network of it, mcuformer.nas.train trains that"
    if isinstance(net, nn.Module) and hasattr(net, "extract"):
        return "choose a subnet of it, with .extract(config)"
    if isinstance(net, nn.Module):
        return "mcuformer.import_vit reads Vision Transformers of other libraries"
    return "give what build_subnet, load_subnet or import_vit returns"


def checked(net: Any) -> FloatViT:
    """A copy of the network, float32 on the CPU and whole: what is missing and changes nothing is there.

    ConfigError if it is no network, ModelError if it is not the one that its config describes, or has weights that
    int8 cannot hold.
    """
    net = unwrapped(net)
    if not isinstance(net.config, SubnetConfig):
        raise ModelError(f"net.config is a {type(net.config).__name__}, not a SubnetConfig: give the network's own")
    with torch.device("meta"):
        wanted = FloatViT(net.config)
    _check_structure(net, wanted)
    try:
        net = copy.deepcopy(net)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"the network cannot be copied ({reason}): give one made by load_subnet") from error
    net = net.to("cpu", torch.float32)
    for name, want in wanted.named_modules():
        module = net.get_submodule(name)
        for part, values in NEUTRAL.get(type(want), {}).items():
            if (tensor := getattr(want, part)) is not None and getattr(module, part) is None:
                setattr(module, part, nn.Parameter(values(tensor.shape)))
    _check_weights(net)
    return net


def _check_structure(net: FloatViT, wanted: FloatViT) -> None:
    for name, want in wanted.named_modules():
        module, path = _part(net, name), f"{name}." if name else ""
        _check_module(name or "the network", module, want)
        for part, tensor in _tensors(want):
            _check_tensor(f"{path}{part}", module, part, tensor, net.config)
        for part, value in vars(want).items():
            if value is None and not part.startswith("_") and getattr(module, part, None) is not None:
                raise ModelError(f"{path}{part} is there, but not in the network of its config: change one of the two")
        for part in module._modules if isinstance(want, nn.ModuleList | nn.ModuleDict) else ():
            if part not in want._modules:
                raise ModelError(f"{path}{part} is there, but not in the network of its config: change one of the two")
        for part, _ in _tensors(module):
            if part not in dict(_tensors(want)):
                raise ModelError(
                    f"{path}{part} is nothing that the network of its config has, and would be left out: give a "
                    "network without it (pruning, weight norm and adapters must be merged first)"
                )


def _part(net: nn.Module, name: str) -> nn.Module:
    """A module by name; ModelError if there is none."""
    try:
        return net.get_submodule(name)
    except AttributeError as error:
        raise ModelError(f"{name} is missing, but in the network of its config: {_how_to_leave_out(name)}") from error


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """A module's own parameters and buffers."""
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _check_module(name: str, module: nn.Module, want: nn.Module) -> None:
    """That it computes what the wanted one does."""
    kind, wanted = type(module), type(want)
    if hasattr(module, "parametrizations"):
        raise ModelError(
            f"{name} has a parametrization: convert after leaving fake_quantised(), or remove it with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    same = issubclass(kind, wanted) and kind.forward is wanted.forward if wanted in FORWARDS else kind is wanted
    if not same or "forward" in vars(module):
        what = "with another forward" if issubclass(kind, wanted) else f"not a {wanted.__name__}"
        raise ModelError(f"{name} is a {kind.__name__}, {what}, as its config says: {_how_to_leave_out(name)}")
    for attribute in ATTRIBUTES.get(wanted, ()):
        if (mine := getattr(module, attribute)) != (theirs := getattr(want, attribute)):
            raise ModelError(
                f"{name}.{attribute} = {_named(mine)}, but {_named(theirs)} by its config: change one of the two"
            )


def _named(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


def _how_to_leave_out(name: str) -> str:
    fixes = {
        "head": "a network without a head has num_classes = 0 in its config",
        "norm": 'a network without it has final_norm = "none" in its config',
        "norm_pre": "a network without it has norm_pre = False in its config",
    }
    return fixes.get(name, "int8 ops are made for this module alone; train the network with it")


def _check_tensor(name: str, module: nn.Module, part: str, want: torch.Tensor, config: SubnetConfig) -> None:
    tensor = getattr(module, part, None)
    if tensor is None and part in NEUTRAL.get(type(module), {}):
        return
    if tensor is None or not isinstance(tensor, torch.Tensor):
        raise ModelError(f"{name} is missing, but in the network of its config: give a network that has it")
    if kind := unusual(tensor):
        raise ModelError(f"{name} is {kind}")
    if tensor.is_complex() or tensor.is_floating_point() != want.is_floating_point():
        raise ModelError(f"{name} is {tensor.dtype}, not {want.dtype}: give the float weights that were trained")
    if tensor.shape != want.shape:
        fix = "change the config with the network"
        if name in ("head.weight", "head.bias"):
            fix = f"net.config = dataclasses.replace(net.config, num_classes={len(tensor)})"
            fix = fix if len(tensor) != config.num_classes else "change the head with the network"
        raise ModelError(f"{name} has shape {list(tensor.shape)}, but {list(want.shape)} by its config: {fix}")


def _check_weights(net: FloatViT) -> None:
    """ModelError if a weight is not finite, or far above all that training makes."""
    check_weights(net)
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "running_var")) or not value.numel():
            continue
        if value.is_floating_point() and value.abs().max() > LARGEST_WEIGHT:
            at = torch.unravel_index(value.abs().argmax(), value.shape)
            raise ModelError(
                f"weight {name}{[int(i) for i in at]} = {value[at].item():g}: int8 would lose all others beside it; "
                f"weights up to {LARGEST_WEIGHT:g} in size are possible; train or copy the network again"
            )
