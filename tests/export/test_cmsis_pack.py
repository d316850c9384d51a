# SPDX-License-Identifier: Apache-2.0
"""The CMSIS-Pack: the rules of PACK.xsd that matter, and a program from the components that a project selects."""

import re
from xml.etree import ElementTree

import pytest
import yaml
from arm_tests import needs_tools
from kind_exports import Kinds, check_on

from mcuformer.simulator import firmware

# The elements of a package in the order that PACK.xsd wants, and those that it requires.
ORDER = ["vendor", "name", "description", "url", "license", "releases", "conditions", "components", "examples"]
CATEGORIES = {".c": "sourceC", ".S": "sourceAsm", ".h": "header"}


def package(folder):
    (path,) = folder.glob("*.pdsc")
    return path, ElementTree.parse(path).getroot()


def test_the_description_follows_the_schema(kinds: Kinds):
    path, root = package(kinds("cmsis-pack").both)
    assert [element.tag for element in root] == ORDER and root.get("schemaVersion")
    assert path.name == f"{root.findtext('vendor')}.{root.findtext('name')}.pdsc"
    assert re.fullmatch(r"\d+\.\d+\.\d+", root.find("releases/release").get("version"))
    conditions = {condition.get("id") for condition in root.iter("condition")}
    for component in root.iter("component"):
        assert all(component.get(name) for name in ("Cclass", "Cgroup", "Csub", "Cversion"))
        assert component.findtext("description") and component.get("condition") in {None, *conditions}
        assert all(file.get("category") in {*CATEGORIES.values(), "include"} for file in component.iter("file"))


@pytest.mark.parametrize("export", ["both", "other"])
def test_every_file_is_listed_once_and_is_there(export, kinds: Kinds):
    folder = getattr(kinds("cmsis-pack"), export)
    _, root = package(folder)
    listed = [file for file in root.iter("file") if file.get("category") != "include"]
    names = [file.get("name") for file in listed]
    there = [path for part in ("mcuformer", "models") for path in (folder / part).rglob("*") if path.is_file()]
    assert sorted(names) == sorted(path.relative_to(folder).as_posix() for path in there)
    assert all(file.get("category") == CATEGORIES[f".{file.get('name').rpartition('.')[2]}"] for file in listed)
    for file in root.iter("file"):
        if file.get("category") == "include":
            assert file.get("name").endswith("/") and (folder / file.get("name")).is_dir()
    assert (folder / root.findtext("license")).is_file()
    example = root.find("examples/example")
    start = folder / example.get("folder")
    assert (start / example.get("doc")).is_file() and (
        start / example.find("project/environment").get("load")
    ).is_file()


def selected(folder, project):
    """The components of the pack that a cproject.yml names, as vendor::class:group:sub."""
    _, root = package(folder)
    vendor = root.findtext("vendor")
    found = {f"{vendor}::{':'.join(c.get(n) for n in ('Cclass', 'Cgroup', 'Csub'))}": c for c in root.iter("component")}
    named = [entry["component"] for entry in project["components"]]
    return [found[name] for name in named if name.startswith(f"{vendor}::")], set(found) - set(named)


def test_the_readme_selects_what_the_example_does(kinds: Kinds):
    folder = kinds("cmsis-pack").both
    project = yaml.safe_load((folder / "example/self_test/self_test.cproject.yml").read_text())["project"]
    shown = re.search(r"in your `cproject.yml`:\n\n```yaml\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
    named = [[c.get("Csub") for c in selected(folder, which)[0]] for which in (yaml.safe_load(shown), project)]
    assert named == [["Kernels", "alpha", "beta"]] * 2


@needs_tools
def test_the_components_of_the_example_run_and_are_exact(kinds: Kinds, tmp_path):
    """Two packs in one program on a simulated Cortex-M4; the second one's kernels are left out, as its README says."""
    exports = kinds("cmsis-pack")
    example = exports.both / "example/self_test"
    solution = yaml.safe_load((example / "self_test.csolution.yml").read_text())["solution"]
    assert (example / solution["packs"][0]["path"]).resolve() == exports.both.resolve()
    project = yaml.safe_load((example / solution["projects"][0]["project"]).read_text())["project"]
    components, others = selected(exports.both, project)
    assert len(components) == 3 and not others
    files = [(exports.both, file) for component in components for file in component.iter("file")]
    more = [c for c in package(exports.other)[1].iter("component") if c.get("Csub") != "Kernels"]
    assert [component.get("Csub") for component in more] == ["Sound", "gamma"]
    files += [(exports.other, file) for component in more for file in component.iter("file")]
    include = [folder / file.get("name") for folder, file in files if file.get("category") == "include"]
    sources = [folder / file.get("name") for folder, file in files if file.get("category").startswith("source")]
    check_on(firmware.get_machine("mps2-an386"), sources, include, tmp_path)
