# SPDX-License-Identifier: Apache-2.0
"""Every model that an op cannot run is refused in Prepare, with a line that names the op, the tensor or option."""

from __future__ import annotations

import good_models
import numpy as np
import pytest
import tiny_model
from test_limits import limit
from tiny_model import Activation

from mcuformer import kernel_library
from mcuformer.converter.ops import OPS, PREFIX

MOST_TOKENS = limit("mcuf_types.h", "MCUF_MAX_TOKENS")


def setting(name, value):
    """Replaces an input."""
    return lambda model: model.inputs.__setitem__(name, value)


def dropping(name):
    """Takes an input out of the list."""
    return lambda model: model.inputs.pop(name)


def typed(name, dtype):
    """Another type for an input."""

    def change(model):
        value = model.inputs[name]
        if isinstance(value, Activation):
            value.dtype = dtype
        else:
            model.inputs[name] = value.astype(dtype)

    return change


def output(shape, dtype="int8"):
    return lambda model: setattr(model, "output", Activation(shape, dtype))


def option(name, value):
    return lambda model: model.options.__setitem__(name, value)


def no_option(name):
    return lambda model: model.options.pop(name)


def all_options(value):
    return lambda model: setattr(model, "options", value)


def element(name, index, value):
    """One value of a constant."""

    def change(model):
        model.inputs[name][index] = value

    return change


def outputs(count):
    return lambda model: setattr(model, "extra_outputs", count - 1)


def both(*changes):
    def change(model):
        for one in changes:
            one(model)

    return change


def second_range(first, count, multiplier=1 << 25):
    """Of TokenMean."""
    values = {"second_token": first, "second_count": count, "second_multiplier": multiplier}
    return both(*(option(name, value) for name, value in values.items()))


# What every op with these inputs or options refuses.
def missing(name):
    return (setting(name, None), f"tensor '{name}' is missing")


def wrong_type(name, dtype, needed):
    return (typed(name, dtype), f"tensor '{name}' has {dtype}", f"needs {needed}")


def not_constant(name, shape, dtype):
    return (setting(name, Activation(shape, dtype)), f"tensor '{name}' is not a constant")


def constant_cases(name, shape, dtype, wrong):
    return [wrong_type(name, wrong, dtype), not_constant(name, shape, dtype)]


def option_cases(name, low, high):
    return [
        (no_option(name), f"option '{name}' is missing"),
        (option(name, "1"), f"option '{name}' is missing or not an integer"),
        (option(name, low - 1), f"option '{name}' is {low - 1}, needs {low} to {high}"),
        (option(name, high + 1), f"option '{name}' is {high + 1}, needs {low} to {high}"),
    ]


def requantisation_cases(n):
    return [
        missing("bias"),
        missing("multiplier"),
        *constant_cases("bias", (n,), "int32", wrong="int16"),
        wrong_type("multiplier", "float32", "int32"),
        (setting("bias", np.zeros(n + 1, np.int32)), f"'bias' has shape [{n + 1}], needs [{n}]"),
        (setting("multiplier", np.zeros((1, n), np.int32)), f"'multiplier' has shape [1,{n}], needs [{n}]"),
        (element("bias", 1, (1 << 30) + 1), "constant is out of its legal range", "bias from -2^30"),
        (element("bias", 0, -(1 << 30) - 1), "constant is out of its legal range"),
        (element("multiplier", n - 1, -1), "constant is out of its legal range"),
    ]


def position_cases(name, partner, shape):
    return [
        (setting(partner, None), f"{name} and {partner} go together"),
        (setting(name, None), f"{name} and {partner} go together"),
        wrong_type(name, "int16", "int8"),
        wrong_type(partner, "int32", "int16"),
        (setting(partner, np.zeros(shape[-1] + 1, np.int16)), f"'{partner}' has shape"),
    ]


