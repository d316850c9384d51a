# SPDX-License-Identifier: Apache-2.0
"""mcuformer import, as a user meets it: what it writes and prints, and one line for everything that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import mistake
from test_fixtures import imported, load, run

import mcuformer
from mcuformer.converter.importers import autoformer
from mcuformer.errors import McuformerError
from mcuformer.nas import load_subnet

TIMM = {**load("timm-class-token").settings}


def state(name: str = "timm-class-token") -> dict[str, torch.Tensor]:
    return dict(load(name).state)


def command(*arguments, folder) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "mcuformer", "import", *map(str, arguments)]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=120)


def settings_as_options(settings: dict) -> list[str]:
    return [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_the_command_writes_what_the_function_makes(suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    if suffix == "pt":
        torch.save({"model": {f"module.{name}": value for name, value in state().items()}, "epoch": 3}, path)
    else:
        from safetensors.torch import save_file

        save_file(state(), path)
    done = command(path, "--family", "timm", *settings_as_options(TIMM), "--json", "made.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote subnet.pt" in done.stdout and "family timm" in done.stdout
    image = load("timm-class-token").arrays["image"]
    np.testing.assert_array_equal(
        run(load_subnet(tmp_path / "subnet.pt"), image), run(imported("timm-class-token"), image)
    )
    said = json.loads((tmp_path / "made.json").read_text())
    assert said["family"] == "timm" and said["config"]["prefix_tokens"] == 1


def test_the_command_ends_in_one_line(tmp_path):
    torch.save(state(), tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("not a checkpoint")
    options = ["--family", "timm", *settings_as_options(TIMM)]
    cases = [
        (["missing.pt", *options], "missing.pt"),
        (["half.pt", *options], "half.pt"),
        (["text.pt", *options], "text.pt"),
        (["model.pt", "--family", "hf"], "its names are those of family timm"),
        (["model.pt", "--family", "resnet"], "resnet"),
        (
            ["model.pt"],
            "family is not given: one of timm, hf, torchvision, vit-pytorch, autoformer; its names are those of timm",
        ),
        (["model.pt", "--family", "timm"], "num_heads, activation, norm_epsilon, mean, std"),
        (["model.pt", *options, "--image-size", "large"], "--image-size large"),
        (["model.pt", *options, "--new-head", "-1"], "-1"),
    ]
    for arguments, words in cases:
        assert words in mistake("import", *arguments, folder=tmp_path), arguments
        assert not (tmp_path / "subnet.pt").exists(), arguments


def refused(weights: dict[str, torch.Tensor], family: str = "timm", **settings) -> str:
    with pytest.raises(McuformerError) as caught:
        mcuformer.import_vit(weights, family, **{**TIMM, **settings})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name, shape, words",
    [
        ("blocks.0.attn.q_norm.weight", (8,), "normalises queries and keys"),
        ("blocks.1.mlp.w12.weight", (64, 32), "a gated MLP (SwiGLU)"),
        ("blocks.0.attn.relative_position_bias_table", (9, 2), "relative positions of 4 x 4 patches and 2 heads"),
        ("rel_pos_bias.relative_position_bias_table", (52, 3), "relative positions of 4 x 4 patches and 2 heads"),
        ("blocks.0.attn.rel_pos.relative_position_bias_table", (49, 2), "relative positions of another kind"),
        ("layers.0.blocks.0.attn.relative_position_bias_table", (49, 2), "relative positions of another kind"),
        ("rope.periods", (4,), "rotary positions"),
        ("attn_pool.latent", (1, 32), "pools by attention"),
        ("something.new", (3,), "something.new"),
    ],
)
def test_a_foreign_tensor_is_refused_by_name(name, shape, words):
    message = refused({**state(), name: torch.ones(shape)})
    assert name in message and words in message


def refused_of(fixture: str, change, **settings) -> str:
    """What the fixture's weights are refused for after change(weights)."""
    original, weights = load(fixture), state(fixture)
    change(weights)
    with pytest.raises(McuformerError) as caught:
        mcuformer.import_vit(weights, original.family, **{**original.settings, **settings})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_relative_positions_that_are_not_whole():
    table = "attn.relative_position_bias_table"
    assert f"'blocks.1.{table}' is missing" in refused_of("timm-beit", lambda w: w.pop(f"blocks.1.{table}"))
    assert "'blocks.0.attn.q_bias' is missing" in refused_of("timm-beit", lambda w: w.pop("blocks.0.attn.q_bias"))
    assert "'blocks.0.attn.v_bias' is missing" in refused_of("timm-beit", lambda w: w.pop("blocks.0.attn.v_bias"))
    assert "relative positions of 4 x 4 patches" in refused_of(
        "timm-beit-shared", lambda w: w.pop("pos_embed"), grid_shape=[4, 4]
    )
    key = "attn.rel_pos_embed_k.embeddings_table"
    assert f"'blocks.1.{key}_h' is missing" in refused_of(
        "autoformer-relative", lambda w: [w.pop(name) for name in list(w) if "blocks.1.attn.rel_pos" in name]
    )
    cut = refused_of("autoformer-relative", lambda w: w.update({f"blocks.0.{key}_h": w[f"blocks.0.{key}_h"][:-1]}))
    assert f"'blocks.0.{key}_v' has 6 entries" in cut
    narrow = refused_of("mcuformer-relative", lambda w: w.update({f"blocks.0.{key}_h": w[f"blocks.0.{key}_h"][:, :9]}))
    assert f"'blocks.0.{key}_h'" in narrow and "of its 9" in narrow


