# SPDX-License-Identifier: Apache-2.0
"""The exported C, built with the host's compiler, equals the integer reference bit for bit."""

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import C_FLAGS as FLAGS
from conftest import CC, HEADLESS, TINY, lively_subnet, structured_images
from tflm_exports import VARIANTS

from mcuformer import QuantisationOptions, SubnetConfig, convert, sources
from mcuformer.converter import tflite_file
from mcuformer.converter.export import c_folder, c_model
from mcuformer.converter.export.c_model import CModel
from mcuformer.converter.export.registry import Source
from mcuformer.converter.graph import to_int8
from mcuformer.converter.passes.staging import is_staged, with_weights
from mcuformer.errors import ConfigError

pytestmark = pytest.mark.needs("cc", "make")

SANITIZE = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

DRIVER = """
#include <stdio.h>
#include "model.h"
#ifdef MODEL_CLASSES
#define OUTPUTS MODEL_CLASSES
#else
#define OUTPUTS MODEL_EMBEDDING_LENGTH
#endif
#ifdef STRIPS
static int32_t rows(void* user, int32_t first_row, int32_t row_count, int8_t* target) {
  (void)first_row;
  const size_t bytes = (size_t)row_count * MODEL_IMAGE_WIDTH * MODEL_IMAGE_CHANNELS;
  return fread(target, 1, bytes, (FILE*)user) == bytes ? row_count : -1;
}
#endif
#ifdef MODEL_WEIGHTS_BYTES
static int32_t weights(void* user, int32_t offset, int32_t bytes, int8_t* target) {
  return fseek(user, offset, SEEK_SET) == 0 ? (int32_t)fread(target, 1, (size_t)bytes, user) : -1;
}
#endif
int8_t own[MODEL_IMAGE_BYTES];
int main(void) {
  int8_t logits[OUTPUTS];
#ifdef MODEL_WEIGHTS_BYTES
  model_set_weights(weights, fopen("models/model/model.weights", "rb"));
#endif
  for (;;) {
#ifdef STRIPS
    if (fread(own, 1, 1, stdin) != 1) return 0;
    const mcuf_status status = model_invoke_strips(rows, stdin, logits);
#else
    int8_t* image = IMAGE;
    if (fread(image, 1, MODEL_IMAGE_BYTES, stdin) != MODEL_IMAGE_BYTES) return 0;
    const mcuf_status status = model_invoke(image, logits);
#endif
    if (status != MCUF_OK) return (int)status;
    fwrite(logits, 1, OUTPUTS, stdout);
  }
}
"""

ODD = SubnetConfig(
    image_size=23, in_channels=3, patch_size=5, embed_dim=37, depth=2, num_heads=(4, 1), kv_heads=(2, 1), head_dim=7,
    mlp_ratio=(1.3, 3.0), rank_ratio=0.2, num_classes=3,
)  # fmt: skip
ONE_TOKEN = SubnetConfig(image_size=6, in_channels=1, patch_size=6, embed_dim=5, depth=1, num_heads=1, num_classes=2)
CONV = SubnetConfig(image_size=17, in_channels=1, patch_size=4, embed_dim=16, depth=1, num_heads=2, stem="conv")
BLOCKS = dataclasses.replace(CONV, image_size=(17, 22), patch_size=8, stem_channels=(5, 7), stem_blocks=(2, 3))
LARGE = SubnetConfig(image_size=96, in_channels=3, patch_size=16, embed_dim=96, depth=2, num_heads=3, head_dim=32)
BIASES = dataclasses.replace(ODD, image_size=(23, 31), prefix_tokens=3, pool="token", relative_position="bias")
TABLES = dataclasses.replace(ODD, image_size=(31, 23), prefix_tokens=1, relative_position="tables")
NETWORKS = {
    "tiny": TINY, "odd": ODD, "one token": ONE_TOKEN, "conv": CONV, "large": LARGE, "headless": HEADLESS,
    "biases": BIASES, "tables": TABLES, "blocks": BLOCKS,
}  # fmt: skip
GELU_APART = {"schedule": "overwrite", "quantisation": QuantisationOptions(fuse_gelu=False)}
# name -> options of convert, where the image has its place, where the driver puts it
PLACED = {
    **{
        name: (options, "arena", "" if options.get("strips") else "model_image()") for name, options in VARIANTS.items()
    },
    "elsewhere": (VARIANTS["streamed"], "arena", "own"),
    "caller": (VARIANTS["overwrite"], "caller", "own"),
    "gelu": (GELU_APART, "arena", "model_image()"),
    "overwrite, staged strips": ({**VARIANTS["staged strips"], "schedule": "overwrite"}, "arena", ""),
}


def source_of(model, name: str = "model") -> Source:
    """With the graph that the model's file holds."""
    graph = tflite_file.read(model.content).graph
    if is_staged(graph):
        graph = with_weights(graph, model.info["weights"], model.weights_content, "model")
    return Source(model.content, graph, model.class_names, name=name)


