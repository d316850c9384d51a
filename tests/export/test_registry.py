# SPDX-License-Identifier: Apache-2.0
"""The kinds of export: called from Python, and one more kind in the command line by an entry in the table."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from arm_tests import needs_tools
from conftest import TINY, structured_images

from mcuformer import convert
from mcuformer.converter.export import folder, markdown, registry
from mcuformer.errors import ConfigError
from mcuformer.simulator import firmware

TOY = """
from mcuformer.converter.export import registry
from mcuformer.converter.export.folder import write_folder
from mcuformer.converter.export.registry import NAME, Option, Result, Target

def to_folder(sources, folder, force, lines, upper):
    files = {}
    for source in sources:
        text = "\\n".join([source.name, *source.class_names][:lines])
        files[f"{source.name}.txt"] = text.upper() if upper else text
    write_folder(folder, files, force)
    return Result(folder, (f"wrote {lines} lines",), {"ops": len(sources[0].graph.ops)})

LINES = Option("lines", "how many lines to write.", 3)
UPPER = Option("upper", "in capitals.", False)
registry.TARGETS["toy"] = Target("toy", "a text file", (NAME, LINES, UPPER), to_folder)
from mcuformer.cli import main
main()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_net, tiny_images):
    folder = tmp_path_factory.mktemp("kinds")
    convert(tiny_net, tiny_images, class_names=list("abcde")).save(folder / "model.tflite")
    images, labels = structured_images(TINY, 10), np.arange(10) % TINY.num_classes
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return folder


def toy(*arguments, status: int = 0) -> str:
    """What the command line with one more kind of export prints."""
    command = [sys.executable, "-c", TOY, "export", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["c", "zephyr", "tflm"])
def test_a_forced_export_removes_what_only_the_earlier_one_wrote(kind, files, tmp_path):
    """Not what was changed since, nor what is a user's own."""
    out, model = tmp_path / "out", files / "model.tflite"
    registry.export([model, model], kind, out, name=["old", "kept"])
    before = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    changed = next(path for path in out.rglob("old.h"))
    changed.write_text("/* mine */")
    (changed.parent / "mine.c").write_text("int mine;")
    again = registry.export(model, kind, out, name="kept", force=True)
    after = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    fresh = tmp_path / "fresh"
    registry.export(model, kind, fresh, name="kept")
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    assert after == wanted | {changed.relative_to(out), changed.relative_to(out).parent / "mine.c"}
    removed = len(before - wanted) - 1
    assert f"removed {removed} files of the earlier export in {out}" in again.lines and removed >= 1
    assert f"of the earlier export, but changed since, stay: {changed.relative_to(out)}" in again.lines
    assert all((out / path).read_bytes() == (fresh / path).read_bytes() for path in wanted)


@pytest.mark.parametrize("content", ["[]", "{", '{"format": "mcuformer.export/1", "files": {"../precious": "%s"}}'])
def test_a_damaged_list_of_an_export_removes_nothing(content, files, tmp_path):
    out, model = tmp_path / "out", files / "model.tflite"
    precious = tmp_path / "precious"
    precious.write_text("")
    registry.export(model, "c", out)
    (out / folder.LIST).write_text(content.replace("%s", hashlib.sha256(b"").hexdigest()))
    registry.export(model, "c", out, force=True)
    assert precious.exists()


def test_long_lines_of_a_readme_are_filled_again():
    code = f"```\n{'x ' * 90}\n```"
    text = f"# {'head ' * 30}\n\n- {'item ' * 30}\n  of it\n- next\n\n| {'a | ' * 60}\n\nshort\nlines\n\n{code}\n"
    lines = markdown.wrapped(text).split("\n")
    filled = [line for line in lines if "item" in line or "of it" in line]
    assert len(filled) == 2 and all(len(line) <= 120 for line in filled) and filled[1].startswith("  item")
    assert " ".join(text.split()) == " ".join(" ".join(lines).split())
    assert {"- next", "short", "lines", code.split("\n")[1]} <= set(lines)