CASES = {
    "decomposed_patch_embed": [
        (setting("image", None), "option 'image_height' is missing"),
        (setting("weights", None), "tensor 'weights' is missing, and so is option 'tile_bytes'"),
        wrong_type("image", "uint8", "int8"),
        *constant_cases("weights", (4, 6, 48), "int8", wrong="uint8"),
        (setting("image", Activation((13, 10, 3))), "'image' has shape [13,10,3]", "batch of 1"),
        (setting("image", Activation((2, 13, 10, 3))), "'image' has shape [2,13,10,3]", "batch of 1"),
        (setting("image", Activation((1, 13, 4, 3))), "smaller than a patch"),
        (setting("image", Activation((1, 13, 10, 65))), "the image is too large"),
        (setting("weights", np.zeros((3, 6, 48), np.int8)), "'weights' has shape [3,6,48], needs [4,6,48]"),
        (output((1, 5, 6)), "'output' has shape [1,5,6], needs [1,4,6]"),
        (output((4, 6)), "'output' has shape [4,6]"),
        (output((1, 4, 6), "int32"), "'output' has int32"),
        (output((1, 4, 6), "int16"), "constant is out of its legal range", "zero point 0"),
        (both(output((1, 4, 6), "int16"), option("zero_point", 0)), None),  # a wide residual stream
        (
            both(output((1, 5, 6), "int16"), option("zero_point", 0), setting("prefix", np.zeros((1, 6), np.int8))),
            "'prefix' has int8",
            "needs int16",
        ),
        (setting("position", np.zeros((4, 6), np.int8)), "'position' has shape [4,6], needs [1,4,6]"),
        not_constant("position", (1, 4, 6), "int8"),
        (option("patch_size", 4), "'output' has shape"),
        (both(dropping("prefix"), dropping("position_scale")), "position and position_scale go together"),
        (dropping("prefix"), None),
        (setting("prefix", np.zeros((2, 6), np.int8)), "'output' has shape [1,4,6], needs [1,6,6]"),
        (option("patch_width", 4), "'weights' has shape [4,6,48], needs [2,6,48]"),
        (option("patch_width", 3), "'output' has shape [1,4,6], needs [1,6,6]"),
        (outputs(2), "has 2 outputs, needs 1"),
        (both(*map(dropping, ("prefix", "position_scale", "position", "multiplier"))), "3 inputs, needs 4 to 7"),
        (
            both(
                setting("image", Activation((1, 13, 10, 65))),
                setting("weights", np.zeros((4, 6, 1040), np.int8)),
            ),
            "the image is too large",
        ),
        *requantisation_cases(6),
        *position_cases("position", "position_scale", (1, 4, 6)),
        *option_cases("patch_size", 1, 256),
        *option_cases("zero_point", -128, 127),
    ],
    "thin_patch_embed": [
        (dropping("prefix"), "'output' has shape [1,9,6], needs [1,6,6]"),
        (both(dropping("prefix"), output((1, 6, 6))), None),
        (setting("prefix", None), "'output' has shape [1,9,6], needs [1,6,6]"),
        (both(setting("prefix", np.zeros((1, 6), np.int8)), output((1, 7, 6))), None),
        (setting("prefix", np.zeros((2, 6), np.int8)), "'output' has shape [1,9,6], needs [1,8,6]"),
        (setting("prefix", np.zeros((3, 5), np.int8)), "'prefix' has shape [3,5], needs [3,6]"),
        (setting("prefix", np.zeros((1, 3, 6), np.int8)), "'prefix' has shape [1,3,6], needs [1,6]"),
        (
            both(setting("prefix", np.zeros((MOST_TOKENS - 5, 6), np.int8)), output((1, MOST_TOKENS + 1, 6))),
            "a size is out of range",
            f"[1,{MOST_TOKENS + 1},6]",
        ),
        (both(setting("prefix", np.zeros((MOST_TOKENS - 6, 6), np.int8)), output((1, MOST_TOKENS, 6))), None),
        *constant_cases("prefix", (3, 6), "int8", wrong="uint8"),
        (setting("extra", np.zeros(6, np.int8)), "has 8 inputs, needs 4 to 7"),
        (setting("weights", np.zeros((1, 6, 48), np.int8)), "'weights' has shape [1,6,48], needs [2,6,48]"),
        (both(option("packing", 1), setting("weights", np.zeros((2, 3, 48, 2), np.int8))), None),
        (option("patch_width", 11), "smaller than a patch"),
        (option("patch_size", 14), "smaller than a patch"),
        (option("patch_width", 0), "option 'patch_width' is 0, needs 1 to 256"),
        (option("patch_width", 257), "option 'patch_width' is 257, needs 1 to 256"),
        (no_option("patch_width"), "'output' has shape [1,9,6], needs [1,33,6]"),
        (option("padding", 0), None),
        (option("padding", 1), "'output' has shape [1,9,6], needs [1,10,6]"),
        (both(option("padding", 1), output((1, 10, 6)), setting("position", np.zeros((1, 7, 6), np.int8))), None),
        (option("padding", 2), "padding must be smaller than the patch"),
        (option("padding", -1), "option 'padding' is -1, needs 0 to 255"),
        (option("padding", 256), "option 'padding' is 256, needs 0 to 255"),
        (both(option("patch_size", 9), option("patch_width", 2)), "'output' has shape [1,9,6], needs [1,8,6]"),
        *(
            (
                both(
                    setting("image", None),
                    *(option(f"image_{side}", pixels) for side, pixels in sides.items()),
                    option("channels", 3),
                    option("strip_rows", strip_rows),
                ),
                words,
            )
            for strip_rows, words in (
                (2, None),
                (1, "the patch's height or a field's"),
                (3, "the patch's height"),
                (4, "the patch's height"),
                (0, "option 'strip_rows' is 0"),
            )
            for sides in ({"height": 13, "width": 10},)
        ),
        *requantisation_cases(6),
        *position_cases("position", "position_scale", (1, 6, 6)),
        *option_cases("patch_size", 1, 256),
    ],
    "stem_conv": [
        missing("x"),
        missing("weights"),
        wrong_type("x", "int16", "int8"),
        not_constant("weights", (5, 3, 3, 3), "int8"),
        (setting("x", Activation((7, 6, 3))), "'x' has shape [7,6,3]", "batch of 1"),
        (setting("weights", np.zeros((5, 3, 3, 4), np.int8)), "'weights' has shape [5,3,3,4], needs [5,3,3,3]"),
        (setting("weights", np.zeros((5, 27), np.int8)), "'weights' has shape [5,27], needs [5,3,3,3]"),
        (option("packing", 2), "option 'packing' is 2, needs 0 to 1"),
        (option("packing", -1), "option 'packing' is -1, needs 0 to 1"),
        (option("packing", 1), "'weights' has shape [5,3,3,3], needs [3,28,2]"),
        (both(option("packing", 1), setting("weights", np.zeros((3, 28, 2), np.int8))), None),
        (both(option("packing", 1), setting("weights", np.zeros((3, 27, 2), np.int8))), "needs [3,28,2]"),
        (both(option("packing", 1), setting("weights", np.zeros((5, 27), np.int8))), "needs [3,28,2]"),
        (setting("weights", np.zeros((3, 28, 2), np.int8)), "'weights' has shape [3,28,2], needs [5,3,3,3]"),
        (output((1, 3, 3, 5)), "'output' has shape [1,3,3,5], needs [1,4,3,5]"),
        (output((1, 11, 5)), "'output' has shape [1,11,5], needs [1,12,5]"),
        (output((2, 12, 5)), "'output' has shape [2,12,5], needs [1,12,5]"),
        (setting("position", np.zeros((1, 12, 5), np.int8)), "position and position_scale go together"),
        (setting("position", np.zeros((1, 4, 3, 5), np.int8)), "'position' has shape [1,4,3,5], needs [1,12,5]"),
        (setting("position_scale", np.zeros(5, np.int16)), "position and position_scale go together"),
        (dropping("prefix"), None),
        (setting("prefix", np.zeros((2, 5), np.int8)), "'output' has shape [1,4,3,5], needs [1,14,5]"),
        (both(setting("prefix", np.zeros((2, 5), np.int8)), output((1, 12, 5))), "has shape [1,12,5], needs [1,14,5]"),
        (both(setting("prefix", np.zeros((2, 5), np.int8)), output((1, 14, 5))), None),
        (
            both(setting("prefix", np.zeros((2, 4), np.int8)), output((1, 14, 5))),
            "'prefix' has shape [2,4], needs [2,5]",
        ),
        (
            both(setting("prefix", np.zeros((MOST_TOKENS - 11, 5), np.int8)), output((1, MOST_TOKENS + 1, 5))),
            "a size is out of range",
            f"[1,{MOST_TOKENS + 1},5]",
        ),
        (both(setting("prefix", np.zeros((2, 5), np.uint8)), output((1, 14, 5))), "'prefix' has uint8", "needs int8"),
        (both(setting("prefix", Activation((2, 5))), output((1, 14, 5))), "'prefix' is not a constant"),
        (setting("extra", np.zeros(5, np.int8)), "has 8 inputs, needs 4 to 7"),
        *requantisation_cases(5),
        *option_cases("zero_point", -128, 127),
        *option_cases("pad_value", -128, 127),
        *option_cases("act_min", -128, 127),
    ],
    "int_layer_norm": [
        missing("x"),
        missing("gamma"),
        missing("beta"),
        wrong_type("x", "int32", "int8"),
        (typed("x", "int16"), None),  # of a wide residual stream, which has neither zero point nor factors
        (
            both(typed("x", "int16"), option("zero_point", 1)),
            "constant is out of its legal range",
            "none for an int16 x",
        ),
        (
            both(typed("x", "int16"), setting("factor", np.ones(8, np.uint8))),
            "constant is out of its legal range",
            "none for an int16 x",
        ),
        (output((1, 4, 8), "int16"), "'output' has int16"),
        *constant_cases("gamma", (8,), "int16", wrong="int8"),
        wrong_type("beta", "int16", "int32"),
        (setting("gamma", np.zeros(7, np.int16)), "'gamma' has shape [7], needs [8]"),
        (setting("beta", np.zeros(9, np.int32)), "'beta' has shape [9], needs [8]"),
        (setting("factor", np.ones(8, np.int8)), "'factor' has int8", "needs uint8"),
        (setting("factor", np.full(8, 128, np.uint8)), "constant is out of its legal range", "factor"),
        (setting("factor", np.ones((8, 1), np.uint8)), "'factor' has shape [8,1], needs [8]"),
        (element("beta", 3, (1 << 31) - 1), "constant is out of its legal range", "|beta|"),
        (output((1, 4, 7)), "'output' has shape [1,4,7], needs [1,4,8]"),
        (output((4, 8)), "'output' has shape [4,8], needs [1,4,8]"),
        (dropping("factor"), None),  # optional inputs at the end may be left out
        (setting("gamma", np.zeros(3, np.int16)), "'gamma' has shape [3], needs [8]"),
        (setting("gamma", np.zeros(16, np.int16)), "'gamma' has shape [16], needs [8]"),
        (setting("gamma", np.zeros(4, np.int16)), "'beta' has shape [8], needs [4]"),
        (setting("gamma", np.zeros((4, 2), np.int16)), "'gamma' has shape [4,2], needs [4]"),
        (both(setting("gamma", np.zeros(4, np.int16)), setting("beta", np.zeros(4, np.int32))), None),
        (
            both(
                setting("x", Activation((1, 16))),
                output((1, 16)),
                setting("factor", np.ones(16, np.uint8)),
            ),
            "'factor' has shape [16], needs [8]",
        ),
        *option_cases("zero_point", -128, 127),
        *option_cases("epsilon", 0, 1 << 60),
    ],
    "in_place_fc": [
        (option("packing", 2), "option 'packing' is 2, needs 0 to 1"),
        (option("packing", 1), "'weights' has shape [7,8], needs [4,8,2]"),
        (both(option("packing", 1), setting("weights", np.zeros((4, 8, 2), np.int8))), None),
        (setting("weights", np.zeros((4, 8, 2), np.int8)), "'weights' has shape [4,8,2], needs [7,8]"),
        missing("x"),
        (setting("weights", None), "tensor 'weights' is missing, and so is option 'tile_bytes'"),
        wrong_type("x", "int32", "int8"),
        *constant_cases("weights", (7, 8), "int8", wrong="int16"),
        (setting("weights", np.zeros((6, 8), np.int8)), "'weights' has shape [6,8], needs [7,8]"),
        (setting("weights", np.zeros(7, np.int8)), "'weights' has shape [7]"),
        (setting("weights", np.zeros((7, 13), np.int8)), "a size is out of range", "[1,5,12]"),
        (setting("x", Activation((1, 6, 12))), "'output' has shape [1,5,7], needs [1,6,7]"),
        (setting("x", Activation((5, 12))), "'output' has shape [1,5,7], needs [5,7]"),
        (setting("x", Activation((1, 1, 1, 5, 12))), "'x' has shape", "needs 1 to 4 dimensions"),
        (setting("gelu_table", np.zeros(255, np.int8)), "'gelu_table' has shape [255], needs [256]"),
        (setting("gelu_table", np.zeros(256, np.uint8)), "'gelu_table' has uint8"),
        not_constant("gelu_table", (256,), "int8"),
        (setting("residual", None), "residual and residual_scale go together"),
        (setting("residual_scale", None), "residual and residual_scale go together"),
        (setting("residual", Activation((1, 5, 8))), "'residual' has shape [1,5,8], needs [1,5,7]"),
        wrong_type("residual", "int16", "int8"),
        wrong_type("residual_scale", "int32", "int16"),
        (setting("residual_scale", np.zeros(8, np.int16)), "'residual_scale' has shape [8], needs [7]"),
        (both(setting("residual", None), setting("residual_scale", None)), None),
        (both(setting("x", Activation((5, 12))), setting("residual", Activation((5, 7))), output((5, 7))), None),
        *requantisation_cases(7),
        *option_cases("zero_point", -128, 127),
        (all_options(None), "option 'zero_point' is missing"),
        (all_options(b""), "option 'zero_point' is missing"),
        (all_options(b"\xff" * 40), "option 'zero_point' is missing"),
        (all_options(1), "option 'zero_point' is missing"),
    ],
    "staged_patch_embed": [
        (no_option("tile_bytes"), "tensor 'weights' is missing, and so is option 'tile_bytes'"),
        (option("tile_bytes", 92), "a size is out of range"),
        (option("tile_bytes", 98), "a size is out of range"),
        (option("blocks", 2), "a size is out of range"),
        (both(setting("prefix", np.zeros((2, 6), np.int8)), output((1, 6, 6))), None),
        (option("weights_offset", (1 << 31) - 4 * 6 * 48), "a size is out of range"),
        (option("weights_offset", (1 << 31) - 4 * 6 * 48 - 1), None),
        *option_cases("weights_offset", 0, (1 << 31) - 1),
        *option_cases("blocks", 1, 16384),
    ],
    "staged_fc": [
        (no_option("tile_bytes"), "tensor 'weights' is missing, and so is option 'tile_bytes'"),
        (option("tile_bytes", -16), "option 'tile_bytes' is -16, needs 4 to 1048576"),
        (option("tile_bytes", (1 << 20) + 4), "needs 4 to 1048576"),
        (option("tile_bytes", 12), "a size is out of range"),
        (option("in_features", 13), "a size is out of range"),
        (option("weights_offset", (1 << 31) - 56), "a size is out of range"),
        *option_cases("weights_offset", 0, (1 << 31) - 1),
        *option_cases("in_features", 1, 16384),
        *option_cases("block", 1, 16384),
    ],
    "int_gelu": [
        missing("x"),
        missing("table"),
        (dropping("table"), "has 1 inputs, needs 2 to 2"),
        wrong_type("x", "uint8", "int8"),
        *constant_cases("table", (256,), "int8", wrong="int16"),
        (setting("table", np.zeros(257, np.int8)), "'table' has shape [257], needs [256]"),
        (output((2, 15)), "'output' has shape [2,15], needs [2,3,5]"),
        # 2^32 elements: the interpreter counts them in 32 bits and allocates none
        (both(setting("x", Activation((1 << 16, 1 << 16))), output((1 << 16, 1 << 16))), "too many elements"),
        (outputs(3), "has 3 outputs, needs 1"),
    ],
    "int_attention": [
        missing("qkv"),
        missing("head_params"),
        wrong_type("qkv", "int16", "int8"),
        *constant_cases("head_params", (2, 4), "int32", wrong="int16"),
        (setting("qkv", Activation((2, 6, 16))), "'qkv' has shape [2,6,16]", "batch of 1"),
        (setting("qkv", Activation((6, 16))), "'qkv' has shape [6,16]"),
        (setting("head_params", np.zeros((2, 3), np.int32)), "'head_params' has shape [2,3], needs [2,4]"),
        (setting("head_params", np.zeros(6, np.int32)), "'head_params' has shape [6]"),
        (element("head_params", (1, 0), -1), "constant is out of its legal range", "score_multiplier"),
        (element("head_params", (0, 1), (1 << 30) - 1), "constant is out of its legal range", "out_multiplier"),
        (element("head_params", (0, 3), 16), "constant is out of its legal range", "score_shift"),
        (element("head_params", (0, 2), 13), "constant is out of its legal range", "out_exponent"),
        (output((1, 6, 9)), "'output' has shape [1,6,9], needs [1,6,8]"),
        (output((1, 7, 16)), "'output' has shape [1,7,16], needs [1,6,16]"),
        (output((1, 6, 8)), None),  # heads * head_dim
        (both(setting("qkv", Activation((1, 6, 15))), output((1, 6, 15))), "a size is out of range"),
        (both(setting("qkv", Activation((1, 2048, 16))), output((1, 2048, 16))), None),
        (both(setting("qkv", Activation((1, 2049, 16))), output((1, 2049, 16))), "a size is out of range"),
        (
            both(setting("qkv", Activation((1, 513, 16))), output((1, 513, 16)), element("head_params", (0, 2), 12)),
            "out_exponent from -8 to 12, less",
        ),
        (option("kv_heads", 3), "a size is out of range"),
        *option_cases("head_dim", 1, 1024),
        *option_cases("kv_heads", 1, 16384),
        *option_cases("zero_point", -128, 127),
    ],
    "biased_attention": [
        *constant_cases("relative_params", (2, 2), "int32", wrong="int16"),
        *constant_cases("relative_bias", (2, 12), "int16", wrong="int8"),
        (setting("relative_params", None), "relative_params go with relative_bias, or"),
        (setting("relative_bias", None), "relative_params go with relative_bias, or"),
        (setting("relative_params", np.zeros((1, 2), np.int32)), "'relative_params' has shape [1,2], needs [2,2]"),
        (setting("relative_bias", np.zeros((2, 9), np.int16)), "'relative_bias' has shape [2,9], needs [2,12]"),
        (setting("relative_bias", np.zeros((1, 12), np.int16)), "'relative_bias' has shape [1,12], needs [2,12]"),
        (element("relative_params", (0, 0), 5), "factor of biases from 1 to head_dim"),
        (element("relative_params", (0, 0), 0), "factor of biases from 1 to head_dim"),
        (element("relative_params", (1, 1), 1), "constant is out of its legal range"),
        (element("head_params", (0, 3), 11), None),
        (element("head_params", (0, 3), 12), "constant is out of its legal range"),
        (option("grid_columns", 4), "more than the tokens"),
        (option("grid_columns", 1), "'relative_bias' has shape [2,12], needs [2,6]"),
        *option_cases("grid_rows", 1, 2048),
        *option_cases("grid_columns", 1, 2048),
    ],
    "table_attention": [
        *constant_cases("relative_keys", (8, 4), "int8", wrong="int16"),
        *constant_cases("relative_values", (8, 4), "int8", wrong="int16"),
        (setting("relative_keys", None), "relative_keys and relative_values go together"),
        (setting("relative_values", None), "relative_keys and relative_values go together"),
        (setting("relative_params", None), "relative_params go with relative_bias, or"),
        (setting("relative_bias", np.zeros((2, 15), np.int16)), "relative_params go with relative_bias, or"),
        (setting("relative_keys", np.zeros((9, 4), np.int8)), "'relative_keys' has shape [9,4], needs [8,4]"),
        (setting("relative_values", np.zeros((8, 5), np.int8)), "'relative_values' has shape [8,5], needs [8,4]"),
        (element("relative_params", (0, 0), -1), "constant is out of its legal range"),
        (element("relative_params", (0, 1), -1), "constant is out of its legal range"),
        (option("grid_rows", 1), "'relative_keys' has shape [8,4], needs [7,4]"),
    ],
    "token_mean": [
        missing("x"),
        wrong_type("x", "int32", "int8"),
        (typed("x", "int16"), "x and output have different types"),
        (both(typed("x", "int16"), output((1, 3), "int16")), None),  # of a wide residual stream
        (
            both(typed("x", "int16"), output((1, 3), "int16"), option("in_zero_point", 1)),
            "constant is out of its legal range",
            "0 for int16",
        ),
        (setting("x", Activation((2, 4, 3))), "'x' has shape [2,4,3]", "batch of 1"),
        (setting("x", Activation((4, 3))), "'x' has shape [4,3]"),
        (output((1, 4)), "'output' has shape [1,4], needs [1,3]"),
        (output((3,)), "'output' has shape [3], needs [1,3]"),
        (output((1, 3), "int32"), "'output' has int32"),
        (setting("extra", np.zeros(3, np.int8)), "has 2 inputs, needs 1 to 1"),
        *option_cases("in_zero_point", -128, 127),
        *option_cases("zero_point", -128, 127),
        *option_cases("multiplier", 0, (1 << 31) - 1),
        (option("token_count", 4), None),
        (option("token_count", 0), "option 'token_count' is 0, needs 1 to 4"),
        (option("token_count", 5), "option 'token_count' is 5, needs 1 to 4"),
        (option("token_count", 1 << 32), "option 'token_count' is 4294967296, needs 1 to 4"),
        (option("first_token", 1), "a size is out of range"),
        (both(option("first_token", 3), option("token_count", 1)), None),
        (both(option("first_token", 3), option("token_count", 2)), "option 'token_count' is 2, needs 1 to 1"),
        (option("first_token", 4), "option 'first_token' is 4, needs 0 to 3"),
        (option("first_token", -1), "option 'first_token' is -1, needs 0 to 3"),
        (option("second_token", 1), "a size is out of range"),
        (option("second_token", 4), "option 'second_token' is 4, needs 0 to 3"),
        (option("second_count", 1), "option 'second_multiplier' is missing"),
        (option("second_multiplier", 1), "option 'second_multiplier' is 1, needs 0 to 0"),
        (both(second_range(1, 3), output((1, 6))), None),
        (second_range(1, 3), "'output' has shape [1,3], needs [1,6]"),
        (both(second_range(1, 4), output((1, 6))), "option 'second_count' is 4, needs 1 to 3"),
        (both(second_range(1, 3, -1), output((1, 6))), "option 'second_multiplier' is -1, needs 0 to 2147483647"),
        (both(second_range(1, 3, 1 << 31), output((1, 6))), "option 'second_multiplier' is 2147483648"),
        (output((1, 6)), "'output' has shape [1,6], needs [1,3]"),
    ],
}
TABLE = [(op, change, words) for op, cases in CASES.items() for change, *words in cases]
IDS = [f"{op}-{i}-{words[0] or 'accepted'}" for i, (op, _, words) in enumerate(TABLE)]