def export(*models, folder: Path, image: str = "arena", force: bool = False, names=("model",)) -> list[CModel]:
    sources_of = [source_of(model, name) for model, name in zip(models, names, strict=True)]
    c_folder.to_folder(sources_of, folder, force, image, None, False)
    return list(c_folder.c_layout(sources_of, image).models)


def compile_and_run(folder: Path, c_kernels, images: np.ndarray, strips: bool, place: str, flags: tuple) -> np.ndarray:
    """The int8 logits [n, classes] of uint8 images."""
    (folder / "driver.c").write_text(DRIVER)
    files = [folder / "driver.c", *(folder / "models" / "model").glob("*.c")]
    defines = ["-DSTRIPS"] if strips else [f"-DIMAGE={place}"]
    include = [f"-I{folder}/models/model", f"-I{folder}/mcuformer/core"]
    subprocess.run(
        [CC, *FLAGS, *flags, *defines, *include, *files, *c_kernels(flags), "-o", folder / "driver"], check=True
    )
    frames = [to_int8(image).tobytes() for image in images]
    if strips:  # a byte before each image; rows that no patch covers are not asked for
        side = images.shape[1] - images.shape[1] % stored_patch(folder)
        frames = [b"\0" + to_int8(image[:side]).tobytes() for image in images]
    done = subprocess.run([folder / "driver"], input=b"".join(frames), capture_output=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.int8).reshape(len(images), -1)


def stored_patch(folder: Path) -> int:
    """Its height; 1 with a convolution stem, which reads every row."""
    text = (folder / "models" / "model" / "model.c").read_text().replace("\n", " ")
    return int(text.split(".patch_height = ")[1].split(",")[0]) if ".patch_height = " in text else 1


@pytest.mark.parametrize("variant", PLACED)
@pytest.mark.parametrize("network", NETWORKS)
def test_exported_c_equals_the_reference(network, variant, c_kernels, tmp_path):
    config = NETWORKS[network]
    options, image, place = PLACED[variant]
    images = structured_images(config, 6, seed=2)
    model = convert(lively_subnet(config, 5), images[:3], **options)
    want = model.graph.run(to_int8(images))
    (exported,) = export(model, folder=tmp_path, image=image)
    for flags in (("-O2",), SANITIZE) if variant == "streamed" else (SANITIZE,):
        got = compile_and_run(tmp_path, c_kernels, images, bool(options.get("strips")), place, flags)
        np.testing.assert_array_equal(got, want)
    assert exported.arena_bytes <= model.plan.head_bytes
    if image == "arena" and config.outputs < config.embed_dim:
        assert exported.arena_bytes == model.plan.head_bytes


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("strips", [False, True])
def test_make_builds_the_example_with_every_warning_an_error(strips, tiny_net, tiny_images, tmp_path):
    model = convert(tiny_net, tiny_images, strips=strips, class_names=["plain", 'quoted "\\', "über", "d", "??="])
    (exported,) = export(model, folder=tmp_path / "out", names=["vit"], image="arena" if strips else "caller")
    files = {"vit.c", "vit.h", "vit_arena.c", "vit_data.c", "vit_data.h"}
    assert set(tree(tmp_path / "out")) >= {f"models/vit/{name}" for name in files} | {
        "example/vit/main.c", "Makefile", "CMakeLists.txt", "sources.mk", "README.md", "LICENSE",
    }  # fmt: skip
    subprocess.run(["make", "-s", "-C", tmp_path / "out", "CFLAGS=-O1 -Wall -Wextra -Werror -pedantic"], check=True)
    for image in tiny_images[:4]:
        done = subprocess.run(
            [tmp_path / "out" / "example_vit"], input=image.tobytes(), capture_output=True, check=True
        )
        logits = model.reference(image[None])[0]
        best = int(logits.argmax())
        assert done.stdout.decode() == f"{model.class_names[best]} (logit {logits[best]:g})\n"
    assert exported.image_bytes == 0
    symbols = subprocess.run(["nm", "-u", tmp_path / "out" / "libvit.a"], capture_output=True, text=True, check=True)
    undefined = {line.split()[1] for line in symbols.stdout.splitlines() if line.startswith("  ")}
    outside = {name for name in undefined if not name.startswith(("mcuf_", "vit_"))}
    assert outside <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


@pytest.mark.parametrize("strips", [False, True])
def test_the_example_of_a_network_without_a_head_prints_its_embedding(strips, tmp_path):
    images = structured_images(HEADLESS, 4)
    model = convert(lively_subnet(HEADLESS, 5), images, strips=strips)
    export(model, folder=tmp_path / "out", names=["vit"])
    header = (tmp_path / "out" / "models" / "vit" / "vit.h").read_text()
    assert f"#define VIT_EMBEDDING_LENGTH {HEADLESS.embed_dim}\n" in header
    assert f"#define VIT_EMBEDDING_ZERO_POINT ({model.graph.output_zero_point})\n" in header
    for text in tree(tmp_path / "out").values():
        assert b"class_names" not in text and b"VIT_CLASSES" not in text
    subprocess.run(["make", "-s", "-C", tmp_path / "out", "CFLAGS=-O1 -Wall -Wextra -Werror -pedantic"], check=True)
    for image in images[:2]:
        done = subprocess.run(
            [tmp_path / "out" / "example_vit"], input=image.tobytes(), capture_output=True, check=True
        )
        steps = model.graph.run(to_int8(image[None]))[0].astype(int) - model.graph.output_zero_point
        assert done.stdout.decode().splitlines() == [f"{model.graph.output_scale * n:g}" for n in steps]


