# SPDX-License-Identifier: Apache-2.0
"""Several models in one program: of one export and of two, in arenas of their own or of the caller's."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import HEADLESS, TINY, lively_subnet, structured_images
from test_c_model import CC, FLAGS, SANITIZE, export, source_of

from mcuformer import convert, sources
from mcuformer.boards import get_board
from mcuformer.converter.export import c_folder, registry
from mcuformer.converter.export.board_fit import check_board_of_all
from mcuformer.converter.graph import to_int8
from mcuformer.errors import ConfigError, PlanError

pytestmark = pytest.mark.needs("cc", "make")

OPTIONS = {"whole": {}, "strips": {"strips": True}, "staged": {"weights": "staged", "strips": True}}
IMAGES = structured_images(TINY, 4)
# Runs alpha, then beta, on raw uint8 pixels, and prints both outputs.
BOTH = """#include <stdio.h>
#include "alpha.h"
#include "beta.h"
int main(void) {
  int8_t logits[ALPHA_CLASSES], embedding[BETA_EMBEDDING_LENGTH];
  if (fread(alpha_image(), 1, ALPHA_IMAGE_BYTES, stdin) != ALPHA_IMAGE_BYTES) return 2;
  if (alpha_invoke(alpha_image(), logits) != MCUF_OK) return 3;
  if (fread(beta_image(), 1, BETA_IMAGE_BYTES, stdin) != BETA_IMAGE_BYTES) return 4;
  if (beta_invoke(beta_image(), embedding) != MCUF_OK) return 5;
  fwrite(logits, 1, sizeof(logits), stdout);
  fwrite(embedding, 1, sizeof(embedding), stdout);
  return 0;
}
"""


@pytest.fixture(scope="module")
def alpha(tiny_net):
    return convert(tiny_net, IMAGES, class_names=list("abcde"))


@pytest.fixture(scope="module")
def beta():
    return convert(lively_subnet(HEADLESS, 5), structured_images(HEADLESS, 4))


@pytest.fixture(scope="module")
def apart(alpha, beta, tmp_path_factory):
    """A folder with two exports, alpha and beta, and a program of both."""
    root = tmp_path_factory.mktemp("apart")
    export(alpha, folder=root / "alpha", names=["alpha"])
    export(beta, folder=root / "beta", names=["beta"])
    (root / "both.c").write_text(BOTH)
    return root


def outputs(program: Path, alpha, beta) -> None:
    """That the program's outputs are the reference's."""
    images = to_int8(IMAGES[:1]), to_int8(structured_images(HEADLESS, 1))
    done = subprocess.run([program], input=images[0].tobytes() + images[1].tobytes(), capture_output=True, check=True)
    want = b"".join(model.graph.run(image).tobytes() for model, image in zip((alpha, beta), images, strict=True))
    assert done.stdout == want


MAKEFILE = (
    "include alpha/sources.mk\ninclude beta/sources.mk\nboth: both.c $(MCUF_SRCS)\n\t$(CC) $(MCUF_INCLUDES) $^ -o $@\n"
)


def test_two_exports_with_make(apart, alpha, beta):
    (apart / "Makefile").write_text(MAKEFILE)
    subprocess.run(["make", "-s", "-C", apart, "CFLAGS=-O1"], check=True)
    outputs(apart / "both", alpha, beta)


@pytest.mark.needs("cmake")
def test_two_exports_with_cmake(apart, alpha, beta, tmp_path):
    (apart / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(firmware C)\nadd_subdirectory(alpha)\nadd_subdirectory(beta)\n"
        "add_executable(both both.c)\ntarget_link_libraries(both mcuformer::alpha mcuformer::beta)\n"
    )
    subprocess.run(["cmake", "-S", apart, "-B", tmp_path], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path, "-j2"], check=True, capture_output=True)
    outputs(tmp_path / "both", alpha, beta)


def with_other_kernels(apart: Path, folder: Path) -> Path:
    """The two exports, of which alpha is of another version."""
    shutil.copytree(apart, folder)
    for path in (folder / "alpha").rglob("*"):
        if path.is_file() and path.suffix != ".weights":
            text = path.read_text().replace("0.1.0", "0.0.9").replace("mcuf_kernels_0_1_0", "mcuf_kernels_0_0_9")
            path.write_text(text)
    return folder


def test_kernels_of_another_version_do_not_link(apart, tmp_path):
    """Not with make and CMake, which say so, nor by hand: the linker names the version."""
    root = with_other_kernels(apart, tmp_path / "apart")
    (root / "Makefile").write_text(MAKEFILE)
    done = subprocess.run(["make", "-C", root], capture_output=True, text=True)
    assert (
        done.returncode != 0 and "beta: made by MCUFormer 0.1.0, the kernels of another export by 0.0.9" in done.stderr
    )
    kernels = [*(root / "alpha" / "mcuformer" / "core").glob("*.c")]
    models = [*(root / "alpha" / "models").rglob("*.c"), *(root / "beta" / "models").rglob("*.c")]
    include = [f"-I{root}/{name}/models/{name}" for name in ("alpha", "beta")] + [f"-I{root}/beta/mcuformer/core"]
    objects = []
    for path in [root / "both.c", *models, *kernels]:
        objects.append(tmp_path / f"{path.stem}.o")
        own = [f"-I{root}/alpha/mcuformer/core"] if "alpha" in path.relative_to(root).parts else []
        subprocess.run([CC, "-c", *own, *include, path, "-o", objects[-1]], check=True)
    done = subprocess.run([CC, *objects], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "mcuf_kernels_0_1_0" in done.stderr and "mcuf_kernels_0_0_9" not in done.stderr


@pytest.mark.needs("cmake")
def test_cmake_says_that_the_kernels_are_of_another_version(apart, tmp_path):
    root = with_other_kernels(apart, tmp_path / "apart")
    (root / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(firmware C)\nadd_subdirectory(alpha)\nadd_subdirectory(beta)\n"
    )
    done = subprocess.run(["cmake", "-S", root, "-B", tmp_path / "b"], capture_output=True, text=True)
    assert done.returncode != 0 and "beta: made by MCUFormer 0.1.0" in done.stderr.replace("\n", " ")


def test_one_export_of_several_models(alpha, beta, tmp_path):
    exported = export(alpha, beta, folder=tmp_path / "out", names=["alpha", "beta"])
    assert [model.name for model in exported] == ["alpha", "beta"]
    assert len(list((tmp_path / "out").rglob("mcuf_status.c"))) == 1
    subprocess.run(["make", "-s", "-C", tmp_path / "out", "CFLAGS=-O1"], check=True)
    for name, model, image in (("alpha", alpha, IMAGES[:1]), ("beta", beta, structured_images(HEADLESS, 1))):
        done = subprocess.run(
            [tmp_path / "out" / f"example_{name}"], input=image.tobytes(), capture_output=True, check=True
        )
        steps = model.graph.run(to_int8(image))[0].astype(int) - model.graph.output_zero_point
        found = done.stdout.decode()
        if name == "alpha":
            assert found.startswith(f"{'abcde'[steps.argmax()]} (logit ")
        else:
            np.testing.assert_array_equal(np.rint(np.array(found.split(), float) / model.graph.output_scale), steps)


def test_the_kernels_version_is_the_packages():
    version = sources.kernels_version()
    setup = (Path(__file__).parents[2] / "setup.cfg").read_text()
    header = (sources.c_kernel_folder() / "mcuf_version.h").read_text()
    assert f"\nversion = {version}\n" in setup and f"mcuf_kernels_{version.replace('.', '_')}(void)" in header


THREADS = """#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "model.h"
#define RUNS 200
static int8_t images[2][MODEL_IMAGE_BYTES], logits[2][MODEL_CLASSES], first[2][MODEL_CLASSES];
static union { int8_t bytes[MODEL_ARENA_BYTES]; int64_t aligned; } arenas[2];
static int32_t rows(void* user, int32_t row, int32_t count, int8_t* target) {
  const int32_t bytes = MODEL_IMAGE_WIDTH * MODEL_IMAGE_CHANNELS;
  memcpy(target, (int8_t*)user + row * bytes, (size_t)(count * bytes));
  return count;
}
#ifdef MODEL_WEIGHTS_BYTES
static int8_t weights[MODEL_WEIGHTS_BYTES];
static int32_t read_weights(void* user, int32_t offset, int32_t bytes, int8_t* target) {
  memcpy(target, (int8_t*)user + offset, (size_t)bytes);
  return bytes;
}
#endif
static mcuf_run run_of(int i) {
  mcuf_run run = {arenas[i].bytes, MODEL_ARENA_BYTES, images[i], rows, images[i], {NULL, NULL}, logits[i]};
#ifdef MODEL_WEIGHTS_BYTES
  run.weights.read = read_weights;
  run.weights.user = weights;
#endif
  return run;
}
static void* many(void* which) {
  const int i = *(int*)which;
  const mcuf_run run = run_of(i);
  for (int n = 0; n < RUNS; ++n) {
    memset(logits[i], 0, MODEL_CLASSES);
    if (model_invoke_in(&run) != MCUF_OK || (n > 0 && memcmp(first[i], logits[i], MODEL_CLASSES) != 0)) return which;
    memcpy(first[i], logits[i], MODEL_CLASSES);
  }
  return NULL;
}
int main(void) {
  int which[2] = {0, 1};
  pthread_t threads[2];
#ifdef MODEL_WEIGHTS_BYTES
  FILE* file = fopen("models/model/model.weights", "rb");
  if (file == NULL || fread(weights, 1, sizeof(weights), file) != sizeof(weights)) return 2;
#endif
  if (fread(images, 1, sizeof(images), stdin) != sizeof(images)) return 3;
  for (int i = 0; i < 2; ++i) pthread_create(&threads[i], NULL, many, &which[i]);
  for (int i = 0; i < 2; ++i) {
    void* failed;
    pthread_join(threads[i], &failed);
    if (failed != NULL) return 4;
  }
  fwrite(logits, 1, sizeof(logits), stdout);
  for (int i = 0; i < 2; ++i) { /* op by op, in turns */
    memset(logits[i], 0, MODEL_CLASSES);
    memset(arenas[i].bytes, -1, MODEL_ARENA_BYTES);
  }
  for (int32_t op = 0; op < MODEL_OPS; ++op) {
    for (int i = 0; i < 2; ++i) {
      const mcuf_run run = run_of(i);
      if (model_step(&run, op) != MCUF_OK) return 5;
    }
  }
  fwrite(logits, 1, sizeof(logits), stdout);
  mcuf_run bad[6] = {run_of(0), run_of(0), run_of(0), run_of(0), run_of(0), run_of(0)};
  bad[0].arena = NULL, bad[1].output = NULL, bad[2].image = NULL;
  bad[3].arena_bytes -= 1, bad[4].arena += 1, bad[5].arena_bytes = -1;
  for (int i = 0; i < 6; ++i) putchar((int)model_invoke_in(&bad[i]));
  const mcuf_run run = run_of(0);
  putchar((int)model_step(&run, -1)), putchar((int)model_step(&run, MODEL_OPS)), putchar((int)model_invoke_in(NULL));
  return 0;
}
"""
BAD_RUNS = {False: [1, 1, 1, 2, 2, 2, 3, 3, 1], True: [1, 1, 0, 2, 2, 2, 3, 3, 1]}  # in strips there is no image


@pytest.mark.parametrize("name", OPTIONS)
def test_two_threads_run_one_model_and_it_holds_no_variable(name, tiny_net, c_kernels, tmp_path):
    model = convert(tiny_net, IMAGES, **OPTIONS[name])
    export(model, folder=tmp_path)
    (tmp_path / "threads.c").write_text(THREADS)
    own = tmp_path / "models" / "model"
    include = [f"-I{own}", f"-I{tmp_path}/mcuformer/core"]
    for flags in (("-O2",), SANITIZE):
        files = [tmp_path / "threads.c", own / "model.c", own / "model_data.c", *c_kernels(flags)]
        subprocess.run(
            [CC, *FLAGS, "-Wno-unused-function", *flags, "-pthread", *include, *files, "-o", tmp_path / "a"], check=True
        )
        pixels = to_int8(IMAGES[:2])
        done = subprocess.run([tmp_path / "a"], input=pixels.tobytes(), capture_output=True, cwd=tmp_path, check=True)
        want = model.graph.run(pixels)
        outputs, bad = done.stdout[: 2 * want.size], done.stdout[2 * want.size :]
        np.testing.assert_array_equal(np.frombuffer(outputs, np.int8).reshape(2, *want.shape), [want, want])
        assert list(bad) == BAD_RUNS[bool(OPTIONS[name].get("strips"))]
    for path in (own / "model.c", own / "model_data.c"):
        subprocess.run([CC, *FLAGS, "-O2", "-fno-pie", *include, "-c", path, "-o", tmp_path / "o.o"], check=True)
        sizes = subprocess.run(["size", tmp_path / "o.o"], capture_output=True, text=True, check=True).stdout
        assert sizes.splitlines()[1].split()[1:3] == ["0", "0"], sizes


def test_another_compiler_says_how_it_aligns(alpha, tmp_path):
    export(alpha, folder=tmp_path)
    own = tmp_path / "models" / "model"
    command = [
        CC,
        "-U__GNUC__",
        f"-I{own}",
        f"-I{tmp_path}/mcuformer/core",
        "-c",
        own / "model_data.c",
        "-o",
        "/dev/null",
    ]
    done = subprocess.run([command[0], "-std=c99", *command[1:]], capture_output=True, text=True)
    assert (
        done.returncode != 0 and "say how this compiler aligns an array to 16 bytes: -DMCUF_ALIGNED=..." in done.stderr
    )
    subprocess.run([command[0], "-std=c11", *command[1:]], check=True)
    given = "-DMCUF_ALIGNED=__attribute__((aligned(16)))"
    subprocess.run([command[0], "-std=c99", given, *command[1:]], check=True)


@pytest.fixture
def files(alpha, beta, tmp_path):
    alpha.save(tmp_path / "a.tflite")
    beta.save(tmp_path / "my net.tflite")
    (tmp_path / "more").mkdir()
    beta.save(tmp_path / "more" / "A.tflite")
    return tmp_path


def test_names_of_several_models(files):
    both = [files / "a.tflite", files / "my net.tflite"]
    result = registry.export(both, "c", files / "out")
    assert [values["name"] for values in result.values["models"]] == ["a", "my_net"]
    assert (files / "out" / "models" / "my_net" / "my_net.h").is_file()
    for options, models, message in (
        ({"name": ["x"]}, both, "--name x: 1 for 2 models; give each its own"),
        ({"name": ["x", "x"]}, both, "name 'x': two models of one name"),
        ({"name": ["x", "a-b"]}, both, "name 'a-b': must be at most"),
        ({}, [both[0], files / "more" / "A.tflite"], "name 'A': two models of one name"),
        ({"name": ["string", "x"]}, both, "name 'string': must be .* a header of the C library"),
        ({"name": ["x", "MCUF_run"]}, both, "name 'MCUF_run': must be"),
        ({"name": ["x", "X_data"]}, both, "name 'X_data': a file of 'x' is called so"),
        ({"weights": "w"}, both, "--weights w: of which of 2 models"),
        ({}, [], "no model: give at least one"),
    ):
        for kind in ("c", "tflm"):
            with pytest.raises(ConfigError, match=message):
                registry.export(models, kind, files / "b", **options)
    assert not (files / "b").exists()


def test_models_that_fit_one_by_one_and_not_together(alpha, beta):
    board = get_board("nano33ble")
    with pytest.raises(
        PlanError, match="the arenas of 2 models, 200,001 bytes together, exceed nano33ble's .*NAME_invoke_in"
    ):
        check_board_of_all(board, [100_000, 100_001], 10, "run them in one arena (NAME_invoke_in), ")
    with pytest.raises(PlanError, match="2 models of 900,000 bytes together exceed nano33ble's budget"):
        check_board_of_all(board, [10, 10], 900_000)
    check_board_of_all(board, [board.sram_budget - 1, 1], board.flash_budget)
    layout = c_folder.c_layout([source_of(alpha, "alpha"), source_of(beta, "beta")], board=board)
    assert len(layout.models) == 2 and os.path.commonprefix(layout.kernel_sources).startswith("mcuformer/")


def test_models_of_different_cores_need_one(tiny_net, tmp_path):
    for board in ("nano33ble", "corstone300"):
        convert(tiny_net, IMAGES, board=board).save(tmp_path / f"{board}.tflite")
    paths = [tmp_path / "corstone300.tflite", tmp_path / "nano33ble.tflite"]
    with pytest.raises(ConfigError, match="different boards .corstone300.tflite for Cortex-M55, .* give --core"):
        registry.export(paths, "c", tmp_path / "out")
    assert registry.export(paths, "c", tmp_path / "out", core="m7").values["packing"] == "pairs"


@pytest.mark.parametrize("first", ["c", "tflm"])
def test_exports_of_two_kinds_with_make(first, files):
    """Nothing is listed twice, and nothing lost."""
    for kind in ("c", "tflm"):
        registry.export(files / "a.tflite", kind, files / kind, name=f"net_{kind}")
    order = ("c", "tflm") if first == "c" else ("tflm", "c")
    lines = [*(f"include {kind}/sources.mk" for kind in order), "all: ; @echo $(MCUF_SRCS) / $(MCUF_INCLUDES)\n"]
    (files / "Makefile").write_text("\n".join(lines))
    done = subprocess.run(["make", "-s", "-C", files, "all"], capture_output=True, text=True, check=True)
    listed, includes = (text.split() for text in done.stdout.split(" / "))
    names = [Path(path).name for path in listed]
    assert len(names) == len(set(names)) and {"net_c.c", "net_tflm.cc", "mcuf_status.c", "int_gelu.cc"} <= set(names)
    assert {"-Ic/models/net_c", "-Itflm/models/net_tflm", "-Itflm/"} <= set(includes)
