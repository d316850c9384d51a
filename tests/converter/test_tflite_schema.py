# SPDX-License-Identifier: Apache-2.0
"""The project's own schema of .tflite: made from its description, and the same places as the whole format's."""

import re
import sys
from pathlib import Path

import pytest

from mcuformer.converter import tflite_schema_generated as ours

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import generate_tflite_schema as generator  # noqa: E402


def added(schema, name: str) -> tuple:
    """(builder's method, place, default) of a function such as TensorAddShape."""
    calls = []

    class Builder:
        def __getattr__(self, method):
            return lambda place, _value, default: calls.append((method, place, default))

    getattr(schema, name)(Builder(), 0)
    return calls[0]


@pytest.mark.skipif(generator.missing() is not None, reason=generator.missing() or "")
def test_the_generated_module_is_what_flatc_makes():
    assert generator.generate() == generator.GENERATED.read_text()


def test_fields_stand_where_the_whole_format_has_them():
    theirs = pytest.importorskip("tflite_micro.tensorflow.lite.micro.python.schema_py_generated")
    functions = [name for name in vars(ours) if re.fullmatch(r"[A-Z]\w+Add[A-Z]\w+", name)]
    assert len(functions) == 30
    for name in functions:
        assert added(ours, name) == added(theirs, name), name


@pytest.mark.parametrize("enum", ["TensorType", "BuiltinOperator", "CustomOptionsFormat"])
def test_numbers_are_those_of_the_whole_format(enum):
    theirs = pytest.importorskip("tflite_micro.tensorflow.lite.micro.python.schema_py_generated")
    values = {name: value for name, value in vars(getattr(ours, enum)).items() if name.isupper()}
    assert values and all(getattr(getattr(theirs, enum), name) == value for name, value in values.items())


def test_the_whole_format_writes_the_same_bytes(tiny_model, monkeypatch):
    """With the module of the tflite-micro wheel, which knows every field, a model's file is the same file."""
    from mcuformer.converter import tflite_file

    theirs = pytest.importorskip("tflite_micro.tensorflow.lite.micro.python.schema_py_generated")
    monkeypatch.setattr(tflite_file, "_schema", lambda: theirs)
    assert tflite_file.write(tiny_model.graph, tiny_model.offsets, tiny_model.info) == tiny_model.content
    assert tflite_file.same(tflite_file.read(tiny_model.content).graph, tiny_model.graph) is None
