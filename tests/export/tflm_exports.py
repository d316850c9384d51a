# SPDX-License-Identifier: Apache-2.0
"""Models exported for TFLM, for the tests of that."""

import sys
from pathlib import Path

from mcuformer import convert
from mcuformer.converter import tflite_file
from mcuformer.converter.export import tflm
from mcuformer.converter.export.folder import write_folder
from mcuformer.converter.export.registry import Source
from mcuformer.converter.passes.staging import is_staged, with_weights

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "tflm_check"))
from tflm_check import VARIANTS  # noqa: E402, F401


def stored_graph(model):
    """The graph that a model's file holds, with its staged weights."""
    graph = tflite_file.read(model.content).graph
    return with_weights(graph, model.info["weights"], model.weights_content, "model") if is_staged(graph) else graph


def exported(net, images, options: dict, folder: Path, name: str = "model") -> Path:
    model = convert(net, images, **options)
    source = Source(model.content, stored_graph(model), model.class_names, name=name)
    return write_folder(folder, tflm.tflm_export([source]).files)
