import json

import numpy as np
import pytest
import torch

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from tests.deltas.files import moved, save, save_pair, total, weights


def reasons(pair):
    return dict(pair.report.skipped)


# Shapes


def enlarged():
    tuned = moved(weights())
    tuned["embed_tokens.weight"] = torch.cat([tuned["embed_tokens.weight"], torch.ones(2, 6)])
    return tuned


def test_different_shapes_are_refused_with_the_name_and_both_shapes():
    with pytest.raises(InputError) as caught:
        open_pair(weights(), enlarged())
    (problem,) = caught.value.problems
    assert problem.startswith("embed_tokens.weight: shapes differ: 11 × 6 in base, 13 × 6 in tuned")
    assert 'on_shape="truncate"' in problem


def test_different_shapes_can_be_skipped_and_are_listed():
    pair = open_pair(weights(), enlarged(), on_shape="skip")
    assert "embed_tokens.weight" not in pair.names
    assert reasons(pair)["embed_tokens.weight"].startswith("shapes differ: 11 × 6 in base")


@pytest.mark.parametrize("grown", ["base", "tuned"])
def test_an_added_vocabulary_can_be_truncated_and_is_said(grown):
    sides = (weights(), enlarged()) if grown == "tuned" else (enlarged(), weights())
    pair = open_pair(*sides, on_shape="truncate")
    delta = total(pair)["embed_tokens.weight"]
    assert delta.shape == (11, 6)
    np.testing.assert_allclose(np.abs(delta), 0.25, atol=1e-6)
    assert any("cut to the first 11 rows" in notice for notice in pair.report.notices)


def test_truncation_is_for_vocabularies_only():
    base = {**weights(), "classifier.weight": torch.ones(2, 6)}
    tuned = {**weights(), "classifier.weight": torch.ones(8, 6)}
    with pytest.raises(InputError, match=r"classifier.weight: .*only the rows of a vocabulary"):
        open_pair(base, tuned, on_shape="truncate")


def test_a_transposed_weight_is_refused_and_never_transposed():
    tuned = weights()
    tuned["layers.0.q_proj.weight"] = tuned["layers.0.q_proj.weight"].T.contiguous()
    for choice in ("error", "truncate"):
        with pytest.raises(InputError, match="one is the transpose of the other") as caught:
            open_pair(weights(), tuned, on_shape=choice)
        assert "8 × 6 in base, 6 × 8 in tuned" in str(caught.value)


def test_all_shape_problems_come_at_once():
    tuned = {name: value[..., :-1] for name, value in weights().items()}
    with pytest.raises(InputError) as caught:
        open_pair(weights(), tuned)
    assert len(caught.value.problems) == 3  # one for each matrix; vectors are not compared


# Quantised tensors


def quantised(kind):
    """A model whose first projection is stored the way a method stores it, and its config."""
    tensors = weights()
    name = "layers.0.q_proj"
    del tensors[f"{name}.weight"]
    byte = torch.randint(0, 100, (24, 1), dtype=torch.uint8)
    if kind == "fp8":
        tensors[f"{name}.weight"] = torch.randn(8, 6).to(torch.float8_e4m3fn)
        tensors[f"{name}.weight_scale"] = torch.ones(1)
    elif kind == "gptq":
        tensors[f"{name}.qweight"] = torch.ones(1, 8, dtype=torch.int32)
        tensors[f"{name}.qzeros"] = torch.ones(1, 1, dtype=torch.int32)
        tensors[f"{name}.scales"] = torch.ones(1, 8, dtype=torch.float16)
    elif kind == "bnb4":
        tensors[f"{name}.weight"] = byte
        tensors[f"{name}.weight.absmax"] = torch.ones(1)
        tensors[f"{name}.weight.quant_map"] = torch.ones(16)
        tensors[f"{name}.weight.quant_state.bitsandbytes__nf4"] = byte[:, 0]
    elif kind == "bnb8":
        tensors[f"{name}.weight"] = torch.ones(8, 6, dtype=torch.int8)
        tensors[f"{name}.SCB"] = torch.ones(8)
    elif kind == "int8":
        tensors[f"{name}.weight"] = torch.ones(8, 6, dtype=torch.int8)
    elif kind == "mxfp4":
        tensors[f"{name}.weight_blocks"] = byte
        tensors[f"{name}.weight_scales"] = byte
    return tensors


