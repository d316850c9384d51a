# SPDX-License-Identifier: Apache-2.0
"""The Arduino library that an export makes: its layout, its sketches compiled for both boards, and one of them run."""

import configparser
import dataclasses
import io
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from arm_tests import needs_tools
from conftest import HEADLESS, TINY, lively_subnet, structured_images
from qemu_sketch import STUBS, compile_sketch, link_sketch

from mcuformer import SubnetConfig, convert, self_test, sources
from mcuformer.boards import get_board
from mcuformer.converter import tflite_file
from mcuformer.converter.export import arduino, c_gallery
from mcuformer.converter.export.arduino import Samples
from mcuformer.converter.export.registry import Source
from mcuformer.converter.graph import to_int8
from mcuformer.errors import ConfigError, DataError, PlanError, ToolchainError
from mcuformer.gallery import Gallery, cosines, neighbours
from mcuformer.simulator import arduino_build, firmware
from mcuformer.simulator.firmware import Program

pytestmark = pytest.mark.usefixtures("kernels_compiled_once")

HERE = Path(__file__).resolve().parent
TFLM = [HERE.parent / "tflm_api" / folder for folder in ("a_2023", "shared")]
SKETCHES = (
    "SelfTest", "ImageClassify", "TFLMClassify", "CameraClassify_Nano33BLESense", "CameraClassify_Portenta",
    "CameraClassify_GIGA", "CameraClassify_NiclaVision", "CameraClassify_ESP32S3",
)  # fmt: skip
# sketch -> what a user switches on in it, one at a time
CHOICES = {
    "CameraClassify_Nano33BLESense": ("CAMERA_IS_OV7670",),
    "CameraClassify_Portenta": ("VISION_SHIELD_HM0360",),
    "CameraClassify_GIGA": ("CAMERA_IS_OV7670", "CAMERA_IS_GC2145", "CAMERA_IS_HM01B0", "CAMERA_IS_HM0360"),
    "TFLMClassify": ("MCUFORMER_CHECK_MODEL",),
}
WIDE = dataclasses.replace(TINY, image_size=(12, 24))
COLOUR = SubnetConfig(image_size=20, in_channels=3, patch_size=5, embed_dim=20, depth=1, num_heads=2, num_classes=3)
# name -> config, options of convert, board
CASES = {
    "grey": (TINY, {"schedule": "streamed"}, "nano33ble"),
    "colour strips": (COLOUR, {"strips": True}, "portenta-h7"),
    "wide": (WIDE, {}, "nano33ble"),
}


def names(count: int) -> list[str]:
    return [f'class "{i}"' for i in range(count)]


def package(config, options, images=None):
    images = structured_images(config, 8, seed=4) if images is None else images
    model = convert(lively_subnet(config, 6), images, class_names=names(config.num_classes), **options)
    graph = tflite_file.read(model.content).graph
    samples = Samples(images[:4], [f"image {i}" for i in range(4)])
    return model, arduino.library(Source(model.content, graph, model.class_names), samples)


class Case:
    """A packaged library in a folder, and what of it is compiled once."""

    def __init__(self, folder: Path, config, options, board: str):
        self.board = get_board(board)
        self.images = structured_images(config, 8, seed=4)
        self.model, self.library = package(config, options, self.images)
        self.folder = arduino.write(self.library, folder / "MCUFormer")
        self.work = folder
        self.machine = arduino_build.machine_of(self.board)

    def objects(self) -> list[Path]:
        if not hasattr(self, "_objects"):
            self._objects = arduino_build.compile_library(self.folder, self.machine, self.work / "library")
        return self._objects

    def sketch(self, name: str, include=(), define="") -> list[Path]:
        return compile_sketch(self.folder, name, self.machine, self.work, include, define)

    def program(self, sketch: str, folder: Path) -> Program:
        return link_sketch([*self.objects(), *self.sketch(sketch)], self.board, self.machine, folder)


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    return Case(tmp_path_factory.mktemp("arduino"), *CASES[request.param])


