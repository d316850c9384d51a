# SPDX-License-Identifier: Apache-2.0
"""Kconfig as ESP-IDF and Zephyr read it, for the tests of their exports."""

from collections.abc import Sequence
from pathlib import Path

import kconfiglib


def configured(folder: Path, root: str, sourced: Sequence[Path], config: str) -> kconfiglib.Kconfig:
    """Reads Kconfig files and a configuration, and writes sdkconfig.h and sdkconfig.cmake to `folder`, as a build has
    them. root: the Kconfig of what the files need. Fails at every warning, such as an option that nobody knows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Kconfig").write_text(root + "".join(f'\nsource "{path}"\n' for path in sourced))
    found = kconfiglib.Kconfig(str(folder / "Kconfig"), warn_to_stderr=False)
    found.warn_assign_undef = True
    (folder / "config").write_text(config)
    found.load_config(str(folder / "config"))
    assert found.warnings == []
    found.write_autoconf(str(folder / "sdkconfig.h"))
    lines = [
        f'set(CONFIG_{symbol.name} "{symbol.str_value}")\n'
        for symbol in found.unique_defined_syms
        if symbol.str_value not in ("n", "")
    ]
    (folder / "sdkconfig.cmake").write_text("".join(lines))
    return found
