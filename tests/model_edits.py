# SPDX-License-Identifier: Apache-2.0
"""Models with something changed in them and a checksum that matches: damage that only a look at the content finds."""

import hashlib
import json
import zlib

import flatbuffers

from mcuformer.converter import tflite_file
from mcuformer.converter import tflite_schema_generated as schema


def with_checksum(data: bytes) -> bytes:
    """The bytes with a checksum that matches them."""
    at = data.rindex(tflite_file.CHECKSUM_MAGIC) + len(tflite_file.CHECKSUM_MAGIC)
    zeroed = data[:at] + bytes(32) + data[at + 32 :]
    return data[:at] + hashlib.sha256(zeroed).digest() + data[at + 32 :]


def changed(content: bytes, change) -> bytes:
    """change(model): of the schema's objects."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    change(model)
    builder = flatbuffers.Builder(1 << 20)
    builder.ForceDefaults(False)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return with_checksum(bytes(builder.Output()))


def with_metadata(content: bytes, name: str, change) -> bytes:
    """change(bytes) -> bytes: of an entry of the metadata."""

    def edit(model):
        (entry,) = (entry for entry in model.metadata if entry.name == name.encode())
        buffer = model.buffers[entry.buffer]
        buffer.data = list(change(bytes(buffer.data)))

    return changed(content, edit)


def with_info(content: bytes, change) -> bytes:
    """change(dict): of what the file says of itself."""

    def edit(packed):
        info = json.loads(zlib.decompress(packed))
        change(info)
        return zlib.compress(json.dumps(info).encode())

    return with_metadata(content, tflite_file.MODEL_METADATA, edit)