@pytest.fixture(scope="module")
def grey():
    return package(TINY, {})[1]


def test_library_properties_are_what_the_specification_allows(grey):
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read_string("[library]\n" + grey.files["library.properties"])
    fields = dict(parser["library"])
    needed = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert needed <= set(fields) <= needed | {"includes", "dot_a_linkage", "depends"}
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}", fields["name"])
    assert not fields["name"].lower().startswith("arduino") and fields["name"] == arduino.LIBRARY
    assert fields["category"] in {
        "Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing", "Data Storage",
        "Data Processing", "Other",
    }  # fmt: skip
    setup = configparser.ConfigParser()
    setup.read(HERE.parents[1] / "setup.cfg")
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"]) and fields["version"] == setup["metadata"]["version"]
    assert f"src/{fields['includes']}" in grey.files
    readme = (HERE.parents[1] / "examples" / "arduino" / "README.md").read_text().split("| architecture |")[1]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", readme, flags=re.M)
    assert fields["architectures"].split(",") == re.findall(r"\w+", " ".join(rows)), (
        "the README says how they are checked"
    )


def test_layout(grey):
    files = grey.files
    assert {name for name in files if "/" not in name} == {"LICENSE", "library.properties", "keywords.txt", "README.md"}
    assert {name for name in files if re.fullmatch(r"src/[^/]*", name)} == {
        "src/MCUFormer.h", "src/MCUFormerCamera.h", "src/MCUFormerReport.h", "src/MCUFormerTFLM.h",
    }  # fmt: skip
    assert {name.split("/")[1] for name in files if name.startswith("examples/")} == set(SKETCHES)
    for sketch in SKETCHES:
        assert f"examples/{sketch}/{sketch}.ino" in files
    assert all(name.split("/")[0] in ("src", "examples") for name in files if "/" in name)
    assert all(re.fullmatch(r"[A-Za-z0-9_./-]+", name) for name in files)
    assert {name.rsplit(".", 1)[1] for name in files if name != "LICENSE"} <= {
        "c", "cpp", "S", "h", "ino", "md", "txt", "properties"
    }, "older builders compile .c, .cpp and .S alone"  # fmt: skip
    compiled = [name.rsplit("/", 1)[1] for name in files if re.search(r"\.(c|cpp|S)$", name)]
    assert len(compiled) == len(set(compiled)), "an archive holds one object of a name"
    listed = sources.listed("MCUF_CORE_SRCS") + sources.listed("MCUF_TFLM_SRCS")
    assert {f"src/mcuformer/{name}".replace(".cc", ".cpp") for name in listed} <= set(files)


def test_every_include_is_found_beside_its_file_or_in_src(grey):
    """Arduino gives a library no include path but src."""
    for name, text in grey.files.items():
        for include in re.findall(r'^#include "([^"]+)"', text, flags=re.M):
            if not name.startswith("src/") or include.startswith("tensorflow/") or include == "host/host_abi.h":
                continue
            beside = Path(name).parent / include
            places = {Path("src") / include, Path(*_normal(beside.parts))}
            assert any(place.as_posix() in grey.files for place in places), f"{name} includes {include}"


def _normal(parts) -> list[str]:
    result = []
    for part in parts:
        if part == "..":
            result.pop()
        else:
            result.append(part)
    return result


def test_keywords(grey):
    for line in grey.files["keywords.txt"].splitlines():
        assert line == "" or line.startswith("#") or re.fullmatch(r"\w+\t(KEYWORD[123]|LITERAL1)", line)


def test_zip(grey, tmp_path):
    arduino.write_zip(grey, tmp_path / "a.zip")
    arduino.write_zip(grey, tmp_path / "b.zip")
    content = (tmp_path / "a.zip").read_bytes()
    assert content == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {f"MCUFormer/{name}" for name in grey.files} == set(archive.namelist())
        assert all(info.external_attr >> 16 & 0o111 == 0 for info in archive.infolist())
        assert archive.read("MCUFormer/src/MCUFormer.h").decode() == grey.files["src/MCUFormer.h"]


