# SPDX-License-Identifier: Apache-2.0
"""The table of timm's architectures in docs/import.md is what its command prints."""

import json
import subprocess
import sys
from pathlib import Path

from mcuformer import SubnetConfig

ROOT = Path(__file__).parents[2]


def test_the_documents_table_is_what_the_command_prints():
    printed = subprocess.run(
        [sys.executable, "tools/timm_architectures.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert printed in (ROOT / "docs" / "import.md").read_text(encoding="utf-8")


def test_deit_tiny_with_its_class_token_is_among_them():
    content = json.loads((ROOT / "tools" / "timm_architectures.json").read_text())["architectures"]
    assert len(content) > 150 and sum("config" in entry for entry in content.values()) > 100
    config = SubnetConfig.from_dict(content["deit_tiny_patch16_224"]["config"])
    assert (config.tokens, config.pool, config.embed_dim, config.depth) == (197, "token", 192, 12)
