# SPDX-License-Identifier: Apache-2.0
"""mcuformer export, and mcuformer run --on, as a user calls them."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from arm_tests import needs_tools
from command_line import forked, mcuformer, mistake
from conftest import TINY, structured_images

from mcuformer import convert
from mcuformer.converter import tflite_file
from mcuformer.converter.repack import repacked
from mcuformer.cores import CORES
from mcuformer.simulator import firmware


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_net, tiny_images):
    folder = tmp_path_factory.mktemp("cli")
    images, labels = structured_images(TINY, 40), np.arange(40) % TINY.num_classes
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images[:6], y_test=labels[:6])
    convert(tiny_net, tiny_images, class_names=list("abcde")).save(folder / "model.tflite")
    return folder


def holds_the_licence(folder: Path) -> bool:
    """Of what an export copies."""
    return (folder / "LICENSE").read_text() == (Path(__file__).parent.parent / "LICENSE").read_text()


def test_export_writes_a_folder_and_keeps_one_that_is_there(files):
    result = files / "export.json"
    done = forked("export", files / "model.tflite", "--to", "c", "-o", files / "out", "--json", result)
    assert json.loads(result.read_text())["arena_bytes"] > 0 and "arena" in done.stdout
    assert (files / "out" / "models" / "model" / "model.h").is_file()
    assert (files / "out" / "mcuformer" / "core" / "mcuf_types.h").is_file()
    assert holds_the_licence(files / "out")
    again = mistake("export", files / "model.tflite", "--to", "c", "-o", files / "out")
    assert "not empty" in again and "--force" in again
    forked("export", files / "model.tflite", "--to", "c", "-o", files / "out", "--force")
    assert "must be one of c, tflm, arduino" in mistake(
        "export", files / "model.tflite", "--to", "rust", "-o", files / "other"
    )
    assert "cannot be read" in mistake("export", files / "none.tflite", "--to", "c", "-o", files / "other")
    assert "not a .tflite file" in mistake("export", files / "data.npz", "--to", "c", "-o", files / "other")
    assert not (files / "other").exists()


def test_export_for_tflm(files):
    result = files / "tflm.json"
    arguments = ("export", files / "model.tflite", "--to", "tflm", "-o", files / "tflm")
    done = mcuformer(*arguments, "--name", "vit", "--board", "nano33ble", "--json", result)
    written = json.loads(result.read_text())
    assert f"arena {written['arena_bytes']:,} of nano33ble's 196,608 bytes" in done.stdout
    assert holds_the_licence(files / "tflm")
    header = (files / "tflm" / "models" / "vit" / "vit.h").read_text()
    assert f"vit_arena_size = sizeof(void*) == 4 ? {written['arena_bytes']} :" in header
    numbers = (files / "tflm" / "models" / "vit" / "vit.cc").read_text().split("vit_data[] = {")[1].rstrip("};\n")
    content, model = bytes(map(int, numbers.split(","))), (files / "model.tflite").read_bytes()
    assert content == repacked(model, tflite_file.read(model).graph, CORES["m4"])[0] != model  # the board's core
    before = sorted(path.name for path in files.iterdir())
    assert "not empty" in mistake(*arguments) and "--force" in mistake(*arguments)
    forked(*arguments, "--name", "vit", "--force")
    other = ("export", files / "model.tflite", "--to", "tflm", "-o", files / "other")
    assert "board 'uno' is unknown" in mistake(*other, "--board", "uno")
    assert "--zip: an Arduino library's; leave it out with --to tflm" in mistake(*other, "--zip")
    assert "--image caller: for --to c" in mistake(*other, "--image", "caller")
    assert "--data x: where the images of sketches come from; leave" in mistake(*other, "--data", "x")
    assert "name 'a-b'" in mistake(*other, "--name", "a-b")
    assert sorted(path.name for path in files.iterdir()) == before


def test_export_for_arduino(files):
    arguments = ("export", files / "model.tflite", "--to", "arduino", "--data", files / "data.npz")
    done = forked(*arguments, "-o", files / "lib", "--zip", "--json", files / "lib.json")
    written = json.loads((files / "lib.json").read_text())
    assert written["board"] == "nano33ble" and written["zip"] == str(files / "lib.zip")
    if firmware.missing_tools() is None:
        sizes = f"flash {written['flash_bytes']:,} of the 851,968 bytes and RAM {written['ram_bytes']:,} of the 196,608"
        assert f"built for nano33ble: {sizes}" in done.stdout
        assert written["constant_bytes"] < written["flash_bytes"] < 851_968
    else:
        assert "not built: " in done.stdout
    with zipfile.ZipFile(files / "lib.zip") as archive:
        for name in archive.namelist():
            assert archive.read(name) == (files / "lib" / name.removeprefix("MCUFormer/")).read_bytes()
    assert holds_the_licence(files / "lib")
    labels = (files / "lib" / "examples" / "ImageClassify" / "test_images.h").read_text()
    assert 'test_labels[TEST_IMAGES] = {"a", "b", "c", "d", "e"}' in labels
    assert "not empty" in mistake(*arguments, "-o", files / "lib")
    (files / "new.zip").write_bytes(b"mine")
    assert "new.zip: already exists" in mistake(*arguments, "-o", files / "new", "--zip")
    assert "name 'string'" in mistake(*arguments, "-o", files / "new", "--name", "string")
    wrong = ("export", files / "model.tflite", "--to", "arduino", "-o", files / "new")
    assert "has 10 classes, the model 5" in mistake(*wrong)
    assert not (files / "new").exists()


@needs_tools
def test_run_on_a_machine_prints_what_it_takes(files):
    arguments = (
        "run",
        files / "model.tflite",
        "--data",
        files / "data.npz",
        "--reference",
        "--json",
        files / "run.json",
    )
    done = forked(*arguments, "--board", "nano33ble")
    result = json.loads((files / "run.json").read_text())
    assert result["exact"] is True and result["machine"] == "mps2-an386" and result["images"] == 6
    assert result["ram_limit"] == 256 * 1024 and result["flash_limit"] == 1024 * 1024
    assert result["ram_bytes"] == result["static_bytes"] + result["stack_bytes"]
    assert result["flash_bytes"] == result["code_bytes"] + result["constant_bytes"]
    assert result["instructions"] == sum(op["instructions"] for op in result["per_op"])
    assert result["macs"] == TINY.macs
    assert result["instructions_per_mac"] == result["instructions"] / result["macs"]
    assert "every logit equals mps2-an386" in done.stdout and "neither cycles nor time" in done.stdout
    forked(*arguments, "--on", "mps3-an547", "--limit", 1)
    assert json.loads((files / "run.json").read_text())["core"] == "m55"
    done = forked(*arguments, "--board", "stm32f746", "--external-flash", "--limit", 1)
    result = json.loads((files / "run.json").read_text())
    assert result["exact"] and result["machine"] == "mps2-an500" and result["external_limit"] == 16 << 20
    assert f"external flash {result['external_bytes']:,} of 16,777,216 bytes" in done.stdout
    assert result["flash_bytes"] < 32 * 1024 < result["flash_bytes"] + result["external_bytes"]
    over = mistake(*arguments, "--on", "mps2-an386", "--flash-bytes", 20000)
    assert "bytes over the 20,000 of FLASH" in over


def test_run_on_explains_what_it_cannot_do(files, monkeypatch, tmp_path):
    arguments = ("run", files / "model.tflite", "--data", files / "data.npz")
    assert "machine 'm5' is unknown" in mistake(*arguments, "--on", "m5")
    assert "QEMU has no machine for it" in mistake(*arguments, "--on", "m85")
    assert "use --on mps2-an386" in mistake(*arguments, "--on", "mps3-an547", "--board", "nano33ble")
    assert "give --on or --board" in mistake(*arguments, "--ram-bytes", 1000)
    assert "--external-flash is of firmware: give --on or --board" in mistake(*arguments, "--external-flash")
    assert "--ram-bytes 0: must be a number of bytes" in mistake(*arguments, "--on", "mps2-an386", "--ram-bytes", 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install gcc-arm-none-eabi" in mistake(*arguments, "--on", "mps2-an386")


def test_inspect_predicts_instructions_of_every_op(files):
    done = forked("inspect", files / "model.tflite", "--board", "nano33ble", "--json", files / "inspect.json")
    rows = json.loads((files / "inspect.json").read_text())["ops"]
    assert sum(row["macs"] for row in rows) == TINY.macs and all(row["instructions"] > 0 for row in rows)
    assert f"about {sum(row['instructions'] for row in rows):,} instructions per image on Cortex-M4" in done.stdout
    assert "unknown" in mistake("inspect", files / "model.tflite", "--board", "nano")