@needs_tools
@pytest.mark.parametrize("sketch", SKETCHES)
def test_sketches_compile(case, sketch):
    include = TFLM if sketch == "TFLMClassify" else []
    case.sketch(sketch, include)
    for define in CHOICES.get(sketch, ()):
        case.sketch(sketch, include, define)
        assert define in (case.folder / "examples" / sketch / f"{sketch}.ino").read_text()


@needs_tools
def test_all_of_src_compiles_with_the_tflm_library_and_without(case, tmp_path):
    """Without it the ops are empty; with it they are there."""
    glue = sorted((case.folder / "src").rglob("*.cpp"))
    glue = [path for path in glue if path.name != "model_tflite.cpp"]
    there = firmware.compile_objects(
        glue, case.machine.core, tmp_path, [case.folder / "src", *TFLM], arduino_build.CXX_FLAGS
    )
    without = [
        path for path in case.objects() if path.name.split("_", 1)[1].removesuffix(".o") in {p.name for p in glue}
    ]
    assert len(there) == len(without) == len(glue) > 5
    assert all(_symbols(path) for path in there) and not any(_symbols(path) for path in without)


def _symbols(path: Path) -> str:
    return subprocess.run(["arm-none-eabi-nm", "--defined-only", path], capture_output=True, text=True).stdout


@needs_tools
def test_the_library_compiles_for_the_smallest_core(grey, tmp_path):
    """Cortex-M0+, as mbed_rp2040 and rp2040 have it."""
    flags = ("-mcpu=cortex-m0plus", "-mthumb", *arduino_build.COMMON)
    core = dataclasses.replace(get_board("nano33ble").core, flags=flags)
    folder = arduino.write(grey, tmp_path / "library")
    arduino_build.compile_library(folder, core.machine, tmp_path / "objects", flags=["-Wall", "-Wextra", "-Werror"])


@pytest.mark.parametrize("classes", [3, 0])
def test_a_network_of_six_channels_has_no_sketches_with_a_camera(classes):
    """Such as a radar's or an accelerometer's, whose pixels no camera gives."""
    files = package(dataclasses.replace(COLOUR, in_channels=6, num_classes=classes), {})[1].files
    assert not any("Camera" in path or "Report" in path for path in files)
    assert "amera" not in files["README.md"] and "examples/SelfTest/SelfTest.ino" in files


XTENSA_HEADERS = Path("/usr/lib/xtensa-lx106-elf/include")


@pytest.mark.needs("xtensa-lx106-elf-g++")
def test_library_and_sketches_compile_for_xtensa(case):
    """By a compiler for the ESP8266's core, with the language options of Espressif's."""
    if not (XTENSA_HEADERS / "string.h").is_file():
        pytest.skip("no C headers for Xtensa: Debian's package picolibc-xtensa-lx106-elf")
    common = ["-isystem", XTENSA_HEADERS, "-mlongcalls", "-Os", "-Wall", "-Wextra", "-Werror", f"-I{case.folder}/src"]
    kernels = sorted(path for path in (case.folder / "src").rglob("*") if path.suffix in (".c", ".S"))
    folder = case.work / "xtensa"
    folder.mkdir()
    subprocess.run(["xtensa-lx106-elf-gcc", *common, "-std=gnu17", "-c", *kernels], cwd=folder, check=True)
    for sketch in ("SelfTest", "ImageClassify", "CameraClassify_ESP32S3"):
        source = case.folder / "examples" / sketch
        command = [
            "xtensa-lx106-elf-g++",
            *common,
            "-std=gnu++2b",
            f"-I{source}",
            f"-I{STUBS}",
            "-include",
            "Arduino.h",
        ]
        subprocess.run([*command, "-x", "c++", "-c", source / f"{sketch}.ino"], cwd=folder, check=True)


