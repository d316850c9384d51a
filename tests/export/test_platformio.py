# SPDX-License-Identifier: Apache-2.0
"""The PlatformIO library: its library.json, and its sources as PlatformIO builds them for three frameworks."""

import configparser
import json
import re

import pytest
from kind_exports import STUBS, Kinds, run

# framework -> what its compiler defines, where the stubs of its functions lie, and what starts the program
FRAMEWORKS = {
    "arduino": (["-DARDUINO=10819"], ["arduino"], ["arduino/host.cpp"]),
    "espidf": (["-DESP_PLATFORM"], ["esp_idf/include", "esp_idf/include/freertos"], ["esp_idf/host.c"]),
    "zephyr": (["-D__ZEPHYR__=1"], ["zephyr/include"], []),
}


@pytest.fixture(scope="module")
def libraries(kinds: Kinds, tmp_path_factory):
    """Both exports as archives, each compiled with one folder to include."""
    folder, exports = tmp_path_factory.mktemp("platformio"), kinds("platformio")
    for export in (exports.both, exports.other):
        objects = folder / export.name
        objects.mkdir()
        sources = sorted((export / "src").rglob("*.[cS]"))
        run("cc", "-Wall", "-Wextra", "-Werror", f"-I{export}/src", "-c", *sources, cwd=objects)
        run("ar", "rcs", folder / f"{export.name}.a", *objects.glob("*.o"))
    return [folder / "both.a", folder / "other.a"]


@pytest.mark.needs("cc", "c++")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_libraries_link_into_one_program_and_are_exact(framework, libraries, kinds: Kinds, tmp_path):
    defines, folders, starts = FRAMEWORKS[framework]
    exports = kinds("platformio")
    include = [f"-I{exports.both}/src", f"-I{exports.other}/src", *(f"-I{STUBS / path}" for path in folders)]
    main = exports.both / "examples/self_test/src/main.cpp"
    run("c++", "-Wall", "-Wextra", "-Werror", *defines, *include, "-c", main, cwd=tmp_path)
    for source in ["other_export.c", *starts]:
        run("cc", *include, "-c", STUBS / source, cwd=tmp_path)
    run("c++", *tmp_path.glob("*.o"), *libraries, "-o", tmp_path / "program")
    kinds.check(run(tmp_path / "program"))


@pytest.mark.needs("cc", "c++")
def test_libraries_of_two_versions_do_not_link(libraries, kinds: Kinds, tmp_path):
    """Whose kernels the linker would take from one of them alone."""
    exports = kinds("platformio")
    version = tmp_path / "version.c"
    text = (exports.both / "src/mcuf_status.c").read_text().replace("mcuf_kernels_0_1_0", "mcuf_kernels_0_0_9")
    version.write_text(text + "int old(void);\nint old(void) { return mcuf_kernels_0_0_9(); }\n")
    user = tmp_path / "user.c"
    user.write_text('#include "alpha.h"\nint old(void);\nint main(void) { return old() + alpha_invoke(0, 0); }\n')
    run("cc", f"-I{exports.both}/src", "-c", version, user, cwd=tmp_path)
    with pytest.raises(AssertionError, match="multiple definition of `mcuf_status_text'"):
        run("cc", user.with_suffix(".o"), version.with_suffix(".o"), libraries[0], "-o", tmp_path / "program")


def test_library_json_is_valid(kinds: Kinds):
    """What PlatformIO's schema requires of the fields that are there."""
    folder = kinds("platformio").both
    library = json.loads((folder / "library.json").read_text())
    assert re.fullmatch(r"[A-Za-z0-9_.+ -]{1,100}", library["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"]) and len(library["description"]) <= 1000
    assert library["frameworks"] == list(FRAMEWORKS) and library["platforms"] == "*"
    assert all(re.fullmatch(r"[a-z0-9\- ]{1,50}", keyword) for keyword in library["keywords"])
    assert all((folder / "src" / header).is_file() for header in library["headers"])
    assert library["build"] == {"flags": ["-O2"]}
    for example in library["examples"]:
        assert all((folder / example["base"] / file).is_file() for file in example["files"])
    assert set(library) == {
        "name", "version", "description", "keywords", "license", "headers", "frameworks", "platforms", "examples",
        "build",
    }  # fmt: skip


def test_the_example_has_an_environment_for_each_framework(kinds: Kinds):
    folder = kinds("platformio").both
    project = configparser.ConfigParser()
    project.read(folder / "examples/self_test/platformio.ini")
    assert {project[f"env:{name}"]["framework"] for name in FRAMEWORKS} == set(FRAMEWORKS)
    name, _, link = project["env"]["lib_deps"].partition("=symlink://")
    assert name == json.loads((folder / "library.json").read_text())["name"]
    assert (folder / "examples/self_test" / link).resolve() == folder.resolve()