KINDS = {
    "fp8": "fp8 float8_e4m3fn",
    "gptq": "GPTQ or AWQ, int32, method gptq",
    "bnb4": "bitsandbytes 4-bit, uint8",
    "bnb8": "bitsandbytes 8-bit, int8",
    "int8": "(int8)",
    "mxfp4": "packed, uint8",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", [False, True])
def test_quantised_tensors_are_refused_with_their_type(tmp_path, kind, both):
    folder = tmp_path / "quantised"
    save(folder / "model.safetensors", quantised(kind))
    if kind == "gptq":
        config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
        (folder / "config.json").write_text(json.dumps(config))
    base = folder if both else weights()
    with pytest.raises(InputError, match="dequantise first") as caught:
        open_pair(base, folder)
    assert KINDS[kind] in str(caught.value)
    assert "layers.0.q_proj" in str(caught.value)
    assert len(caught.value.problems) == (2 if both else 1)


def test_a_quantised_state_dict_in_memory_is_refused_like_a_file():
    with pytest.raises(InputError, match=r"fp8 float8_e4m3fn.*dequantise first"):
        open_pair(weights(), quantised("fp8"))


def test_what_is_not_quantised_can_still_be_compared_by_a_filter():
    pair = open_pair(weights(), quantised("gptq"), include=r"layers\.1|embed")
    assert set(pair.names) == {"embed_tokens.weight", "layers.1.q_proj.weight"}


def test_a_gguf_file_is_refused_as_quantised(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InputError, match=r"GGUF.*dequantise"):
        open_pair(tmp_path / "model.gguf", weights())


@pytest.mark.parametrize("name", ["model.npz", "model.npy"])
def test_files_of_numpy_are_called_so_and_no_pickles(name, tmp_path):
    (np.savez if name.endswith("z") else np.save)(tmp_path / name, np.eye(2))
    with pytest.raises(InputError, match=f"{name}: arrays of numpy: store them as safetensors"):
        open_pair(tmp_path / name, weights())


# Tensors that are not matrices


def others():
    generator = torch.Generator().manual_seed(5)
    return {
        **weights(),
        "conv.weight": torch.randn(4, 3, 2, 2, generator=generator),
        "conv1d.weight": torch.randn(4, 3, 5, generator=generator),
        "mlp.experts.down_proj": torch.randn(3, 4, 5, generator=generator),
        "position_ids": torch.arange(12).reshape(1, 12),
        "mask.weight": torch.ones(3, 3, dtype=torch.bool),
        "empty.weight": torch.empty(0, 4),
        "scale": torch.tensor(1.0),
    }


def test_other_tensors_are_listed_as_skipped_with_the_reason(tmp_path):
    for pair in (
        open_pair(others(), moved(others())),
        open_pair(*save_pair(tmp_path, others(), moved(others()))),
    ):
        assert set(pair.names) == {name for name in weights() if name.endswith("weight")}
        found = reasons(pair)
        assert found["layers.0.q_proj.bias"] == "one-dimensional"
        assert found["scale"] == "a single number"
        assert found["conv.weight"] == "4-dimensional tensor (4 × 3 × 2 × 2), not a matrix"
        assert found["mlp.experts.down_proj"] == "stack of experts (3 × 4 × 5), not a matrix"
        assert found["position_ids"] == "int64 entries, not floating point"
        assert found["mask.weight"] == "bool entries, not floating point"
        assert found["empty.weight"].startswith("empty")
        counted = [notice for notice in pair.report.notices if "not compared" in notice]
        assert len(counted) == 1
        assert "9 tensors not compared: 2 one-dimensional" in counted[0]
        assert "1 empty;" in counted[0]


def test_flattening_follows_the_documented_rule(tmp_path):
    base, tuned = others(), {name: value * 3 for name, value in others().items()}
    for pair in (
        open_pair(base, tuned, on_other="flatten"),
        open_pair(*save_pair(tmp_path, base, tuned), on_other="flatten"),
    ):
        deltas = total(pair)
        expected = 2 * base["conv.weight"].numpy().reshape(4, 12)
        np.testing.assert_allclose(deltas["conv.weight"], expected, rtol=1e-6)
        expected = 2 * base["conv1d.weight"].numpy().reshape(4, 15)
        np.testing.assert_allclose(deltas["conv1d.weight"], expected, rtol=1e-6)
        for expert in range(3):
            expected = 2 * base["mlp.experts.down_proj"][expert].numpy()
            delta = deltas[f"mlp.experts.down_proj[{expert}]"]
            np.testing.assert_allclose(delta, expected, rtol=1e-6)
        assert "layers.0.q_proj.bias" not in deltas
        assert "position_ids" not in deltas
        assert any("flattened to 4 × 12" in notice for notice in pair.report.notices)
        assert any("3 experts, each a 4 × 5 matrix" in notice for notice in pair.report.notices)


def test_a_value_that_is_no_tensor_is_skipped():
    base = {**weights(), "note": "hello"}
    pair = open_pair(base, {**moved(weights()), "note": "bye"})
    assert reasons(pair)["note"] == "not a tensor (Python str)"


def test_a_model_on_the_meta_device_is_refused():
    with torch.device("meta"):
        model = torch.nn.Linear(3, 2)
    with pytest.raises(InputError, match="2 tensors are on the meta device and have no entries"):
        open_pair(model, torch.nn.Linear(3, 2))