@needs_tools
def test_image_classify_runs_within_the_boards_memory(case, tmp_path):
    """In QEMU, from the packaged library: the right classes, and confidence as softmax has it. Without any float."""
    program = case.program("ImageClassify", tmp_path)
    lines = firmware.run(program).text.splitlines()
    logits = case.model.reference(case.images[:4])
    assert len(lines) == 4
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    for i, line in enumerate(lines):
        label, name, confidence, duration = re.fullmatch(r"(.*): (.*), (\d+) %, (\d+) us", line).groups()
        best = int(logits[i].argmax())
        assert (label, name) == (f"image {i}", case.model.class_names[best])
        assert abs(int(confidence) - 100 * shares[i, best]) <= 1.1 and int(duration) > 0
    assert len(set(line.split(",")[0].split(": ")[1] for line in lines)) > 1
    listing = subprocess.run(["arm-none-eabi-objdump", "-d", program.path], capture_output=True, text=True).stdout
    assert "<model_invoke" in listing
    assert "smlad" in listing, "the kernels for M4 and M7 are not taken"
    assert re.findall(r"\tv(?:add|sub|mul|div|mla|fma|cvt|cmp|sqrt)\S*", listing) == []
    assert re.findall(r"<__aeabi_[fd]\w+>", listing) == []


class Port:
    """A port at which some bytes came."""

    def __init__(self, content: bytes):
        self.content = content

    def read(self, size: int) -> bytes:
        came, self.content = self.content[:size], self.content[size:]
        return came


@needs_tools
def test_self_test_gives_the_references_logits(case, tmp_path):
    """In QEMU, from the packaged library; what it prints is read as from a port."""
    text = firmware.run(case.program("SelfTest", tmp_path)).text
    read = self_test.read(Port(text.encode()), 1)
    images = self_test.images_of(to_int8(case.images[:4]))
    want = case.model.reference(images.view(np.uint8) ^ np.uint8(128))
    np.testing.assert_array_equal(case.model.graph.logits(read.outputs), want)
    assert read.board == "Nano 33 BLE" and read.images_id == self_test.identity(images)
    assert all(read.equal) and read.ms > 0 and len(np.unique(read.outputs, axis=0)) > 10
    last = text.splitlines()[-1]
    assert last.startswith("20 of 20 equal to the host's, ") and self_test.unchecked(last) is not None


ON_HOST = """
#include <Arduino.h>
#include <stdio.h>
unsigned long micros(void) {
  static unsigned long now = 4294967000u;
  return now = (now + 7) & 4294967295u;
}
void delay(unsigned long) {}
void serial_text(const char* text) { fputs(text, stdout); }
SerialPort Serial;
int main() {
  setup();
  loop();
}
"""


