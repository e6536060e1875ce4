import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from tests.deltas.files import moved, save, save_pair, total, weights


def renamed(tensors, old, new):
    return {new + name.removeprefix(old): value for name, value in tensors.items()}


# Keys missing on one side


def test_missing_keys_are_counted_and_the_first_five_named():
    base = {f"layers.{i}.weight": torch.randn(3, 2) for i in range(9)}
    tuned = {name: value for name, value in moved(base).items() if name < "layers.2"}
    tuned["head.weight"] = torch.randn(4, 2)
    refused = r"7 of 10 layers have no partner.*layers\.2\.weight"
    with pytest.raises(InputError, match=refused) as caught:
        open_pair(base, tuned)
    (sentence,) = caught.value.spelt({"partial": "--partial"})
    assert sentence.endswith("--partial to judge the other 2.")
    pair = open_pair(base, tuned, partial=True)
    assert pair.coverage == (2, 10)
    assert pair.names == ("layers.0.weight", "layers.1.weight")
    assert pair.report.matched == pair.names
    assert pair.report.only_in_base == tuple(f"layers.{i}.weight" for i in range(2, 9))
    assert pair.report.only_in_tuned == ("head.weight",)
    assert pair.report.notices[0] == (
        "2 tensors matched, 7 only in base (layers.2.weight, layers.3.weight, "
        "layers.4.weight, layers.5.weight, layers.6.weight and 2 more), 1 only in tuned "
        "(head.weight)."
    )


def test_a_tensor_without_partner_never_appears_as_its_own_delta():
    base = weights()
    tuned = moved(base)
    del tuned["layers.1.q_proj.weight"]
    deltas = total(open_pair(base, tuned, partial=True))
    assert "layers.1.q_proj.weight" not in deltas
    assert all(np.abs(delta - 0.25).max() < 1e-6 for delta in deltas.values())


def test_nothing_matching_is_a_failure_that_names_both_sides():
    with pytest.raises(InputError, match="no tensor matches") as caught:
        open_pair({"a.x.weight": torch.ones(2, 2)}, {"b.y.weight": torch.ones(2, 2)})
    assert "a.x.weight" in str(caught.value)
    assert "b.y.weight" in str(caught.value)


def test_only_vectors_matching_is_a_failure():
    with pytest.raises(InputError, match=r"no matrix to compare \(1 one-dimensional\): name"):
        open_pair({"bias": torch.ones(2)}, {"bias": torch.ones(2)})


# Prefixes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bert.", ""),
        ("", "bert."),
        ("", "base_model.model."),
        ("model.", "model.language_model."),
        ("language_model.model.", "model.language_model."),
        ("model.", "language_model."),
    ],
)
def test_one_renamed_prefix_is_matched_and_said(old, new):
    base = renamed(weights(), "", old)
    tuned = renamed(moved(weights()), "", new)
    if (old, new) == ("model.", "language_model."):  # a different name, not a wrapper
        with pytest.raises(InputError, match="no tensor matches"):
            open_pair(base, tuned)
        return
    pair = open_pair(base, tuned)
    assert set(pair.names) == {name for name in base if name.endswith("weight")}
    told = "without the parts that wrappers" if new == "base_model.model." else "prefix renamed"
    assert any(told in notice for notice in pair.report.notices)
    for delta in total(pair).values():
        np.testing.assert_allclose(delta, 0.25, atol=1e-6)


def test_a_prefix_is_said_in_words():
    pair = open_pair(renamed(weights(), "", "bert."), moved(weights()))
    assert pair.report.renamed == (("bert.", ""),)
    assert "prefix renamed: 'bert.' in base is no prefix in tuned." in pair.report.notices


def test_exact_names_stay_and_only_the_rest_is_renamed():
    base = {**renamed(weights(), "", "bert."), "pooler.weight": torch.ones(3, 4)}
    tuned = moved({**weights(), "pooler.weight": torch.ones(3, 4)})
    pair = open_pair(base, tuned)
    assert len(pair) == 4
    assert all(np.abs(delta - 0.25).max() < 1e-6 for delta in total(pair).values())


@pytest.mark.parametrize("swap", [False, True])
def test_an_ambiguous_prefix_is_refused_and_exclude_resolves_it(swap):
    base = weights()
    tuned = {
        **renamed(moved(weights()), "", "student."),
        **renamed(moved(weights(), 5.0), "", "teacher."),
    }
    sides = (tuned, base) if swap else (base, tuned)
    with pytest.raises(InputError, match=r"ambiguous prefix.*exclude one of the two") as caught:
        open_pair(*sides)
    assert "student." in str(caught.value)
    assert "teacher." in str(caught.value)
    pair = open_pair(*sides, exclude=r"^teacher\.")
    assert all(abs(abs(delta) - 0.25).max() < 1e-6 for delta in total(pair).values())


def test_layers_of_other_numbers_are_never_paired():
    base = {"encoder.layer.0.query.weight": torch.ones(2, 2)}
    tuned = {"encoder.layer.1.query.weight": torch.ones(2, 2)}
    with pytest.raises(InputError, match="no tensor matches"):
        open_pair(base, tuned)