def test_relative_positions_of_grids_that_the_originals_misread():
    def wide(weights):  # 16 patches as 2 x 8
        table = "beit.encoder.layer.{}.attention.attention.relative_position_bias.relative_position_bias_table"
        weights.update({table.format(i): torch.zeros(3 * 15 + 3, 2) for i in range(2)})

    assert "unless the grid is a square" in refused_of("hf-beit-4", wide, grid_shape=[2, 8])
    assert "as of a square" in refused_of("autoformer-relative", lambda w: None, grid_shape=[2, 8])


@pytest.mark.parametrize("name, said", [("hf-beit", False), ("hf-beit-no-head", True)])
def test_a_config_that_says_other_relative_positions_than_the_weights(name, said):
    config = {**load(name).facts["config"], "use_relative_position_bias": said}
    weights = {key: value for key, value in state(name).items() if not said or "relative" not in key}
    with pytest.raises(McuformerError) as caught:
        mcuformer.import_vit(weights, "hf", config=config, **load(name).facts["pixels"])
    assert f"use_relative_position_bias = {str(said).lower()}" in str(caught.value)


def test_the_index_of_relative_positions_is_not_needed():
    original, name = load("timm-beit"), "blocks.0.attn.relative_position_index"
    weights = {**state("timm-beit"), name: torch.zeros(17, 17, dtype=torch.long)}
    net = mcuformer.import_vit(weights, "timm", **original.settings)
    assert name in net.notes["imported"]["left_out"]
    image = original.arrays["image"]
    np.testing.assert_array_equal(run(net, image), run(imported("timm-beit"), image))


def test_weights_that_are_not_numbers_or_not_there():
    weights = state()
    weights["blocks.1.mlp.fc1.weight"] = weights["blocks.1.mlp.fc1.weight"].clone()
    weights["blocks.1.mlp.fc1.weight"][0, 0] = float("nan")
    assert "blocks.1.mlp.fc1.weight" in refused(weights)
    weights = state()
    del weights["blocks.1.attn.proj.weight"]
    assert "blocks.1.attn.proj" in refused(weights)
    weights = state()
    weights["head.weight"] = weights["head.weight"][:, :-1]
    assert "head.weight" in refused(weights)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_heads": 5}, "num_heads = 5"),
        ({"activation": "tanh"}, "activation = 'tanh'"),
        ({"pool": "max"}, "pool = 'max'"),
        ({"std": [0.0, 1.0, 1.0]}, "std = [0.0, 1.0, 1.0]"),
        ({"heads": 3}, "unknown setting 'heads'"),
    ],
)
def test_a_wrong_setting_is_named(settings, words):
    assert words in refused(state(), **settings)


def test_classes_new_head_and_low_rank(tmp_path):
    image = load("timm-class-token").arrays["image"]
    logits = run(imported("timm-class-token"), image)
    (tmp_path / "keep.txt").write_text("3 cat\n1 dog\n")
    kept = imported("timm-class-token", classes=tmp_path / "keep.txt")
    np.testing.assert_allclose(run(kept, image), logits[:, [3, 1]], atol=1e-6)
    assert kept.notes["class_names"] == ["cat", "dog"]
    assert imported("timm-class-token", new_head=5).config.num_classes == 5
    embedding = imported("timm-class-token", new_head=0)
    assert embedding.head is None and run(embedding, image).shape == (1, embedding.config.embed_dim)
    small = imported("timm-class-token", low_rank=0.5)
    errors = dict(small.notes["imported"]["low_rank_errors"])
    assert len(errors) == 4 and all(0 < error < 1 for error in errors.values())
    assert small.config.rank_ratio is not None
    exact = imported("timm-class-token", low_rank=1.0)
    np.testing.assert_allclose(run(exact, image), logits, atol=1e-4)


