# SPDX-License-Identifier: Apache-2.0
"""The params of a Streamed op have one layout in Python and one in C, streamed_layout.h: both list the same names."""

from __future__ import annotations

import re

import pytest

from mcuformer import sources
from mcuformer.converter.ops import OPS, params_blob, stem_block, streamed_stem

HEADER = (sources.kernels_folder() / "kernels" / "streamed_layout.h").read_text()


def python_names(op: str) -> tuple[list[str], list[str]]:
    """Scalars and sections of an op. What repeats with every layer is listed for the first, as the header has it."""
    layout = OPS[op].LAYOUT
    scalars, sections = list(layout.scalars), ["scalars", *layout.dtypes]
    if layout.repeated:
        first, second = (name.removesuffix("_weights") for name in OPS[op].WEIGHTS[:2])
        scalars.append(f"{first}_{layout.repeated}")
        sections = sections[: sections.index(f"{second}_weights") + 1]
    return scalars, sections


LAYOUT = {
    "streamed_attention": python_names("StreamedAttention"), "streamed_mlp": python_names("StreamedMLP"),
    "streamed_stem": python_names("StreamedStem"),
}  # fmt: skip


def enum_names(op: str, enum: str) -> list[str]:
    """The names of an enum of streamed_layout.h as Python writes them, without the count at its end."""
    space = re.search(rf"namespace {op} {{(.*?)}}  // namespace {op}", HEADER, re.DOTALL).group(1)
    body = re.search(rf"enum {enum} {{(.*?)}};", space, re.DOTALL).group(1)
    names = [name.strip() for name in re.sub(r"//.*", "", body).split(",") if name.strip()]
    assert names, f"no names in {op}::{enum}"
    assert all(re.fullmatch(r"k[A-Z]\w*", name) for name in names), f"{names}: values come from the order alone"
    words = [re.sub(r"(?<!^)(?=[A-Z])", "_", name[1:]).lower() for name in names]
    count = re.sub(r"(?<!^)(?=[A-Z])", "_", enum).lower() + "_count"
    return words[:-1] if words[-1] == count else words


@pytest.mark.parametrize("op", LAYOUT)
def test_scalars_have_the_same_order(op):
    assert enum_names(op, "Scalar") == list(LAYOUT[op][0])


@pytest.mark.parametrize("op", LAYOUT)
def test_sections_have_the_same_order(op):
    assert enum_names(op, "Section") == list(LAYOUT[op][1])


def test_blocks_of_a_stem_have_the_same_order():
    """Behind as many convolutions as are possible, in both."""
    assert enum_names("streamed_stem", "BlockSection") == list(stem_block.TYPES)
    assert enum_names("streamed_stem", "BlockZeroPoint") == list(stem_block.ZeroPoints._fields)
    assert int(re.search(r"kMaxConvs = (\d+);", HEADER).group(1)) == streamed_stem.MAX_CONVS
    text = (sources.kernels_folder() / "kernels" / "params_blob.h").read_text()
    assert int(re.search(r"kMaxSections = (\d+);", text).group(1)) == len(streamed_stem.LAYOUT.dtypes) + 1


def test_sections_begin_at_the_same_multiple():
    text = (sources.kernels_folder() / "kernels" / "params_blob.h").read_text()
    assert int(re.search(r"kAlignment = (\d+);", text).group(1)) == params_blob.ALIGNMENT
