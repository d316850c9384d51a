# SPDX-License-Identifier: Apache-2.0
"""Damaged files, saved here or given: refused in one line, or read as they were saved where their format can tell."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from scripts import load_script

from mcuformer import SubnetConfig
from mcuformer.checks import finite
from mcuformer.cli.train import read_config
from mcuformer.cli.training import assignments
from mcuformer.errors import ConfigError, McuformerWarning, ModelError
from mcuformer.nas import append_log, build_subnet, load_space, load_subnet, save_subnet, saved_network
from mcuformer.nas.append_log import AppendLog

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "0.1.0"
CONFIG = SubnetConfig(image_size=8, in_channels=1, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=3)


@pytest.mark.filterwarnings("ignore::mcuformer.errors.McuformerWarning")
@pytest.mark.parametrize("count", [pytest.param(150, id="150"), pytest.param(2000, id="2000", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["subnet", "supernet", "checkpoint", "search", "evolution"])
def test_no_damaged_file_is_read_with_other_values(kind, count, tmp_path):
    found = load_script("tools/damage_saved_files.py").attack(kind, count, 0, tmp_path)
    assert found["wrong"] == found["crashed"] == found["unseen"] == 0, found
    assert found["refused"] + found["right"] == count and found["refused"] > count // 2


@pytest.mark.parametrize("count", [pytest.param(100, id="100"), pytest.param(2000, id="2000", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["pth", "safetensors", "onnx", "space", "config", "wav"])
def test_no_damaged_file_of_others_is_a_crash(kind, count, tmp_path):
    found = load_script("tools/damage_saved_files.py").attack(kind, count, 0, tmp_path)
    assert found["wrong"] == found["crashed"] == 0, found
    assert sum(found.values()) == count and found["refused"] > count // 10
    assert (found["unseen"] == 0) == (kind == "pth")  # the one that has checksums


DEEP = 5000


ODD_YAML = [
    "a: " + "[" * DEEP + "]" * DEEP, "a: " + "1" * DEEP, "a: 2026-99-99", "a: !!int ''", "a: !!bool x", "a: !!binary x",
    "a: !!timestamp x", "a: !!python/object/apply:os.getpid []", "a: &a [*a]", "embed_dim: &a [*a]", "&a {a: *a}",
    "? [1]\n: 2", "!!set {a, b}", "- a", "3", "\0", "",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD_YAML)
def test_a_space_that_is_odd_yaml_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"space\.yaml: ") as caught:
        load_space(tmp_path / "space.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "NaN", "{", "x" * 5000, '{"a": ' * 50_000])
def test_a_setting_that_is_odd_json_is_a_text_or_refused(text):
    assert assignments([f"depth={text}"], "--set")["depth"] in (text,) or text == "NaN"
    with pytest.raises(ConfigError, match="depth = ") as caught:
        read_config(None, [f"depth={text}"])
    assert "\n" not in str(caught.value)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "subnet.pt"
    save_subnet(build_subnet(CONFIG), path, {"class_names": ["a", "b", "c"]})
    return path


def test_every_flipped_byte_of_a_weight_is_noticed(saved):
    """torch.load takes them all."""
    content = saved.read_bytes()
    weight = load_subnet(saved).layers[0].mlp.fc1.weight.detach().numpy().tobytes()
    start = content.index(weight)
    for at in range(start, start + len(weight), 37):
        saved.write_bytes(content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :])
        torch.load(saved, weights_only=True)
        with pytest.raises(ModelError, match="not a readable subnet.pt .*checksum"):
            load_subnet(saved)


def test_an_edited_weight_is_noticed(saved):
    content = torch.load(saved, weights_only=True)
    content["state"]["head.bias"][1] += 1e-3
    torch.save(content, saved)
    with pytest.raises(ModelError, match="damaged or edited .*hash.*train or copy it again") as caught:
        load_subnet(saved)
    assert "\n" not in str(caught.value)


def test_every_value_of_the_content_is_in_the_hash():
    values = [
        None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, "", "1", b"1", [], (), {}, [[]], [1], (1,), {"a": 1}, {1: "a"},
        {"a": 1, "b": 2}, {"b": 2, "a": 1}, torch.zeros(2), torch.zeros(1, 2), torch.zeros(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.int32), torch.zeros(()), torch.zeros(0),
        torch.tensor([0.0, -0.0]), torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.complex64),
        ["ab", "c"], ["a", "bc"],
    ]  # fmt: skip
    assert len({saved_network.content_hash(value) for value in values}) == len(values)
    image = torch.rand(2, 3, 4, 4)
    assert saved_network.content_hash(image) == saved_network.content_hash(image.to(memory_format=torch.channels_last))
    for odd in (object(), {"a": {1, 2}}, Path("x"), torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")):
        with pytest.raises(TypeError):
            saved_network.content_hash(odd)


def test_notes_that_cannot_be_read_back_are_not_written(saved, tmp_path):
    before = saved.read_bytes()
    with pytest.raises(ConfigError, match="notes.where is a PosixPath; only plain values"):
        save_subnet(build_subnet(CONFIG), saved, {"where": tmp_path})
    assert saved.read_bytes() == before


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8, torch.bool, torch.int64])
def test_weights_that_are_no_floats_are_refused(saved, dtype):
    content = torch.load(saved, weights_only=True)
    content["state"]["head.weight"] = content["state"]["head.weight"].to(dtype)
    torch.save(saved_network.sealed(content), saved)
    with pytest.raises(ModelError, match=f"weights do not fit the config: head.weight is {dtype}, not torch.float32"):
        load_subnet(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_other_floats_are_read(saved, dtype):
    content = torch.load(saved, weights_only=True)
    want = content["state"]["head.weight"].to(dtype).float()
    content["state"] = {name: value.to(dtype) for name, value in content["state"].items()}
    torch.save(saved_network.sealed(content), saved)
    net = load_subnet(saved)
    assert net.head.weight.dtype == torch.float32 and torch.equal(net.head.weight, want)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_a_wrapped_network_are_read(saved, wrapper):
    content = torch.load(saved, weights_only=True)
    want = load_subnet(saved).state_dict()
    content["state"] = {wrapper + name: value for name, value in content["state"].items()}
    torch.save(saved_network.sealed(content), saved)
    assert all(torch.equal(value, want[name]) for name, value in load_subnet(saved).state_dict().items())


@pytest.mark.parametrize("name", ["subnet_conv.pt", "subnet_low_rank.pt"])
def test_a_file_of_an_earlier_version_loads_with_one_warning(name, tmp_path):
    with pytest.warns(McuformerWarning) as seen:
        load_subnet(GOLDEN / name)
    assert len(seen) == 1 and "\n" not in str(seen[0].message) and name in str(seen[0].message)
    content = bytearray((GOLDEN / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="checksum|not a readable"):
        load_subnet(tmp_path / name)


def test_a_new_file_loads_without_a_warning(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_subnet(saved)


# logs


def open_log(path, read=None):
    return AppendLog(path, "mcuformer.test/1", {"run": 3}, read)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    made = open_log(path)
    for i in range(6):
        made.append({"place": i, "accuracy": i / 7})
    return path


def test_a_log_reads_back(log):
    assert open_log(log).entries == [{"place": i, "accuracy": i / 7} for i in range(6)]
    open_log(log).append({"place": 6, "accuracy": 1})
    assert len(open_log(log).entries) == 7
    assert all("check" in json.loads(line) for line in log.read_text().splitlines())


def edited(line: bytes) -> bytes:
    return line.replace(b'"accuracy": 0.', b'"accuracy": 0.9')


CHANGES = {
    "an accuracy is edited": (lambda lines: [*lines[:3], edited(lines[3]), *lines[4:]], 4),
    "a line is left out": (lambda lines: [*lines[:3], *lines[4:]], 4),
    "the first result is left out": (lambda lines: [lines[0], *lines[2:]], 2),
    "two lines are swapped": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
    "a line is there twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
    "a checksum is gone": (lambda lines: [*lines[:5], b'{"place": 4, "accuracy": 1}', *lines[6:]], 6),
    "a line is {}": (lambda lines: [*lines, b"{}"], 8),
    'a line is {"x": 1}': (lambda lines: [*lines, b'{"x": 1}'], 8),
    "a line is []": (lambda lines: [*lines, b"[]"], 8),
    "a line is empty": (lambda lines: [*lines, b""], 8),
    "a line is no UTF-8": (lambda lines: [*lines, b"\xff\xfe"], 8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_log_that_is_not_as_written_is_refused_by_line(log, change):
    make, line = CHANGES[change]
    content = b"\n".join(make(log.read_bytes().splitlines())) + b"\n"
    assert content != log.read_bytes()
    log.write_bytes(content)
    with pytest.raises(ModelError, match=f"line {line} .*remove this line and all after it") as caught:
        open_log(log)
    assert "\n" not in str(caught.value) and log.read_bytes() == content
    log.write_bytes(b"".join(content.splitlines(keepends=True)[: line - 1]))  # as it says
    assert open_log(log).entries == [{"place": i, "accuracy": i / 7} for i in range(line - 2)]


def without_checks(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "check"}) + "\n" for line in lines))


def test_a_log_of_an_earlier_version_goes_on(log):
    without_checks(log)
    with pytest.warns(McuformerWarning, match="6 lines of an earlier version"):
        open_log(log).append({"place": 6, "accuracy": 1})
    with pytest.warns(McuformerWarning):
        assert len(open_log(log).entries) == 7
    log.write_bytes(log.read_bytes().replace(b'"accuracy": 0.14', b'"accuracy": 0.94'))
    with pytest.raises(ModelError, match="line 8 is damaged or edited, or a line before it is"):
        open_log(log)


@pytest.mark.parametrize(
    "line", ['{"x": 1}', "[]", "3", "{}", '{"place": 1, "accuracy": NaN}', '{"place": 1, "accuracy": "0.5"}']
)
def test_a_line_that_is_no_result_is_refused(log, line):
    without_checks(log)
    log.write_text(log.read_text() + line + "\n")

    def read(entry):
        return entry["place"], finite("accuracy", entry["accuracy"])

    with pytest.raises(ModelError, match="log.jsonl: line 8 is no result") as caught:
        open_log(log, read)
    assert "\n" not in str(caught.value)


def test_two_runs_on_one_log_are_noticed(log):
    first, second = open_log(log), open_log(log)
    first.append({"place": 6})
    with pytest.raises(ConfigError, match="another run writes to it"):
        second.append({"place": 6})
    first.append({"place": 7})
    assert len(open_log(log).entries) == 8


FULL = """
import resource, signal, sys
from mcuformer.errors import McuformerError
from mcuformer.nas import build_subnet, save_subnet
from mcuformer.nas.append_log import AppendLog
from mcuformer import SubnetConfig
from mcuformer.checks import finite
log = AppendLog(sys.argv[1], "mcuformer.test/1", {"run": 3})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file grows above it, as on a full disk
net = build_subnet(SubnetConfig())
for act in (lambda: [log.append({"place": i}) for i in range(100)], lambda: save_subnet(net, sys.argv[2])):
    try:
        act()
    except McuformerError as error:
        print(error)