@pytest.mark.needs("cc", "c++")
def test_self_test_makes_20_images_of_one(tmp_path):
    """On the host, with sanitizers: the sketch makes the same images as Python, in all variants."""
    images = structured_images(WIDE, 8, seed=4)
    model = convert(lively_subnet(WIDE, 6), images)
    samples = Samples(images[:1], ["image"])
    made = arduino.library(Source(model.content, model.graph, model.class_names), samples)
    folder = arduino.write(made, tmp_path / "MCUFormer")
    sketch = folder / "examples" / "SelfTest"
    (tmp_path / "main.cpp").write_text(f"{ON_HOST}#include <{sketch}/SelfTest.ino>\n")
    subprocess.run(["cc", "-std=c99", "-O1", "-c", *sorted(folder.rglob("*.c"))], cwd=tmp_path, check=True)
    flags = [
        "-std=c++14",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
    ]
    include = [f"-I{folder}/src", f"-I{sketch}", f"-I{STUBS}"]
    command = ["c++", *flags, *include, "main.cpp", *sorted(tmp_path.glob("*.o")), "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    read = self_test.read(Port(done.stdout), 1)
    made_images = self_test.images_of(to_int8(images[:1]))
    assert len({image.tobytes() for image in made_images}) == 20 and all(read.equal)
    np.testing.assert_array_equal(
        model.graph.logits(read.outputs), model.reference(made_images.view(np.uint8) ^ np.uint8(128))
    )
    assert set(read.microseconds) == {7}


@needs_tools
def test_size_as_built_is_within_the_board_or_refused(grey, tmp_path):
    folder = arduino.write(grey, tmp_path / "library")
    board = get_board("nano33ble")
    program = arduino_build.measure(folder, board, tmp_path / "objects")
    assert grey.plain.constant_bytes < program.flash_bytes < grey.plain.constant_bytes + 32 * 1024
    assert grey.plain.arena_bytes <= program.static_bytes < grey.plain.arena_bytes + 256
    small = dataclasses.replace(board, reserved_flash_bytes=board.flash_bytes - 16 * 1024)
    with pytest.raises(PlanError, match=r"bytes over the 16,384 of FLASH"):
        arduino_build.measure(folder, small, tmp_path / "objects")
    assert arduino_build.measure(folder, get_board("corstone300"), tmp_path / "m55") is None


DRIVER = """
#include <stdio.h>
#include "MCUFormerCamera.h"
static uint8_t pixels[100 * 100 * 2];
int main(void) {
  int32_t head[3];
  int8_t image[MODEL_IMAGE_BYTES];
  while (fread(head, sizeof head, 1, stdin) == 1) {
    if (fread(pixels, (size_t)(head[0] * head[1] * (head[2] + 1)), 1, stdin) != 1) return 1;
    mcuformer::Frame frame = {pixels, head[0], head[1], head[2] ? mcuformer::kRgb565 : mcuformer::kGrey};
    const int row = MODEL_IMAGE_WIDTH * MODEL_IMAGE_CHANNELS;
    for (int first = 0; first < MODEL_IMAGE_HEIGHT; first += 4) {
      if (mcuformer::FrameRows(&frame, first, 4, image + first * row) != 4) return 2;
    }
    fwrite(image, sizeof image, 1, stdout);
  }
  return 0;
}
"""


def expected(frame: np.ndarray, rows: int, columns: int, channels: int) -> np.ndarray:
    """uint8 [height, width, 3] -> int8: the largest part in the middle of the image's shape, averaged over the pixels
    that each one covers."""
    height, width, _ = frame.shape
    across, down = min(width, max(1, height * columns // rows)), min(height, max(1, width * rows // columns))
    top, left = (height - down) // 2, (width - across) // 2
    middle = frame[top : top + down, left : left + across].astype(int)
    result = np.zeros((rows, columns, 3), int)
    for y in range(rows):
        for x in range(columns):
            y0, x0 = y * down // rows, x * across // columns
            y1, x1 = max(y0 + 1, (y + 1) * down // rows), max(x0 + 1, (x + 1) * across // columns)
            part = middle[y0:y1, x0:x1].reshape(-1, 3)
            result[y, x] = part.sum(axis=0) // len(part)
    if channels == 1:
        result = (result @ [77, 150, 29] >> 8)[..., None]
    return (result - 128).astype(np.int8)


@pytest.mark.needs("cc", "c++")
def test_frames_of_a_camera_become_images(case):
    """Cropped and scaled, on the host: grey and colour, frames larger and smaller than the image."""
    rng = np.random.default_rng(0)
    _, *shape = case.model.graph.tensors[case.model.graph.inputs[0]].shape
    frames, want = b"", []
    for width, height in ((44, 36), (36, 44), (20, 16), (7, 9), (99, 3)):
        grey = rng.integers(0, 256, (height, width), dtype=np.uint8)
        frames += np.array([width, height, 0], "<i4").tobytes() + grey.tobytes()
        want.append(expected(np.repeat(grey[..., None], 3, axis=2), *shape))
        packed = rng.integers(0, 2**16, (height, width)).astype(">u2")
        frames += np.array([width, height, 1], "<i4").tobytes() + packed.tobytes()
        red, green, blue = (packed.astype(int) >> 11, packed.astype(int) >> 5 & 63, packed.astype(int) & 31)
        rgb = np.stack([red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2], axis=2)
        want.append(expected(rgb.astype(np.uint8), *shape))
    (case.work / "driver.cpp").write_text(DRIVER)
    program = case.work / "driver"
    flags = ["-std=c++14", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    command = ["c++", *flags, f"-I{case.folder}/src", case.work / "driver.cpp"]
    subprocess.run([*command, *_host_objects(case), "-o", program], check=True)
    done = subprocess.run([program], input=frames, capture_output=True, check=True)
    got = np.frombuffer(done.stdout, np.int8).reshape(len(want), *shape)
    np.testing.assert_array_equal(got, np.stack(want))


def _host_objects(case) -> list[Path]:
    files = sorted((case.folder / "src").rglob("*.c"))
    subprocess.run(["cc", "-std=c99", "-O1", "-c", *files], cwd=case.work, check=True)
    return sorted(case.work.glob("*.o"))


def without_head(options, stored: bool):
    """A library for a network without a head, the model, images, and the gallery in it: of other images."""
    images = structured_images(HEADLESS, 30, seed=4)
    model = convert(lively_subnet(HEADLESS, 6), images, **options)
    gallery = Gallery(model.reference(images[4:]), tuple(f'name "{i}"' for i in range(26))) if stored else None
    samples = Samples(images[:4], [f"image {i}" for i in range(4)])
    graph = tflite_file.read(model.content).graph
    return arduino.library(Source(model.content, graph, ()), samples, gallery=gallery), model, images[:4], gallery


@pytest.mark.parametrize("stored", [True, False])
def test_layout_without_a_head(stored):
    files = without_head({}, stored)[0].files
    assert {name.split("/")[1] for name in files if name.startswith("examples/")} == {"ImageNearest", "SelfTest"}
    assert "examples/ImageNearest/test_images.h" in files
    model = "src/models/model"
    assert f"{model}/model_gallery.h" in files and f"{model}/model_confidence.h" not in files
    assert (f"{model}/model_gallery.c" in files) == stored
    assert "class_names" not in "".join(files.values()) and 'model_gallery.h"' in files["src/MCUFormer.h"]
    test_every_include_is_found_beside_its_file_or_in_src(arduino.ArduinoLibrary(files, None, None))


@needs_tools
@pytest.mark.parametrize("options", [{}, {"strips": True}], ids=["image", "strips"])
@pytest.mark.parametrize("stored", [True, False])
def test_image_nearest_finds_the_stored_embedding(stored, options, tmp_path):
    """In QEMU, from the packaged library; what is nearest, and its cosine, as in float."""
    made, model, images, gallery = without_head(options, stored)
    folder, board = arduino.write(made, tmp_path / "MCUFormer"), get_board("nano33ble")
    machine = arduino_build.machine_of(board)
    snippets = re.findall(r"```cpp\n(.*?)```", made.files["README.md"], flags=re.DOTALL)
    assert len(snippets) == stored
    (tmp_path / "snippet.cpp").write_text("".join(snippets))
    kernels = arduino_build.compile_library(folder, machine, tmp_path / "library")
    objects = [*kernels, *compile_sketch(folder, "ImageNearest", machine, tmp_path)]
    if stored:
        snippet = [tmp_path / "snippet.cpp"]
        objects += firmware.compile_objects(
            snippet, machine.core, tmp_path / "cpp", [folder / "src", STUBS], arduino_build.CXX_FLAGS
        )
    program = link_sketch(objects, board, machine, tmp_path / "nearest")
    lines = firmware.run(program).text.splitlines()
    assert len(lines) == 4
    if not stored:
        sketch_objects = compile_sketch(folder, "SelfTest", machine, tmp_path)
        text = firmware.run(link_sketch([*kernels, *sketch_objects], board, machine, tmp_path / "self_test")).text
        tested = self_test.read(Port(text.encode()), 1)
        assert all(tested.equal) and tested.outputs.shape == (20, HEADLESS.embed_dim)
        assert lines[0].startswith("image 0: no stored embeddings, ")
    else:
        near = neighbours(model.reference(images), [""] * 4, gallery)
        for i, line in enumerate(lines):
            name, cosine = re.fullmatch(rf"image {i}: (.*), cosine (-?\d+)/1000, \d+ us", line).groups()
            assert name == near.nearest[i] and abs(int(cosine) - 1000 * near.cosines[i]) <= 3
        assert len(set(near.nearest)) > 1
    assert arduino_build.measure(folder, board, tmp_path / "probe").flash_bytes > made.plain.constant_bytes
    listing = subprocess.run(["arm-none-eabi-objdump", "-d", program.path], capture_output=True, text=True).stdout
    assert re.findall(r"<__aeabi_[fd](?!mod)\w+>", listing) == []


NEAREST_DRIVER = """
#include <stdio.h>
#include "model_gallery.h"
int main(void) {
  int8_t embedding[LENGTH];
  while (fread(embedding, sizeof embedding, 1, stdin) == 1) {
    int32_t cosine;
    const int32_t nearest = model_nearest(embedding, &cosine);
    if (nearest != model_nearest(embedding, 0)) return 1;
    printf("%d %d\\n", (int)nearest, (int)cosine);
  }
  return 0;
}
"""


class Worth:
    """What c_gallery reads of a graph."""

    def __init__(self, zero_point: int):
        self.output_zero_point = zero_point


@pytest.mark.needs("cc")
@pytest.mark.parametrize(("length", "zero_point"), [(1, 0), (7, -128), (192, 5), (8192, 127)])
def test_nearest_of_any_vectors(length, zero_point, tmp_path):
    """The largest, smallest and longest, vectors of zeros, opposite ones: no sum overflows."""
    rng = np.random.default_rng(length)
    stored = rng.normal(0, 1, (6, length)) * 10.0 ** rng.integers(-6, 6, (6, 1))
    stored[0], stored[1] = 0, 1e3
    gallery = Gallery(stored.astype(np.float32), tuple("abcdef"))
    for name, text in c_gallery.files(Worth(zero_point), gallery, "model", "Generated.").items():
        (tmp_path / name).write_text(text)
    flags = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=address,undefined"]
    command = ["cc", *flags, "-fno-sanitize-recover=all", "main.c", "model_gallery.c", "-o", "main"]
    (tmp_path / "main.c").write_text(NEAREST_DRIVER.replace("LENGTH", str(length)))
    subprocess.run(command, check=True, cwd=tmp_path)
    vectors = rng.integers(-128, 128, (9, length)).astype(np.int8)
    vectors[0], vectors[1], vectors[2] = zero_point, 127, -128
    done = subprocess.run([tmp_path / "main"], input=vectors.tobytes(), capture_output=True, check=True)
    got = np.array([line.split() for line in done.stdout.decode().splitlines()], int)
    each = cosines(vectors.astype(float) - zero_point, c_gallery.directions(gallery)[0])
    assert len(got) == len(vectors)
    np.testing.assert_allclose(each[np.arange(9), got[:, 0]], each.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(got[:, 1], 1000 * each.max(axis=1), atol=1.1)
    assert tuple(got[0]) == (0, 0)


def test_what_cannot_be_packaged_is_refused(tmp_path):
    images = structured_images(TINY, 4)
    with pytest.raises(ConfigError, match="staged weights: .* --weights xip"):
        staged = convert(lively_subnet(TINY, 6), images, weights="staged")
        arduino.library(Source(staged.content, staged.graph, staged.class_names), Samples(images, list("abcd")))
    model = convert(lively_subnet(TINY, 6), images)
    with pytest.raises(DataError, match="test images of 16 x 16 x 3 .*: the model takes 16 x 16 x 1"):
        wrong = np.zeros((2, 16, 16, 3), np.uint8)
        arduino.library(Source(model.content, model.graph, model.class_names), Samples(wrong, ["a", "b"]))


def test_images_are_stored_as_int8(grey):
    text = grey.files["examples/ImageClassify/test_images.h"]
    numbers = [int(n) for n in re.findall(r"-?\d+", text.split("= {\n")[-1])]
    np.testing.assert_array_equal(numbers, to_int8(structured_images(TINY, 8, seed=4)[:4]).reshape(-1))


@pytest.mark.skipif(shutil.which("arduino-cli") is None, reason="arduino-cli is not installed")
@pytest.mark.parametrize("sketch", ("ImageClassify",))
def test_arduino_cli_builds_the_sketch(case, sketch):
    cores = {"nano33ble": "arduino:mbed_nano:nano33ble", "portenta-h7": "arduino:mbed_portenta:envie_m7"}
    core = cores[case.board.name]
    installed = subprocess.run(["arduino-cli", "core", "list"], capture_output=True, text=True).stdout
    if core.rsplit(":", 1)[0] not in installed:
        pytest.skip(f"arduino-cli has no core {core.rsplit(':', 1)[0]}")
    path = case.folder / "examples" / sketch
    subprocess.run(["arduino-cli", "compile", "-b", core, "--library", case.folder, path], check=True)


@needs_tools
@pytest.mark.parametrize("name", ["words", "model_v2"])
def test_several_models_of_other_names(name, tmp_path):
    """Sketches, probe and README call the first by its name; a sketch of one's own runs both."""
    images = structured_images(TINY, 5)
    words = convert(lively_subnet(TINY, 6), images, class_names=names(TINY.num_classes))
    faces = convert(lively_subnet(HEADLESS, 5), structured_images(HEADLESS, 4))
    sources_of = [
        Source(model.content, tflite_file.read(model.content).graph, model.class_names, name=called)
        for called, model in ((name, words), ("faces", faces))
    ]
    made = arduino.library(sources_of[0], Samples(images, list("abcde")), get_board("nano33ble"), others=sources_of[1:])
    folder = arduino.write(made, tmp_path / "library")
    text = "".join(text for path, text in made.files.items() if not path.startswith("src/mcuformer/"))
    assert not re.search(r"\bmodel_(?!check|v2)|\bMODEL_(?!V2)|v2_v2", text) and "FACES_ARENA_BYTES" in text
    assert "src/models/faces/faces.h" in made.files["README.md"] and f"{name}.h" in made.files["src/MCUFormer.h"]
    built = arduino_build.measure(folder, get_board("nano33ble"), tmp_path / "probe", name)
    assert built is not None and built.flash_bytes > made.plain.constant_bytes
    (tmp_path / "both.c").write_text(
        f"""#include <MCUFormer.h>
        int main(void) {{
          static int8_t logits[{name.upper()}_CLASSES], embedding[FACES_EMBEDDING_LENGTH];
          return {name}_invoke({name}_image(), logits) + faces_invoke(faces_image(), embedding);
        }}"""
    )
    machine = arduino_build.machine_of(get_board("nano33ble"))
    objects = sorted((tmp_path / "probe" / "library").rglob("*.o"))
    include = [folder / "src"]
    objects += firmware.compile_objects([tmp_path / "both.c"], machine.core, tmp_path, include, arduino_build.C_FLAGS)
    objects += firmware.firmware_objects(machine, tmp_path / "firmware")
    both = firmware.link(objects, machine, tmp_path / "both.elf")
    assert both.flash_bytes - built.flash_bytes > made.others[0].constant_bytes
    assert firmware.run(both, tmp_path).status == 0
    second = arduino.write(arduino.library(sources_of[0], Samples(images, list("abcde"))), tmp_path / "second")
    (tmp_path / "two.c").write_text(
        f"#include <models/faces/faces.h>\n#include <{second}/src/models/{name}/{name}.h>\n"
    )
    with pytest.raises(ToolchainError, match=r"two MCUFormer libraries in one sketch: make one of both, mcuformer exp"):
        firmware.compile_objects([tmp_path / "two.c"], machine.core, tmp_path, include, arduino_build.C_FLAGS)
    with pytest.raises(PlanError, match="the arenas of 2 models"):
        both_bytes = made.tflm.arena_bytes_not_static + made.others[0].arena_bytes
        tight = dataclasses.replace(get_board("nano33ble"), reserved_sram_bytes=256 * 1024 - both_bytes + 1)
        arduino.library(sources_of[0], Samples(images, list("abcde")), tight, others=sources_of[1:])