@pytest.mark.parametrize("kind", [name for name in registry.TARGETS if name != "arduino"])
def test_no_line_of_a_readme_or_build_file_is_too_long(kind, files, tmp_path):
    names = ["faces", "words"]
    registry.export([files / "model.tflite"] * 2, kind, tmp_path / kind, name=names)
    texts = [path for path in (tmp_path / kind).rglob("*") if path.name in ("README.md", "CMakeLists.txt")]
    fenced = {"cmake -S", "target_compile_definitions"}
    long = [line for path in texts for line in path.read_text().split("\n") if len(line) > 120]
    assert [line for line in long if not any(word in line for word in fenced)] == []


def test_a_new_kind_is_one_entry_in_the_table(files, tmp_path):
    model = files / "model.tflite"
    text = " ".join(toy("--help").replace("│", "").split())
    assert "arduino: an Arduino library; esp-idf: a component" in text and "; toy: a text file." in text
    assert "With toy: how many lines to write. [default: 3]" in text
    assert "stm32cube, cmsis-pack and toy: what a model's files" in text and "--upper" in text
    arguments = (model, "--to", "toy", "--lines", 2, "--upper", "--name", "net", "--json", tmp_path / "toy.json")
    assert "wrote 2 lines" in toy(*arguments, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "net.txt").read_text() == "NET\nA"
    values = json.loads((tmp_path / "toy.json").read_text())
    folder = str(tmp_path / "out")
    assert values.pop("command").startswith(f"mcuformer export {model} --to toy --lines 2")
    assert values == {"folder": folder, "ops": values["ops"], "packing": "pairs"} and values["ops"] > 2
    assert "not empty" in toy(*arguments, "-o", tmp_path / "out", status=2)
    kinds = [*registry.TARGETS, "toy"]
    assert f"must be one of {', '.join(kinds)}" in toy(model, "--to", "rust", "-o", tmp_path / "b", status=2)
    assert "--upper: for --to toy; leave it out with --to c" in toy(
        model, "--to", "c", "--upper", "-o", tmp_path / "b", status=2
    )
    assert f"--board nano33ble: for --to {registry.takers('board', 'or')}; leave it out with --to toy" in toy(
        model, "--to", "toy", "--board", "nano33ble", "-o", tmp_path / "b", status=2
    )
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("to", registry.TARGETS)
def test_every_kind_can_be_called_from_python(to, files, tmp_path):
    options = {"arduino": {"data": str(files / "data.npz"), "make_zip": True}, "tflm": {"board": "nano33ble"}}
    result = registry.export(files / "model.tflite", to, tmp_path / "out", **options.get(to, {}))
    assert result.folder == tmp_path / "out" and (tmp_path / "out" / "README.md").is_file()
    assert result.values["arena_bytes"] > 0 and f"{result.values['arena_bytes']:,}" in "".join(result.lines) + "".join(
        path.read_text() for path in (tmp_path / "out").rglob("README.md")
    )
    assert json.dumps(result.values) and result.lines[-1].startswith(f"wrote {tmp_path / 'out'}")


def test_an_option_that_nobody_has_is_named(files, tmp_path):
    with pytest.raises(ConfigError, match="option 'bord' of an export is unknown; choose from name, image, board,"):
        registry.export(files / "model.tflite", "tflm", tmp_path / "out", bord="nano33ble")
    with pytest.raises(ConfigError, match="--image caller: for --to c, .* cmsis-pack; leave it out with --to ard"):
        registry.export(files / "model.tflite", "arduino", tmp_path / "out", image="caller")


@needs_tools
def test_an_arduino_library_is_exported_where_the_cpp_headers_are_missing(files, tmp_path, monkeypatch):
    """With a cross compiler that has none, which is what installing it without libstdc++ leaves."""
    real = shutil.which(firmware.COMPILER)
    wrapper = tmp_path / "bin" / firmware.COMPILER
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {real} -nostdinc++ "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    result = registry.export(files / "model.tflite", "arduino", tmp_path / "out", data=str(files / "data.npz"))
    assert (tmp_path / "out" / "library.properties").is_file()
    assert result.lines[0] == (
        "not built: not installed: the C++ standard headers (libstdc++-arm-none-eabi-newlib); "
        "on Debian and Ubuntu: apt-get install libstdc++-arm-none-eabi-newlib"
    )
    assert result.values["flash_bytes"] is None and result.values["ram_bytes"] is None