"""


def test_a_full_disk_is_one_line(tmp_path):
    log, subnet = tmp_path / "log.jsonl", tmp_path / "subnet.pt"
    subnet.write_bytes(b"before")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(log), str(subnet)], capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    first, second = done.stdout.splitlines()
    assert "log.jsonl: cannot be written (File too large); make room" in first
    assert "subnet.pt: cannot be written (File too large)" in second
    assert subnet.read_bytes() == b"before" and sorted(os.listdir(tmp_path)) == ["log.jsonl", "subnet.pt"]
    assert log.read_bytes().endswith(b"}\n") and len(open_log(log).entries) > 5  # whole lines, and it goes on


def test_a_log_of_another_version_warns_and_a_field_that_differs_is_named(tmp_path, monkeypatch):
    path, form = tmp_path / "log.jsonl", "mcuformer.test/1"
    monkeypatch.setattr(append_log, "versions", lambda: {"torch": "1.0"})
    AppendLog(path, form, {"options": {"seed": 0, "later": None}, "labels_crc32": 1}).append({"x": 1})
    with pytest.raises(ConfigError, match="belongs to another run, with options.seed = 0 instead of 1; use the same"):
        AppendLog(path, form, {"options": {"seed": 1}, "labels_crc32": 1})
    same = {"options": {"seed": 0}, "labels_crc32": 1}
    with pytest.warns(McuformerWarning, match="was made with .*torch 1.0, here .*: results may differ"):
        assert AppendLog(path, form, same).entries == [{"x": 1}]
    with pytest.warns(McuformerWarning, match="it does not state its pixels: they are believed"):
        AppendLog(path, form, {**same, "pixels_sha256": "a"})
