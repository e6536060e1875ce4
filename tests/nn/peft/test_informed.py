"""Adapters of PEFT whose projections are made from data: prepared, put in, saved, come back."""

import copy
import shutil

import numpy as np
import pytest
import torch
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)

from cosa_theory import CosaBasis, InputError
from cosa_theory.nn.moments import Moments, layer_moments, write_moments
from cosa_theory.nn.peft import CosaConfig, Linear, prepare_cosa
from cosa_theory.nn.peft import config as config_module
from tests.nn.peft.models import bert, gpt2, llama, tokens

TEXTS = [{"input_ids": tokens(4, 9)}, {"input_ids": tokens(3, 8) + 3}]


def config(**changes):
    wanted = {"a": 6, "b": 4, "kind": "activation", "init_weights": False, "alpha": 1.5}
    return CosaConfig(**wanted | {"target_modules": ["q_proj", "v_proj", "down_proj"]} | changes)


def adapted(build=llama, texts=TEXTS, **changes):
    base = build()
    prepared = prepare_cosa(base, config(**changes), texts)
    torch.manual_seed(0)
    return get_peft_model(base, prepared).eval()


def layers(model):
    plain = (
        (name.removeprefix("base_model.model."), one)
        for name, one in model.named_modules()
        if isinstance(one, Linear)
    )
    return dict(plain)


def output(model):
    with torch.inference_mode():
        return model(**TEXTS[0]).logits


@pytest.mark.parametrize(
    ("build", "targets"),
    [(llama, ["q_proj", "v_proj", "down_proj"]), (gpt2, "all-linear"), (bert, None)],
)
def test_R_lies_in_the_leading_directions_of_each_layers_inputs(build, targets):
    model = adapted(build, target_modules=targets)
    moments = layer_moments(build(), TEXTS).inputs
    assert layers(model)
    for name, layer in layers(model).items():
        m, n = layer.out_features, layer.in_features
        basis = CosaBasis.sample(
            m, n, 6, 4, kind="activation", key=name, moments=moments[f"{name}.weight"]
        )
        assert np.array_equal(layer.right("default").matrix().numpy(), basis.R.astype(np.float32))
        assert np.array_equal(layer.left("default").matrix().numpy(), basis.L.T.astype(np.float32))


def test_moments_are_of_the_model_without_the_adapters_it_has():
    base = llama()
    first = get_peft_model(base, config(kind="gaussian", alpha=50)).eval()
    before = output(first)
    prepared = prepare_cosa(first, config(), TEXTS)
    alone = prepare_cosa(llama(), config(), TEXTS)
    given = prepare_cosa(first, config(), moments=layer_moments(llama(), TEXTS))
    assert prepared._made.keys() == alone._made.keys() == given._made.keys()
    for spec, values in alone._made.items():
        assert torch.equal(prepared._made[spec], values)
        assert torch.equal(given._made[spec], values)
    assert torch.equal(output(first), before)
    first.add_adapter("informed", prepared)
    first.set_adapter("informed")
    assert not torch.allclose(output(first), before)


CASES = {
    "plain": {},
    "one-sided": {"left": "identity"},
    "half": {"projection_dtype": "bfloat16"},
    "power": {"options": {"power": 2, "whiten": True}},
    "all stored": {"save_projections": True},
}


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_comes_back_as_it_was(case, tmp_path):
    model = adapted(**CASES[case])
    model.save_pretrained(tmp_path / "one")
    again = PeftModel.from_pretrained(llama(), tmp_path / "one")
    assert torch.equal(output(again), output(model))
    again.save_pretrained(tmp_path / "two")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    low = PeftModel.from_pretrained(llama(), tmp_path / "two", low_cpu_mem_usage=True)
    assert torch.equal(output(low), output(model))
    again.load_adapter(tmp_path / "one", "other")
    again.add_weighted_adapter(["default", "other"], [0.25, 0.75], "sum")
    again.set_adapter("sum")
    assert torch.allclose(output(again), output(model), rtol=0, atol=1e-5)
    assert torch.allclose(output(again.merge_and_unload()), output(model), rtol=0, atol=1e-4)


def test_a_state_dict_carries_what_was_made_from_data():
    model = adapted()
    state = {name: one.clone() for name, one in get_peft_model_state_dict(model).items()}
    assert sum(name.endswith("cosa_R") for name in state) == len(layers(model))
    assert not any(name.endswith("cosa_L") for name in state)
    bare = {name.removeprefix("base_model.model."): one for name, one in state.items()}
    injected = inject_adapter_in_model(config(), llama(), state_dict=bare)
    set_peft_model_state_dict(injected, bare)
    assert torch.equal(output(injected), output(model))
    other = adapted(texts=TEXTS[1:])
    assert not torch.equal(output(other), output(model))
    set_peft_model_state_dict(other, state)
    assert torch.equal(output(other), output(model))