def test_every_op_has_a_good_model_and_cases():
    """Those with params in one tensor are in test_streamed_rejects.py."""
    own = {PREFIX + kind for kind, module in OPS.items() if not hasattr(module, "LAYOUT")}
    assert {make().op for make in good_models.ALL.values()} == own
    assert CASES.keys() == good_models.ALL.keys()


@pytest.mark.parametrize(("op", "change", "words"), TABLE, ids=IDS)
def test_changed_model(op, change, words):
    good = good_models.ALL[op]()
    data = good.changed(change).to_bytes()
    if words == [None]:  # valid all the same
        tiny_model.interpreter(data, arena_size=1 << 18)
        return
    with pytest.raises(RuntimeError):
        tiny_model.interpreter(data)
    message = kernel_library.last_log()
    assert message.startswith(good.op + ": ")
    for word in words:
        assert word in message


@pytest.mark.parametrize("op", good_models.ALL)
def test_no_output_and_no_activation_is_a_constant(op):
    """An op would write into the model: into flash, in firmware. Overwritten inputs are outputs too."""
    model = good_models.ALL[op]()
    changes = {"output": lambda m: setattr(m, "output", np.zeros(m.output.shape, np.int8))}
    for name, value in model.inputs.items():
        if isinstance(value, Activation):
            changes[name] = setting(name, np.zeros(value.shape, np.int8))
    for name, change in changes.items():
        with pytest.raises(RuntimeError):
            tiny_model.interpreter(model.changed(change).to_bytes())
        want = f"{model.op}: tensor '{name}' is a constant of the model, needs an activation"
        assert kernel_library.last_log() == want


