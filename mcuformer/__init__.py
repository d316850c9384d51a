# SPDX-License-Identifier: Apache-2.0
"""MCUFormer: Vision Transformers on microcontrollers.

from mcuformer import SubnetConfig, convert, Interpreter
net = mcuformer.nas.build_subnet(SubnetConfig())
model = convert(net, calibration=images)     # images: uint8 NHWC
logits = Interpreter(model)(images)
"""

from __future__ import annotations

import importlib

# Public names and where they live; loaded on first use, so that running a model needs no torch.
_PUBLIC = {
    "SubnetConfig": "mcuformer.converter.subnet_config",
    "QuantisationOptions": "mcuformer.converter.lower",
    "Model": "mcuformer.converter.model",
    "convert": "mcuformer.converter.model",
    "import_vit": "mcuformer.converter.importers",
    "Interpreter": "mcuformer.interpreter",
    "run_op": "mcuformer.interpreter",
    "McuformerError": "mcuformer.errors",
}
_MODULES = ("nas", "converter", "data", "boards")

__all__ = [*_PUBLIC, *_MODULES]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"mcuformer.{name}")
    raise AttributeError(f"module 'mcuformer' has no attribute {name!r}")
