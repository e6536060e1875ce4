"""The study of function on small models: what must return all, nothing, or what a law says."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cosa_theory.ground import memory
from cosa_theory.ground.errors import InputError
from cosa_theory.studies.function import compute
from cosa_theory.studies.function.pair import function_pair
from tests.deltas.language_models import save_model

DOMAIN = [
    f"the cat {word} on a mat {other}"
    for word in ["sat", "ran", "far"]
    for other in ["a", "b", "c", "d"]
]
GENERAL = [
    f"a mat {word} away and {word} far {number}"
    for number in ["1", "2", "3", "4"]
    for word in ["cat", "the"]
]
QUICK = {"texts": DOMAIN, "general": GENERAL, "ranks": (1, 2)}


def tuned_from(base, folder, scale=0.3, names=("proj", "dense", "query", "key", "value")):
    """Save the base with an update of its linear layers; return the folder."""
    import shutil

    shutil.copytree(base, folder)
    state = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    for name, tensor in state.items():
        if tensor.ndim == 2 and any(part in name for part in names):
            state[name] = tensor + scale * tensor.std() * torch.randn(
                tensor.shape, generator=generator
            )
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("function")
    made = {}
    for kind in ("headless", "causal"):
        base = save_model(folder / kind, kind)
        made[kind] = base, tuned_from(base, folder / f"{kind}-tuned")
    return made


def of(study, name, texts="domain", rank=None, gain=1.0):
    rows = study.function
    rows = rows[(rows["approximation"] == name) & (rows["texts"] == texts)]
    rows = rows if rank is None else rows[rows["rank"] == rank]
    return rows[(rows["gain"] == 1.0) == (gain == 1.0)].iloc[0]


@pytest.fixture(scope="module")
def encoder(pairs):
    return function_pair(*pairs["headless"], **QUICK)


@pytest.fixture(scope="module")
def language_model(pairs):
    names = ["svd", "exact", "noise", "adjoint_haar", "best_core_haar", "one_sided_activation"]
    return function_pair(*pairs["causal"], **QUICK, approximations=names)


def test_the_update_itself_returns_everything(encoder, language_model):
    for study in (encoder, language_model):
        for texts in ("domain", "general"):
            row = of(study, "exact", texts)
            assert row["recovered"] == pytest.approx(1.0, abs=1e-6)
            assert row["low"] == pytest.approx(1.0, abs=1e-6)
    row = of(language_model, "exact")
    assert row["divergence"] == pytest.approx(0, abs=1e-6)
    assert row["loss_recovered"] == pytest.approx(1.0, abs=1e-3)


def test_matrices_approximated_at_once_give_the_tables_of_one_after_another(pairs):
    names = ["svd", "adjoint_haar", "nystroem", "shuffled"]
    arguments = QUICK | {"ranks": (1,), "approximations": names}
    one, several = (function_pair(*pairs["headless"], **arguments, workers=n) for n in (1, 3))
    for table in ("approximations", "function", "layers"):
        assert getattr(several, table).equals(getattr(one, table))


def test_a_full_rank_returns_everything_and_the_controls_do_not(encoder):
    assert of(encoder, "svd", rank=8)["recovered"] > 0.99
    for name in ("noise", "shuffled"):
        assert of(encoder, name)["recovered"] < 0.5
    assert encoder.verdict.startswith("CoSA's core returns ")


def test_function_is_measured_as_the_model_with_the_approximation_says(pairs, encoder):
    """The model is written to disk with the truncated update, loaded anew, and asked."""
    from cosa_theory.nn.readout import Readout, load_text_model

    base, tuned = pairs["headless"]
    measured = [text for place, text in enumerate(DOMAIN) if place % 4]

    def outputs(change):
        model = load_text_model(base)
        states = {
            name: load_file(path / "model.safetensors")
            for name, path in (("base", base), ("tuned", tuned))
        }
        with torch.no_grad():
            for name, weight in model.weights().items():
                delta = states["tuned"][name] - states["base"][name]
                weight.add_(change(delta))
        readout = Readout(model, measured, 128)
        return torch.cat(list(readout.outputs()))

    def truncated(delta):
        left, sigma, right = torch.linalg.svd(delta, full_matrices=False)
        return (left[:, :2] * sigma[:2]) @ right[:2]

    before, after = outputs(torch.zeros_like), outputs(lambda delta: delta)
    expected = 1 - (outputs(truncated) - after).square().sum() / (before - after).square().sum()
    assert of(encoder, "svd", rank=2)["recovered"] == pytest.approx(float(expected), abs=2e-3)


def test_shares_of_energy_are_those_of_the_update(pairs, encoder):
    states = [load_file(path / "model.safetensors") for path in pairs["headless"]]
    deltas = [states[1][name] - states[0][name] for name in states[0] if states[0][name].ndim == 2]
    deltas = [delta.numpy().astype(float) for delta in deltas if delta.any()]
    energy = sum(np.sum(delta**2) for delta in deltas)
    kept = sum(np.sum(np.linalg.svd(delta, compute_uv=False)[:2] ** 2) for delta in deltas)
    table = encoder.approximations
    row = table[(table["approximation"] == "svd") & (table["rank"] == 2)].iloc[0]
    assert row["energy"] == pytest.approx(kept / energy, abs=1e-3)
    assert row["numbers"] == sum(2 * sum(delta.shape) for delta in deltas)


def test_a_gain_serves_the_held_out_texts_and_lowers_the_error(encoder):
    table = encoder.approximations
    for name in ("adjoint_gaussian", "mask_rescaled"):
        rows = table[(table["approximation"] == name) & (table["rank"] == 2)]
        assert len(rows) == 2
        plain, scaled = rows.iloc[0], rows.iloc[1]
        assert plain["gain"] == 1.0
        assert 0 <= scaled["gain"] < 1
        assert scaled["energy"] > plain["energy"]


def test_every_predictor_has_a_correlation_for_every_set_of_texts(encoder):
    table = encoder.prediction
    assert set(table["texts"]) == {"domain", "general"}
    assert len(table) == 8
    assert (table["low"] <= table["correlation"] + 1e-9).all()
    assert table["correlation"].between(-1, 1).all()


def test_an_interrupted_study_resumes_and_says_the_same(pairs, tmp_path, monkeypatch):
    names = ["svd", "mask", "best_core_haar"]
    arguments = {**QUICK, "approximations": names, "cells": tmp_path / "cells"}
    whole = function_pair(*pairs["headless"], **{**arguments, "cells": None})

    def stop(done, total, title):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        function_pair(*pairs["headless"], **arguments, progress=stop)
    measured = []
    original = compute.Bench.measure
    monkeypatch.setattr(
        compute.Bench,
        "measure",
        lambda self, trial: measured.append(trial) or original(self, trial),
    )
    again = function_pair(*pairs["headless"], **arguments)
    assert len(measured) == 7 + 2 + 2 - 4
    assert again.function.equals(whole.function)
    assert again.approximations.equals(whole.approximations)


def test_moments_stored_once_give_the_same_weighted_energies(pairs, tmp_path):
    path = tmp_path / "moments.safetensors"
    arguments = {**QUICK, "approximations": ["svd", "exact"]}
    first = function_pair(*pairs["causal"], **arguments, save_moments=path)
    again = function_pair(*pairs["causal"], **arguments, moments=path)
    assert again.approximations.equals(first.approximations)
    assert first.approximations["weighted"].notna().all()


def test_informed_cores_return_more_of_what_the_inputs_see(language_model, encoder):
    """ΔW V for the leading V is far ahead in the energy that the inputs weigh."""
    for study in (language_model, encoder):
        table = study.approximations.set_index(["approximation", "rank"])
        informed = table.loc[("one_sided_activation", 2)]
        assert informed["weighted"] > 1.5 * table.loc[("best_core_haar", 2), "weighted"]
        assert informed["bits"] > 16 * informed["numbers"]  # its projection is stored
        assert any("inputs of the domain texts" in notice for notice in study.notices)
    assert any("fewer independent directions" in notice for notice in encoder.notices)


def test_layers_without_moments_leave_informed_approximations_out(pairs, tmp_path):
    from dataclasses import replace

    from cosa_theory.nn.moments import read_moments, write_moments

    path, part = tmp_path / "moments.safetensors", tmp_path / "part.safetensors"
    function_pair(*pairs["causal"], **QUICK, approximations=["exact"], save_moments=path)
    moments = read_moments(path)
    kept = {name: one for name, one in moments.inputs.items() if "down_proj" not in name}
    write_moments(replace(moments, inputs=kept), part)
    names = ["exact", "one_sided_activation", "prior_haar"]
    study = function_pair(*pairs["causal"], **QUICK, approximations=names, moments=part)
    assert set(study.function["approximation"]) == {"exact"}
    assert any("no moments" in notice and "down_proj" in notice for notice in study.notices)
    with pytest.raises(InputError, match=r"no moments of the inputs of .*down_proj"):
        function_pair(*pairs["causal"], **QUICK, approximations=names[1:], moments=part)


def test_an_adapter_is_measured_on_its_base(pairs, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    base = pairs["headless"][0]
    peft = get_peft_model(
        AutoModel.from_pretrained(base),
        LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False),
    )
    peft.save_pretrained(tmp_path / "adapter")
    study = function_pair(base, tmp_path / "adapter", **QUICK, approximations=["svd", "exact"])
    assert of(study, "svd", rank=2)["recovered"] == pytest.approx(1, abs=1e-3)
    assert set(study.layers["module"].str.split(".").str[-1]) == {"query", "value"}


def test_models_that_say_the_same_have_no_change_to_recover(pairs):
    base = pairs["headless"][0]
    with pytest.raises(InputError, match="no change to recover"):
        function_pair(base, base, **QUICK)


def test_an_update_of_embeddings_alone_is_no_update_of_linear_layers(pairs, tmp_path):
    base = pairs["headless"][0]
    tuned = tuned_from(base, tmp_path / "tuned", names=("word_embeddings",))
    with pytest.raises(InputError, match="no change to recover"):
        function_pair(base, tuned, **QUICK)


def test_tensors_that_stay_the_bases_are_told_where_they_changed(pairs, tmp_path, encoder):
    base = pairs["headless"][0]
    names = ("query", "query.bias", "word_embeddings", "LayerNorm.bias")
    tuned = tuned_from(base, tmp_path / "tuned", names=("query", "word_embeddings"))
    state = load_file(tuned / "model.safetensors")
    vectors = [name for name in state if name.endswith(names[1::2])]
    for name in vectors:
        state[name] += 0.1
    save_file(state, tuned / "model.safetensors", {"format": "pt"})
    study = function_pair(base, tuned, **QUICK, approximations=["exact"])
    told = f"{len(vectors) + 1} other tensors changed too and stay the base's"
    assert any(notice.startswith(told) for notice in study.notices)
    assert not any("stay the base's" in notice for notice in encoder.notices)


@pytest.mark.parametrize(("free", "named"), [(10, "most for the model"), (10**4, "include")])
def test_out_of_memory_is_foreseen_with_the_number(pairs, monkeypatch, free, named):
    monkeypatch.setattr(memory, "available_memory", lambda: free)
    monkeypatch.setattr(compute.Bench, "measure", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match=f"needs about .* GB .*{named}") as caught:
        function_pair(*pairs["headless"], **QUICK)
    assert len(caught.value.problems) == 1


def test_moments_of_other_texts_are_told_and_of_another_model_refused(pairs, tmp_path):
    path = tmp_path / "moments.safetensors"
    arguments = {"ranks": (1,), "approximations": ["exact"]}
    function_pair(*pairs["causal"], texts=DOMAIN, general=GENERAL, **arguments, save_moments=path)
    study = function_pair(
        *pairs["causal"], texts=GENERAL, general=DOMAIN, **arguments, moments=path
    )
    assert any("other texts" in notice for notice in study.notices)
    with pytest.raises(InputError, match="not of this base model"):
        function_pair(*reversed(pairs["causal"]), general=DOMAIN, **arguments, moments=path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"texts": ["one", "two"]}, "2 different texts"),
        ({"ranks": ()}, "ranks"),
        ({"task": "summaries"}, "task"),
        ({"task": "causal-lm"}, "predicts no next token"),
        ({"approximations": ["svd", "magic"]}, "'magic'"),
    ],
)
def test_what_does_not_fit_is_named_before_any_work(pairs, changes, named, monkeypatch):
    monkeypatch.setattr(compute.Bench, "measure", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match=named):
        function_pair(*pairs["headless"], **{**QUICK, **changes})
