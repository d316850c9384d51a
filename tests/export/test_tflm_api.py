# SPDX-License-Identifier: Apache-2.0
"""The glue and an export's README compile for every generation of TFLM's API, with every warning an error.

Against the declarations in tests/tflm_api, which are used for nothing else; `make tflm-check` takes a real tree."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import TINY, lively_subnet, structured_images
from tflm_exports import VARIANTS, exported

from mcuformer import sources

API = Path(__file__).resolve().parents[1] / "tflm_api"
GENERATIONS = ("a", "a_2023", "b", "c")
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
ARM = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=softfp", "-mfpu=fpv4-sp-d16"]
COMPILERS = {
    "host": [shutil.which("c++") or "c++", "-std=c++11"],
    "host c++20": [shutil.which("c++") or "c++", "-std=c++20"],
    "cortex-m4": ["arm-none-eabi-g++", *ARM, "-std=gnu++14", "-fno-rtti", "-fno-exceptions", "-funsigned-char"],
}


def compiler(name: str) -> list[str]:
    if shutil.which(COMPILERS[name][0]) is None:
        pytest.skip(f"{COMPILERS[name][0]} is not installed")
    return [*COMPILERS[name], *WARNINGS]


def check(command: list[str], files: list[Path]) -> None:
    def one(file: Path) -> str:
        return subprocess.run([*command, str(file)], capture_output=True, text=True).stderr

    with ThreadPoolExecutor(2) as pool:
        assert "".join(pool.map(one, files)) == ""


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("target", COMPILERS)
def test_the_glue_compiles(target, generation):
    files = [sources.kernels_folder() / name for name in sources.listed("MCUF_TFLM_SRCS")]
    check([*compiler(target), f"-I{API / generation}"], files)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_readme_of_an_export_compiles(generation, variant, tmp_path):
    net, images = lively_subnet(TINY, 3), structured_images(TINY, 4)
    folder = exported(net, images, VARIANTS[variant], tmp_path / "model")
    use, planner = re.findall(r"```cpp\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    if generation == "a":  # as the README says of that time
        if "SetMicroExternalContext" in use:
            pytest.skip("kernels reach the external context since 2022-01")
        use = use.replace("sizeof(arena));", "sizeof(arena), GetMicroErrorReporter());")
        planner = planner.replace("&planner));", "&planner, GetMicroErrorReporter()), GetMicroErrorReporter());")
        use = '#include "tensorflow/lite/micro/micro_error_reporter.h"\n' + use
    includes, rest = planner.split("\n\n", 1)
    setup = "static MicroMutableOpResolver<mcuformer::kOpCount> resolver;\nMicroInterpreter& Planned() {\n"
    (tmp_path / "use.cc").write_text(f"{use}\n{includes}\n{setup}{rest}return runner;\n}}\n")
    check([*compiler("host"), f"-I{API / generation}", f"-I{folder}"], [tmp_path / "use.cc", folder / "model.cc"])


def test_no_two_sources_make_the_same_object():
    """TFLM's Makefile makes name.o of name.c, name.cc and name.S."""
    objects = [str(Path(name).with_suffix(".o")) for name in sources.listed("MCUF_CORE_SRCS")]
    objects += [str(Path(name).with_suffix(".o")) for name in sources.listed("MCUF_TFLM_SRCS")]
    assert len(objects) == len(set(objects))