def test_low_rank_around_attention():
    """The best factors of each matrix, of the rank that is asked for, and their error."""
    image = load("timm-class-token").arrays["image"]
    whole, small = imported("timm-class-token"), imported("timm-class-token", low_rank_attention=0.25)
    errors = dict(small.notes["imported"]["low_rank_errors"])
    assert list(errors) == [f"layers.{i}.{name}" for i in range(2) for name in ("qkv", "proj")]
    assert small.config.rank_ratio is None and {layer.attention_rank for layer in small.config.layers} == {8}
    for i in range(2):
        for name in ("qkv", "proj"):
            values = (net.state_dict() for net in (whole, small))
            (matrix,), (down, up) = (
                [v.double() for at, v in one.items() if f"layers.{i}.attention.{name}" in at and v.ndim == 2]
                for one in values
            )
            left = torch.linalg.svdvals(matrix)
            assert float((up @ down - matrix).norm()) == pytest.approx(float(left[8:].norm()), rel=1e-4)
            assert errors[f"layers.{i}.{name}"] == pytest.approx(float(left[8:].norm() / left.norm()), rel=1e-4)
    exact = imported("timm-class-token", low_rank_attention=1.0, low_rank=0.5)
    assert len(exact.notes["imported"]["low_rank_errors"]) == 8
    exact = imported("timm-class-token", low_rank_attention=1.0)
    np.testing.assert_allclose(run(exact, image), run(whole, image), atol=1e-4)


def test_mcuformers_factors_around_attention_stay_factors(monkeypatch):
    """Where their rank is at most the subnet's width; else, as in the fixture, they become one matrix."""
    fixture = load("mcuformer")
    assert imported("mcuformer").config.attention_rank_ratio is None
    state = dict(fixture.state)
    for name in list(state):
        if ".attn." in name and name.endswith(("1.weight", "2.weight", "3.weight")):
            value = state[name]
            value = value if name.endswith("3.weight") else value[:9]
            state[name] = value if name.endswith("1.weight") else value[:, :9]
    read = lambda: mcuformer.import_vit(state, fixture.family, **fixture.settings)  # noqa: E731
    net = read()
    assert [layer.attention_rank for layer in net.config.layers] == [9, 9]
    monkeypatch.setattr(autoformer, "_rank_fits", lambda *_: False)
    whole = read()
    assert whole.config.attention_rank_ratio is None
    np.testing.assert_allclose(run(net, fixture.arrays["image"]), run(whole, fixture.arrays["image"]), atol=1e-5)


def test_biases_of_all_three_factors_count():
    """A subnet takes the first values of each; q, k and v are interleaved in the weights' rows only."""
    fixture, generator = load("mcuformer"), torch.Generator().manual_seed(0)
    state = {name: value.double() for name, value in fixture.state.items()}
    for name in list(state):
        if name.startswith("blocks.") and name.endswith(("1.weight", "2.weight")):
            state[name.replace("weight", "bias")] = torch.randn(len(state[name]), generator=generator).double()
    net = mcuformer.import_vit(state, fixture.family, **fixture.settings)
    d = fixture.settings["embed_dim"]
    for i, (layer, chosen) in enumerate(zip(net.layers, net.config.layers, strict=True)):
        cases = {
            "attn.qkv": (layer.attention.qkv, 3 * chosen.q_dim, None),
            "attn.proj": (layer.attention.proj, d, None),
            "fc1": (layer.mlp.fc1.up, chosen.mlp_dim, d // 2),
            "fc2": (layer.mlp.fc2.up, d, d // 2),
        }
        for name, (made, outputs, rank) in cases.items():
            hidden = 0
            for factor, rows in ((1, rank), (2, rank), (3, outputs)):
                weight, bias = (state[f"blocks.{i}.{name}{factor}.{part}"][:rows] for part in ("weight", "bias"))
                if "qkv" in name:
                    weight = torch.cat([weight[part::3] for part in range(3)])
                hidden = bias if factor == 1 else weight[:, : len(hidden)] @ hidden + bias
            torch.testing.assert_close(made.bias, hidden.float(), rtol=1e-5, atol=1e-5)