def test_an_adapter_on_the_hub_is_fetched_with_its_projections(tmp_path, monkeypatch):
    model = adapted()
    model.save_pretrained(tmp_path / "there")
    monkeypatch.chdir(tmp_path)

    def fetch(name, file, **options):
        assert name == "somebody/adapter"
        (tmp_path / "cache").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "there" / file, tmp_path / "cache")
        return str(tmp_path / "cache" / file)

    monkeypatch.setattr(config_module, "hf_hub_download", fetch)
    monkeypatch.setattr("peft.config.hf_hub_download", fetch)
    fetched = CosaConfig.from_pretrained("somebody/adapter")
    again = get_peft_model(llama(), fetched)
    for name, layer in layers(again).items():
        mine = layers(model)[name].right("default").matrix()
        assert torch.equal(layer.right("default").matrix(), mine)


def test_moments_may_come_from_a_file_of_this_model(tmp_path):
    file = tmp_path / "moments.safetensors"
    moments = layer_moments(llama(), TEXTS)
    write_moments(moments, file)
    one, other = (prepare_cosa(llama(), config(), moments=given)._made for given in (file, moments))
    assert all(torch.equal(one[spec], other[spec]) for spec in one)
    with pytest.raises(InputError, match="not of this base model"):
        prepare_cosa(llama(seed=1), config(), moments=file)
    with pytest.raises(InputError, match="another model"):
        prepare_cosa(llama(seed=1), config(), moments=moments)


def nan_in_a_block():
    model = llama()
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("build", "changes", "given", "words"),
    [
        (llama, {"kind": "gaussian"}, {"dataloader": TEXTS}, ["gaussian", "seed", "activation"]),
        (llama, {}, {}, ["none", "dataloader", "moments", "random"]),
        (llama, {}, {"dataloader": TEXTS, "moments": Moments({})}, ["several", "moments"]),
        (llama, {"b": 16}, {"dataloader": [{"input_ids": tokens(1, 5)}]}, ["layers.0", "16", "5"]),
        (llama, {"tokens": "random"}, {"dataloader": TEXTS}, ["several", "random", "dataloader"]),
        (nan_in_a_block, {}, {"dataloader": TEXTS}, ["layers.1.self_attn.q_proj", "NaN"]),
        (llama, {}, {"moments": Moments({})}, ["inputs", "layers.0.self_attn.q_proj"]),
    ],
    ids=["seeded", "nothing", "both", "tokens", "few", "NaN", "missing"],
)  # fmt: skip
def test_what_cannot_be_prepared_is_refused(build, changes, given, words):
    asked = config(**changes)
    with pytest.raises(InputError) as caught:
        prepare_cosa(build(), asked, **given)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert max(map(len, text.splitlines())) <= 300
    assert not asked._made


def test_without_what_was_made_the_model_refuses_and_stays_as_it_was():
    base = llama()
    prepared = prepare_cosa(base, config(), TEXTS)
    changed = copy.deepcopy(prepared)
    changed.seed, changed.b = 5, 3
    for asked in (config(), changed):
        with pytest.raises(InputError, match=r"'activation'.*R of .* prepare_cosa\(model"):
            get_peft_model(base, asked)
        assert not layers(base)
    assert layers(get_peft_model(base, copy.deepcopy(prepared)))


def test_projections_made_from_data_are_not_read_from_a_pickle(tmp_path):
    adapted().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(
        InputError, match=r"adapter_model\.bin is a pickle.*safe_serialization=True"
    ):
        PeftModel.from_pretrained(llama(), tmp_path)


@pytest.mark.parametrize("loss", ["labels", "samples"])
def test_L_of_gradient_lies_among_the_gradients_of_the_asked_loss(loss):
    texts = [one | ({"labels": one["input_ids"]} if loss == "labels" else {}) for one in TEXTS]
    model = adapted(texts=texts, kind="gradient", gradients=loss)
    moments = layer_moments(llama(), texts, gradients=loss)
    for name, layer in layers(model).items():
        own = {
            "moments": moments.inputs[f"{name}.weight"],
            "gradients": moments.gradients[f"{name}.weight"],
        }
        m, n = layer.out_features, layer.in_features
        basis = CosaBasis.sample(m, n, 6, 4, kind="gradient", key=name, **own)
        for found, factor in (
            (layer.left("default"), basis.L.T),
            (layer.right("default"), basis.R),
        ):
            P, Q = (np.linalg.qr(one.T)[0] for one in (found.matrix().numpy(), factor))
            assert np.linalg.norm(P @ P.T - Q @ Q.T) < 1e-3


def test_labels_are_needed_only_where_L_lies_among_their_gradients():
    assert prepare_cosa(llama(), config(kind="gradient", left="identity"), TEXTS)._made
    with pytest.raises(InputError, match="labels"):
        prepare_cosa(llama(), config(kind="gradient"), TEXTS)
