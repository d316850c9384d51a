# SPDX-License-Identifier: Apache-2.0
"""Networks that take sound, in every kind of export: samples in, the reference's class out."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arm_tests import needs_tools
from conftest import TINY, lively_subnet, structured_images
from signals import speech_like

from mcuformer import Interpreter, SubnetConfig, convert, sources
from mcuformer.boards import get_board
from mcuformer.converter import tflite_file
from mcuformer.converter.export import arduino
from mcuformer.converter.export.registry import TARGETS, Source, export
from mcuformer.errors import ConfigError, ModelError
from mcuformer.gallery import Gallery
from mcuformer.simulator import arduino_build, firmware
from mcuformer.sound import LogMel

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "export"))
from test_tflm_api import check, compiler, include  # noqa: E402

pytestmark = pytest.mark.usefixtures("kernels_compiled_once")

FRONT_END = LogMel(hop=160, frames=32, mels=20)
CONFIG = SubnetConfig(
    image_size=(32, 20), in_channels=1, patch_size=(2, 20), embed_dim=24, depth=1, num_heads=2, num_classes=7
)
VARIANTS = {"whole": {}, "strips": {"strips": True}, "staged strips": {"strips": True, "weights": "staged"}}


def sounds(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [speech_like(rng, FRONT_END.clip_samples, 300 * 4.0**i) for i in range(count)]


def images() -> np.ndarray:
    return np.stack([FRONT_END.image(samples) for samples in sounds(4)])


@pytest.fixture(scope="module", params=VARIANTS)
def saved(request, tmp_path_factory):
    """(its file, the model, options of convert)."""
    options = VARIANTS[request.param]
    net = lively_subnet(CONFIG, 8)
    model = convert(net, images(), class_names=[f"word {i}" for i in range(7)], front_end=FRONT_END, **options)
    path = tmp_path_factory.mktemp("sound") / "model.tflite"
    model.save(path)
    return path, model, options


def wav_folder(folder: Path) -> Path:
    import wave

    for i, samples in enumerate(sounds(7)):
        path = folder / f"word {i}" / "1.wav"
        path.parent.mkdir(parents=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(samples.tobytes())
    (folder / "testing_list.txt").write_text("".join(f"word {i}/1.wav\n" for i in range(7)))
    return folder


def test_a_model_carries_its_front_end(saved, tmp_path):
    path, model, _ = saved
    assert model.front_end == FRONT_END
    assert LogMel.from_dict(Interpreter(path).info["front_end"]) == FRONT_END
    without = convert(lively_subnet(CONFIG, 8), images(), **VARIANTS["whole"])
    assert "front_end" not in without.info
    with pytest.raises(ConfigError, match=r"front_end makes images of \(98, 40, 1\), the network takes \(32, 20, 1\)"):
        convert(lively_subnet(CONFIG, 8), images(), front_end=LogMel())


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the objects of the kernels are kept, which are the same in all plain C: make compiles them once."""
    return tmp_path_factory.mktemp("objects")


@pytest.mark.needs("cc", "make")
@pytest.mark.parametrize("image", ["arena", "caller"])
def test_the_example_of_plain_c_hears(saved, image, kept, tmp_path):
    path, model, options = saved
    result = export(path, "c", tmp_path / "c", image=image)
    assert any("front end: 2,860 bytes of RAM" in line for line in result.lines)
    assert result.values["front_end_ram_bytes"] == 2 * 400 + 4 * 512 + 12
    flags = "CFLAGS=-O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
    shutil.copytree(kept, tmp_path / "c", dirs_exist_ok=True, copy_function=shutil.copyfile)  # newer than the sources
    subprocess.run(["make", "-s", "-C", tmp_path / "c", flags, "LDFLAGS=-fsanitize=address,undefined"], check=True)
    for name in ("mcuformer/core", "mcuformer/sound"):
        (kept / name).mkdir(parents=True, exist_ok=True)
        for compiled in (tmp_path / "c" / name).glob("*.o"):
            shutil.copyfile(compiled, kept / name / compiled.name)
    text = (tmp_path / "c" / "README.md").read_text()
    assert "raw int16 samples, 16,000 a second" in text and "2,860 bytes of RAM" in text
    found = set()
    for samples in sounds(4):
        program = tmp_path / "c" / "example_model"
        done = subprocess.run([program], cwd=tmp_path / "c", input=samples.tobytes(), capture_output=True, text=False)
        assert done.returncode == 0, done.stderr.decode()
        logits = model.reference(FRONT_END.image(samples)[None])[0]
        assert done.stdout.decode() == f"word {logits.argmax()} (logit {logits.max():g})\n"
        found.add(int(logits.argmax()))
    assert len(found) > 1
    short = subprocess.run([program], cwd=tmp_path / "c", input=samples[:-500].tobytes(), capture_output=True)
    assert short.returncode != 0, "too few samples are an error"


VIT = Path("models") / "vit"  # in an export for TFLM


def includes(folder: Path) -> list[str]:
    """Of an export for TFLM, as its README says."""
    return [f"-I{folder / path}" for path in ("", "mcuformer", VIT)]