@pytest.mark.parametrize("op", [op for op in good_models.ALL if op.startswith("staged")])
def test_staged_weights_without_a_source(op):
    model = good_models.ALL[op]()
    shapes = [value.shape for value in model.inputs.values() if isinstance(value, Activation)]
    with pytest.raises(RuntimeError):
        tiny_model.run(model, *(np.zeros(shape, np.int8) for shape in shapes))
    assert kernel_library.last_log() == f"{model.op}: no source of weights: set an mcuf_external_context"


@pytest.mark.parametrize("op", [op for op in good_models.ALL if not op.startswith("staged")])
def test_good_model_runs(op):
    model = good_models.ALL[op]()
    shapes = [value.shape for value in model.inputs.values() if isinstance(value, Activation)]
    values = [np.random.default_rng(2).integers(-128, 128, shape).astype(np.int8) for shape in shapes]
    result = tiny_model.run(model, *values)
    assert result.shape == model.output.shape and result.dtype == np.int8
    assert kernel_library.last_log() == ""


def test_gelu_and_mean_of_known_values():
    gelu = good_models.int_gelu()
    x = np.arange(-15, 15).astype(np.int8).reshape(2, 3, 5)
    np.testing.assert_array_equal(tiny_model.run(gelu, x), -1 - x)
    mean = good_models.token_mean()
    x = np.array([[[4, -8, 100], [8, -8, 100], [4, -8, 100], [8, -8, 100]]], np.int8)
    np.testing.assert_array_equal(tiny_model.run(mean, x), [[6, -8, 100]])
    first = both(option("token_count", 1), option("multiplier", 1 << 25))  # a copy of the first token
    two = mean.changed(both(first, second_range(2, 2, 1 << 24), output((1, 6))))
    np.testing.assert_array_equal(tiny_model.run(two, x), [[4, -8, 100, 6, -8, 100]])
    np.testing.assert_array_equal(tiny_model.run(two, x, offsets=[0, 0]), [[4, -8, 100, 6, -8, 100]])


