# SPDX-License-Identifier: Apache-2.0
"""Makes converter/tflite_schema_generated.py from converter/tflite_schema.fbs.

    python tools/generate_tflite_schema.py

Needs flatc FLATC_VERSION (Debian 12: flatbuffers-compiler); another version words the same code differently.
tests/converter/test_tflite_schema.py makes it again and compares.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mcuformer.files import write_bytes

FLATC_VERSION = "2.0.8"
SCHEMA = Path(__file__).resolve().parents[1] / "converter" / "tflite_schema.fbs"
GENERATED = SCHEMA.with_name("tflite_schema_generated.py")
HEADER = f"""\
# SPDX-License-Identifier: Apache-2.0
# Made from tflite_schema.fbs with flatc {FLATC_VERSION}: python tools/generate_tflite_schema.py
"""


def missing() -> str | None:
    """None if the right flatc is installed; else one line that says what to install."""
    if not shutil.which("flatc"):
        return "flatc is missing: apt-get install flatbuffers-compiler"
    version = subprocess.run(["flatc", "--version"], capture_output=True, text=True).stdout.split()[-1]
    if version != FLATC_VERSION:
        return f"flatc is version {version}, not {FLATC_VERSION} (Debian 12: flatbuffers-compiler)"
    return None


def generate() -> str:
    """The text of GENERATED. Needs flatc: see missing()."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["flatc", "--python", "--gen-object-api", "--gen-onefile", "-o", folder, str(SCHEMA)]
        subprocess.run(command, check=True)
        return HEADER + (Path(folder) / GENERATED.name).read_text(encoding="utf-8")


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"error: {reason}")
    write_bytes(GENERATED, generate().encode())