@pytest.mark.parametrize("generation", ["a_2023", "c"])
def test_the_readme_and_tables_for_tflm_compile(saved, generation, tmp_path):
    path, _, _ = saved
    folder = export(path, "tflm", tmp_path / "tflm", name="vit").folder
    use = re.findall(r"```cpp\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)[0]
    assert "mcuf_log_mel_push(&vit_front_end" in use and "int Classify() {" in use
    (tmp_path / "use.cc").write_text(use)
    check([*compiler("host"), *include(generation), *includes(folder)], [tmp_path / "use.cc", folder / VIT / "vit.cc"])
    c_files = [folder / VIT / "vit_front_end.c", folder / "mcuformer" / "sound" / "mcuf_log_mel.c"]
    check(["cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *includes(folder)], c_files)
    listed = (folder / "sources.mk").read_text()
    assert "$(vit_DIR)/models/vit/vit_front_end.c" in listed and "$(vit_DIR)/mcuformer/sound/mcuf_log_mel.c" in listed


@pytest.mark.parametrize("to", TARGETS)
def test_only_networks_of_sound_bring_the_front_end(to, tmp_path):
    net = lively_subnet(TINY, 3)
    convert(net, structured_images(TINY, 4)).save(tmp_path / "model.tflite")
    np.savez(tmp_path / "d.npz", images=structured_images(TINY, 40), labels=np.arange(40) % 5)
    options = {"data": str(tmp_path / "d.npz")} if to == "arduino" else {}
    folder = export(tmp_path / "model.tflite", to, tmp_path / "out", **options).folder
    assert not [path for path in folder.rglob("*") if re.search("sound|log_mel|front_end|Audio", path.name.lower())]


def test_a_damaged_front_end_is_one_line(saved, tmp_path):
    _, model, options = saved
    if options:
        pytest.skip("once is enough")
    for values, message in ((7, "front_end 7"), (FRONT_END.to_dict() | {"hop": 0}, "hop = 0"),
                            (LogMel().to_dict(), "takes 32 x 20 x 1, its front end makes 98 x 40 x 1")):  # fmt: skip
        content = tflite_file.write(model.graph, model.offsets, {**model.info, "front_end": values})
        (tmp_path / "model.tflite").write_bytes(content)
        with pytest.raises(ModelError, match=message) as error:
            export(tmp_path / "model.tflite", "c", tmp_path / "out")
        assert "\n" not in str(error.value) and "convert it again" in str(error.value)


class Library:
    """The Arduino library of a model, compiled once."""

    def __init__(self, path: Path, folder: Path):
        result = export(path, "arduino", folder / "MCUFormer", data=str(wav_folder(folder / "words")))
        assert any("front end: " in line for line in result.lines)
        self.folder, self.work = result.folder, folder
        self.board = get_board("nano33ble")
        self.machine = arduino_build.machine_of(self.board)

    def sketch(self, name: str, include=()) -> list[Path]:
        source = self.folder / "examples" / name / f"{name}.ino"
        target = self.work / name / f"{name}.ino.cpp"
        target.parent.mkdir(exist_ok=True)
        target.write_text(f'#include <Arduino.h>\n#line 1 "{source}"\n{source.read_text()}')
        include = [self.folder / "src", source.parent, TESTS / "arduino" / "stubs", *include]
        return firmware.compile_objects([target], self.machine.core, target.parent, include, arduino_build.CXX_FLAGS)


@pytest.fixture(scope="module")
def library(saved, tmp_path_factory):
    path, _, options = saved
    if options.get("weights") == "staged":
        pytest.skip("the sketches have no external flash")
    return Library(path, tmp_path_factory.mktemp("arduino"))


@needs_tools
def test_sketches_of_a_network_of_sound(library):
    there = {path.name for path in (library.folder / "examples").iterdir()}
    assert there == {"SelfTest", "ImageClassify", "TFLMClassify", "AudioClassify_Nano33BLESense"}
    assert {path.name for path in (library.folder / "src").glob("*.h")} == {
        "MCUFormer.h", "MCUFormerSound.h", "MCUFormerTFLM.h",
    }  # fmt: skip
    library.sketch("ImageClassify")
    library.sketch("SelfTest")
    library.sketch("TFLMClassify", [TESTS / "tflm_api" / folder for folder in ("a_2023", "shared")])
    assert "AudioClassify_Nano33BLESense" in (library.folder / "README.md").read_text()
    assert "CameraClassify" not in (library.folder / "README.md").read_text()


@needs_tools
def test_audio_classify_hears_in_qemu(library, saved, tmp_path):
    """A stream through the sketch, from the packaged library: every answer is the reference's of its last rows."""
    _, model, _ = saved
    samples = np.concatenate([sounds(4)[i] for i in (3, 1, 2, 0, 3)] * 2)
    (tmp_path / "sound.bin").write_bytes(np.int32(len(samples)).tobytes() + samples.tobytes())
    core, include = library.machine.core, [TESTS / "arduino" / "stubs", sources.firmware_folder()]
    objects = arduino_build.compile_library(library.folder, library.machine, tmp_path / "library")
    objects += library.sketch("AudioClassify_Nano33BLESense")
    run_time = [TESTS / "arduino" / "qemu_arduino.c", *firmware.run_time(library.machine)]
    c_flags = [*firmware.C_FLAGS, "-DMAIN_ELSEWHERE"]
    objects += firmware.compile_objects(run_time, core, tmp_path / "c", include, c_flags)
    glue = [TESTS / "arduino" / name for name in ("serial.cpp", "qemu_pdm.cpp")]
    objects += firmware.compile_objects(glue, core, tmp_path / "cpp", include, arduino_build.CXX_FLAGS)
    board = library.board
    program = firmware.link(objects, library.machine, tmp_path / "a.elf", board.sram_budget, board.flash_budget)
    lines = firmware.run(program, tmp_path).text.splitlines()
    # It answers at the first piece of 256 samples after every 4,000, of all whole frames until then.
    rows = np.concatenate([np.full((FRONT_END.frames, FRONT_END.mels), -128, np.int8), FRONT_END.rows(samples)])
    want, since = [], 0
    for end in range(256, len(samples) + 1, 256):
        since += 256
        if since < 4000:
            continue
        since = 0
        frames = max(0, (end - FRONT_END.window) // FRONT_END.hop + 1)
        image = (rows[frames : frames + FRONT_END.frames].astype(np.int16) + 128).astype(np.uint8)[None, ..., None]
        want.append(model.class_names[int(model.reference(image)[0].argmax())])
    assert [line.split(",")[0] for line in lines] == want
    assert len(want) > 8 and len(set(want)) > 1


def test_a_library_needs_a_front_end_that_fits(saved):
    _, model, options = saved
    if options.get("weights") == "staged":
        pytest.skip("the sketches have no external flash")
    samples = arduino.Samples(images(), list("abcd"))
    graph = tflite_file.read(model.content).graph
    with pytest.raises(ModelError, match="takes 32 x 20 x 1, its front end makes 98 x 40 x 1"):
        arduino.library(Source(model.content, graph, model.class_names, LogMel()), samples)


WITHOUT_HEAD = dataclasses.replace(CONFIG, num_classes=0)


@pytest.mark.needs("cc", "make")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_network_of_sound_without_a_head_gives_embeddings(variant, tmp_path):
    """The example in C, the README for TFLM, and the Arduino library with stored embeddings."""
    model = convert(lively_subnet(WITHOUT_HEAD, 8), images(), front_end=FRONT_END, **VARIANTS[variant])
    path = tmp_path / "model.tflite"
    model.save(path)
    folder = export(path, "c", tmp_path / "c").folder
    subprocess.run(["make", "-s", "-C", folder, "CFLAGS=-O1"], check=True)
    for samples in sounds(2):
        done = subprocess.run(
            [folder / "example_model"], cwd=folder, input=samples.tobytes(), capture_output=True, check=True
        )
        values = np.array(done.stdout.split(), float)
        np.testing.assert_allclose(values, model.reference(FRONT_END.image(samples)[None])[0], rtol=1e-5)
    folder = export(path, "tflm", tmp_path / "tflm", name="vit").folder
    use = re.findall(r"```cpp\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)[0]
    assert "const int8_t* Embed() {" in use
    (tmp_path / "use.cc").write_text(use)
    check([*compiler("host"), *include("c"), *includes(folder)], [tmp_path / "use.cc", folder / VIT / "vit.cc"])


@needs_tools
def test_an_arduino_library_of_sound_without_a_head(tmp_path):
    model = convert(lively_subnet(WITHOUT_HEAD, 8), images(), front_end=FRONT_END)
    model.save(tmp_path / "model.tflite")
    Gallery(model.reference(images()), tuple("abcd")).save(tmp_path / "gallery.npz")
    words = str(wav_folder(tmp_path / "words"))
    options = {"data": words, "gallery": str(tmp_path / "gallery.npz")}
    result = export(tmp_path / "model.tflite", "arduino", tmp_path / "lib", **options)
    assert result.lines[0].startswith("built for nano33ble: ") and result.values["flash_bytes"] > 0
    assert {path.name for path in (tmp_path / "lib" / "examples").iterdir()} == {"ImageNearest", "SelfTest"}
    assert "MCUFormerCamera" not in (tmp_path / "lib" / "README.md").read_text()
    header = "#include <Arduino.h>\n#include <MCUFormer.h>\n#include <MCUFormerSound.h>\n"
    sound = "mcuformer::Sound sound;\nint8_t embedding[MODEL_EMBEDDING_LENGTH];\n"
    (tmp_path / "use.cpp").write_text(f"{header}{sound}mcuf_status heard() {{ return sound.Classify(embedding); }}\n")
    include = [tmp_path / "lib" / "src", TESTS / "arduino" / "stubs"]
    core = arduino_build.machine_of(get_board("nano33ble")).core
    firmware.compile_objects([tmp_path / "use.cpp"], core, tmp_path / "o", include, arduino_build.CXX_FLAGS)
