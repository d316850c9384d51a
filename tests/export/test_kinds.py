# SPDX-License-Identifier: Apache-2.0
"""What holds for every kind of export that is built from the models' C."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import HEADLESS, lively_subnet, structured_images
from kind_exports import Kinds, c_sources, includes, run

from mcuformer import convert
from mcuformer.converter.export import registry
from mcuformer.errors import ConfigError

KINDS = ["esp-idf", "zephyr", "platformio", "pico", "stm32cube", "cmsis-pack"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_names_what_is_there(kind, kinds: Kinds):
    """Its files, both models, and what the example prints."""
    folder = kinds(kind).both
    text = (folder / "README.md").read_text()
    assert text.startswith("# alpha and beta")
    assert text.count("\n") < 110  # a page
    for name in ("alpha", "beta"):
        assert f"{name}: {Kinds.values[name]} of {Kinds.values[name]} values equal, " in text
        assert f"`{name}_invoke" in text
    for path in re.findall(r"`(src/[\w/]+\.h|mcuformer/|models/\w+/|examples?/[\w/.]+)`", text):
        assert (folder / path).exists(), path


@pytest.mark.parametrize("kind", KINDS)
def test_staged_weights_are_refused(kind, tmp_path, tiny_net, tiny_images):
    convert(tiny_net, tiny_images, weights="staged").save(tmp_path / "model.tflite")
    with pytest.raises(ConfigError, match=f"model model: staged weights; --to {kind} does not know your flash chip"):
        registry.export(tmp_path / "model.tflite", kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["esp-idf", "zephyr", "platformio", "pico"])
def test_flash_beside_the_chip_is_refused_where_nothing_places_it(kind, kinds: Kinds, tmp_path):
    with pytest.raises(ConfigError, match="--external-flash: this kind's projects read the program's own flash"):
        registry.export(kinds.models[0], kind, tmp_path / "out", board="stm32f746", external_flash=True)


@pytest.mark.needs("cc")
def test_a_wrong_compiler_is_noticed(kinds: Kinds, tmp_path):
    """The self-test fails if one weight differs. A network without a head, an image of the caller's."""
    net, images = lively_subnet(HEADLESS, seed=5), structured_images(HEADLESS, 8)
    convert(net, images).save(tmp_path / "model.tflite")
    folder = tmp_path / "out"
    registry.export(tmp_path / "model.tflite", "stm32cube", folder, image="caller")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "model_self_test.h"\n'
        'int main(void) { printf("%d %d\\n", (int)model_self_test(), MODEL_EMBEDDING_LENGTH); return 0; }\n'
    )
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", *includes(folder)]
    run("cc", *flags, "-c", *c_sources(folder), tmp_path / "main.c", cwd=tmp_path)
    run("cc", *tmp_path.glob("*.o"), "-o", tmp_path / "right")
    equal, values = run(tmp_path / "right").split()
    assert equal == values
    data = folder / "models/model/model_data.c"
    data.write_text(re.sub(r"= \{\n(-?\d+),", lambda m: f"= {{\n{(int(m[1]) + 64) % 100},", data.read_text(), count=1))
    run("cc", *flags, "-c", data, cwd=tmp_path)
    run("cc", *tmp_path.glob("*.o"), "-o", tmp_path / "wrong")
    equal, values = subprocess.run([tmp_path / "wrong"], capture_output=True, text=True).stdout.split()
    assert int(equal) < int(values)


@pytest.mark.parametrize("document", ["README.md", "docs/kinds.md"])
def test_the_tables_of_kinds_are_the_codes(document):
    text = (ROOT / document).read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]*) \|", text, re.M)
    kinds = [(target.name, target.help) for target in registry.TARGETS.values()]
    assert rows[: len(kinds)] == kinds


def test_every_kind_says_how_it_was_checked():
    text = (ROOT / "docs/kinds.md").read_text()
    for kind in KINDS:
        (test,) = re.findall(rf"^\| `{kind}` \| `(test_\w+\.py)` \|", text, re.M)
        assert (ROOT / "tests/export" / test).is_file()


@pytest.mark.needs("cmake", "make", "cc", "c++")
def test_the_second_export_for_tflm_may_be_the_first_of_sound(kinds: Kinds, tmp_path):
    """As of the kinds built from C, whose own tests link the three models."""
    exports = kinds("tflm")
    lines = [f"include {folder}/sources.mk\n" for folder in (exports.both, exports.other)]
    (tmp_path / "Makefile").write_text("".join(lines) + "all: ; @echo $(MCUF_SRCS)\n")
    assert run("make", "-s", "-C", tmp_path).count("/mcuf_log_mel.c") == 1
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(firmware C CXX)\n"
        f"add_subdirectory({exports.both} both)\nadd_subdirectory({exports.other} other)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    commands = json.loads((tmp_path / "build/compile_commands.json").read_text())
    sound = [one for one in commands if Path(one["file"]).name in ("mcuf_log_mel.c", "gamma_front_end.c")]
    assert len(sound) == 2
    for one in sound:
        words = shlex.split(one["command"])
        run(*words[: words.index("-o")], "-c", one["file"], cwd=tmp_path)