@pytest.mark.needs("cmake")
def test_cmake_builds_the_example(tiny_model, tiny_images, tmp_path):
    export(tiny_model, folder=tmp_path / "out")
    subprocess.run(["cmake", "-S", tmp_path / "out", "-B", tmp_path / "build"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, capture_output=True)
    subprocess.run(
        [tmp_path / "build" / "example_model"], input=tiny_images[0].tobytes(), capture_output=True, check=True
    )


def test_an_image_elsewhere_leaves_it_out_of_the_arena(tiny_model):
    large = convert(lively_subnet(LARGE, 1), structured_images(LARGE, 2))
    inside = c_model.generate(large.graph, ["?"] * 10)
    outside = c_model.generate(large.graph, ["?"] * 10, image="caller")
    image = LARGE.image_size**2 * LARGE.in_channels
    assert inside.image_bytes == image and outside.image_bytes == 0
    assert inside.arena_bytes < outside.arena_bytes + image
    assert outside.arena_bytes < inside.arena_bytes
    with pytest.raises(ConfigError, match="image = 'flash': must be one of arena, caller"):
        c_model.generate(large.graph, ["?"] * 10, image="flash")


def test_two_networks_in_one_program(tiny_model, tiny_images, c_kernels, tmp_path):
    other = convert(lively_subnet(ODD, 2), structured_images(ODD, 2))
    for name, model in (("first", tiny_model), ("second", other)):
        for file, text in c_model.generate(model.graph, list(model.class_names), name).sources.items():
            (tmp_path / file).write_text(text)
    (tmp_path / "main.c").write_text(
        """#include "first.h"
        #include "second.h"
        int main(void) {
          int8_t a[FIRST_CLASSES], b[SECOND_CLASSES];
          return first_invoke(first_image(), a) != MCUF_OK || second_invoke(second_image(), b) != MCUF_OK;
        }"""
    )
    include = [f"-I{tmp_path}", f"-I{sources.c_kernel_folder()}"]
    files = [*tmp_path.glob("*.c"), *c_kernels(("-O2",))]
    subprocess.run([CC, *FLAGS, *include, *files, "-o", tmp_path / "both"], check=True)
    subprocess.run([tmp_path / "both"], check=True)


def test_a_folder_that_holds_something_is_kept(tiny_model, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    export(tiny_model, folder=folder)  # an empty folder is fine
    first = tree(folder)
    (folder / "models" / "model" / "model.c").write_text("mine")
    (folder / "notes.txt").write_text("mine too")
    before = tree(folder)
    with pytest.raises(ConfigError, match="out: not empty; give another folder, or --force"):
        export(tiny_model, folder=folder)
    assert tree(folder) == before
    export(tiny_model, folder=folder, force=True)
    assert tree(folder) == {**first, "notes.txt": b"mine too"}
    with pytest.raises(ConfigError, match="notes.txt: a file; give a folder"):
        export(tiny_model, folder=folder / "notes.txt")
    for name in ("1st", "a-b", "", "main", "x" * 50):
        with pytest.raises(ConfigError, match="name .*: must be at most 41"):
            export(tiny_model, folder=tmp_path / "other", names=[name])
    assert not (tmp_path / "other").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # no temporary folders


def test_a_source_that_fails_is_an_error_and_no_crash(tiny_net, tiny_images, c_kernels, tmp_path):
    for i, (options, call) in enumerate(
        [
            ({"strips": True}, "model_invoke_strips(fails, 0, logits)"),
            ({"strips": True}, "model_invoke_strips(0, 0, logits)"),
            ({"weights": "staged"}, "model_invoke(model_image(), logits)"),
        ]
    ):
        folder = tmp_path / str(i)
        export(convert(tiny_net, tiny_images, **options), folder=folder)
        (folder / "main.c").write_text(
            f"""#include "model.h"
            int32_t fails(void* user, int32_t first, int32_t count, int8_t* rows);
            int32_t fails(void* user, int32_t first, int32_t count, int8_t* rows) {{
              (void)user, (void)first, (void)rows;
              return count - 1;
            }}
            int main(void) {{
              int8_t logits[MODEL_CLASSES];
              return {call} == MCUF_ERROR_SOURCE ? 0 : 1;
            }}"""
        )
        include = [f"-I{folder}/models/model", f"-I{folder}/mcuformer/core"]
        files = [folder / "main.c", *(folder / "models" / "model").glob("*.c"), *c_kernels(SANITIZE)]
        subprocess.run([CC, *FLAGS, *SANITIZE, *include, *files, "-o", folder / "a"], check=True)
        subprocess.run([folder / "a"], check=True)