def test_a_layer_of_a_stack_is_never_paired_with_a_tensor_outside_it():
    with pytest.raises(InputError, match="no tensor matches"):
        open_pair({"layers.0.query.weight": torch.ones(2, 2)}, {"query.weight": torch.ones(2, 2)})


def test_a_prefix_that_no_shape_vouches_for_is_not_used():
    with pytest.raises(InputError, match="no tensor matches"):
        open_pair({"query.weight": torch.ones(3, 2)}, {"model.query.weight": torch.ones(5, 7)})


def test_an_encoder_is_never_paired_with_a_decoder():
    with pytest.raises(InputError, match="no tensor matches"):
        open_pair(renamed(weights(), "", "encoder."), renamed(weights(), "", "decoder."))


@settings(max_examples=40)
@given(
    prefix=st.lists(st.sampled_from(["model", "bert", "base_model", "module"]), max_size=3),
    side=st.booleans(),
)
def test_any_wrapper_on_either_side_is_undone(prefix, side):
    base, tuned = weights(), moved(weights())
    wrapped = renamed(tuned if side else base, "", "".join(part + "." for part in prefix))
    pair = open_pair(base, wrapped) if side else open_pair(wrapped, tuned)
    assert len(pair) == 3
    assert all(np.abs(delta - 0.25).max() < 1e-6 for delta in total(pair).values())


# Filters


def test_include_and_exclude_choose_by_base_name():
    pair = open_pair(weights(), moved(weights()), include="q_proj", exclude=[r"layers\.1"])
    assert pair.names == ("layers.0.q_proj.weight",)
    assert pair.report.only_in_base == ()


def test_a_filter_that_matches_nothing_names_the_closest():
    with pytest.raises(InputError, match="include: 'q_porj' matches none of the 5") as caught:
        open_pair(weights(), moved(weights()), include="q_porj")
    assert "closest are" in str(caught.value)
    assert "layers.0.q_proj" in str(caught.value)
    with pytest.raises(InputError, match=r"'zzz' matches none .* the first are embed_tokens"):
        open_pair(weights(), moved(weights()), include=["q_proj", "zzz"])
    with pytest.raises(InputError, match="exclude: 'bais' matches none"):
        open_pair(weights(), moved(weights()), exclude="bais")


def test_filters_that_leave_nothing_or_do_not_compile_are_refused():
    with pytest.raises(InputError, match="together leave no tensor"):
        open_pair(weights(), moved(weights()), include="q_proj", exclude="layers")
    with pytest.raises(InputError, match=r"include is '\(': it must be a regular expression"):
        open_pair(weights(), moved(weights()), include="(")


# Tied weights


def tied(shared=True):
    tensors = weights()
    head = tensors["embed_tokens.weight"]
    return {**tensors, "lm_head.weight": head if shared else head.clone()}


def assert_tied_once(pair):
    assert "embed_tokens.weight" in pair.names
    assert "lm_head.weight" not in pair.names
    assert pair.report.tied == (("lm_head.weight", "embed_tokens.weight"),)
    sentence = "lm_head.weight is tied to embed_tokens.weight: counted once."
    assert sentence in pair.report.notices


def test_tied_weights_are_counted_once_in_memory_and_in_files(tmp_path):
    base = tied()
    tuned = moved(base)
    assert_tied_once(open_pair(base, tuned))
    assert_tied_once(open_pair(*save_pair(tmp_path, base, tuned)))
    arrays = {name: value.numpy() for name, value in base.items()}
    assert_tied_once(open_pair(arrays, {name: value.numpy() for name, value in tuned.items()}))


def test_a_tied_head_stored_on_one_side_only_is_counted_once():
    assert_tied_once(open_pair(tied(), moved(weights())))
    assert_tied_once(open_pair(weights(), moved(tied())))


def test_a_head_untied_by_the_tuning_is_compared_and_the_contradiction_said(tmp_path):
    base = tied()
    tuned = moved(base)
    tuned["lm_head.weight"] = tuned["lm_head.weight"] * 2
    assert "lm_head.weight" in open_pair(base, tuned).names
    for side, tensors in (("base", base), ("tuned", tuned)):
        save(tmp_path / side / "model.safetensors", tensors)
        (tmp_path / side / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    pair = open_pair(tmp_path / "base", tmp_path / "tuned")
    assert "lm_head.weight" in pair.names
    assert any("tie_word_embeddings" in notice for notice in pair.report.notices)


def test_zero_matrices_of_one_shape_are_not_taken_for_tied(tmp_path):
    base = {"a.weight": torch.zeros(4, 3), "b.weight": torch.zeros(4, 3)}
    tuned = {"a.weight": torch.ones(4, 3), "b.weight": torch.full((4, 3), 2.0)}
    assert len(open_pair(base, tuned)) == 2
    assert len(open_pair(*save_pair(tmp_path, base, base))) == 2


def test_matrices_that_differ_in_one_middle_entry_are_not_tied(tmp_path):
    base = {"a.weight": torch.randn(300, 300)}
    base["b.weight"] = base["a.weight"].clone()
    base["b.weight"][100, 7] += 1
    assert len(open_pair(base, moved(base))) == 2
    assert len(open_pair(*save_pair(tmp_path, base, moved(base)))) == 2