def test_stem_output_as_tokens_is_the_same():
    stem = good_models.stem_conv()
    x = np.random.default_rng(3).integers(-128, 128, (1, 7, 6, 3)).astype(np.int8)
    image = tiny_model.run(stem, x)
    tokens = tiny_model.run(stem.changed(output((1, 12, 5))), x)
    np.testing.assert_array_equal(image.reshape(1, 12, 5), tokens)


def test_output_over_input_gives_the_same():
    fc = good_models.in_place_fc().changed(both(setting("residual", None), setting("residual_scale", None)))
    x = np.random.default_rng(4).integers(-128, 128, (1, 5, 12)).astype(np.int8)
    apart = tiny_model.run(fc, x)
    # Tensors: x, the constants weights to gelu_table, output.
    np.testing.assert_array_equal(tiny_model.run(fc, x, offsets=[0, -1, -1, -1, -1, 0]), apart)


def test_overlap_that_is_not_allowed_is_an_error_of_the_run():
    fc = good_models.in_place_fc().changed(both(setting("residual", None), setting("residual_scale", None)))
    with pytest.raises(RuntimeError):
        tiny_model.run(fc, np.zeros((1, 5, 12), np.int8), offsets=[0, -1, -1, -1, -1, 16])
    assert kernel_library.last_log().startswith("mcuformer.InPlaceFC: tensors overlap in memory")


@pytest.mark.parametrize("seed", range(200))
def test_damaged_options_are_refused_or_read_as_integers(seed):
    """Whatever stands in the options, the op prepares or refuses; it never crashes."""
    from flatbuffers import flexbuffers

    rng = np.random.default_rng(seed)
    model = good_models.decomposed_patch_embed()
    raw = bytearray(flexbuffers.Dumps(model.options))
    for _ in range(rng.integers(1, 4)):
        raw[rng.integers(len(raw))] = rng.integers(256)
    model.options = bytes(raw[: rng.integers(len(raw) + 1)] if seed % 4 == 0 else raw)
    try:
        tiny_model.interpreter(model.to_bytes())
    except RuntimeError:
        assert kernel_library.last_log().startswith(model.op)
