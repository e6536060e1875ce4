"""What an adapter is asked to adapt is adapted, or the names that are not are told."""

import pytest
import transformers
from peft import get_peft_model

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa
from cosa_theory.nn.peft import CosaConfig, CosaLayer
from tests.nn.peft.architectures import ARCHITECTURES
from tests.nn.peft.models import llama


def peft(model, targets, **settings):
    return get_peft_model(model, CosaConfig(a=3, b=3, target_modules=targets, **settings))


def plain(model, targets, **settings):
    return add_cosa(model, targets, 3, 3, **settings)


def names(model):
    return [name for name, one in model.named_modules() if isinstance(one, CosaLayer)]


@pytest.mark.parametrize("adapt", [plain, peft])
def test_experts_that_are_no_layers_are_told_where_they_are_asked_for(adapt):
    with pytest.raises(InputError) as caught:
        adapt(ARCHITECTURES["qwen3_moe"].build(), ["q_proj", "gate_proj", "down_proj", "qproj"])
    problems = {text.split("'")[1]: text for text in caught.value.problems}
    assert set(problems) == {"gate_proj", "down_proj", "qproj"}
    for name in ("gate_proj", "down_proj"):
        assert "3-D parameters such as model.layers.0.mlp.experts.gate_up_proj" in problems[name]
        assert len(problems[name]) < 300
    assert "the closest are q_proj" in problems["qproj"]
    with pytest.raises(InputError, match="3-D parameters such as"):
        adapt(ARCHITECTURES["qwen3_moe"].build(), r".*experts\.down_proj")
    with pytest.warns(UserWarning, match=r"target_modules has up_proj; .*3-D parameters such as"):
        adapt(ARCHITECTURES["deepseek_v3"].build(), ["up_proj"])  # of the shared experts only


@pytest.mark.parametrize("adapt", [plain, peft])
def test_patterns_for_layers_that_are_not_adapted_are_told(adapt):
    for setting, value in (("shape_pattern", [2, 2]), ("alpha_pattern", 2.0)):
        with pytest.warns((UserWarning, RuntimeWarning), match=f"{setting}.*qq_proj"):
            adapt(llama(), ["q_proj"], **{setting: {"qq_proj": value, "q_proj": value}})


def test_indices_that_no_block_has_are_refused_and_those_of_all_linear_are_heeded():
    with pytest.raises(InputError, match="layers_to_transform has 7, and no layer"):
        peft(llama(), ["q_proj"], layers_to_transform=[0, 7])
    found = names(peft(llama(), "all-linear", layers_to_transform=[1]))
    assert len(found) == 7
    assert all(".layers.1." in name for name in found)


def test_all_linear_is_stored_by_names_that_mean_the_same_layers_again(tmp_path):
    model = peft(llama(), "all-linear", exclude_modules=["layers.0.self_attn.q_proj"])
    model.save_pretrained(tmp_path)
    config = CosaConfig.from_pretrained(tmp_path)
    assert "o_proj" in config.target_modules
    assert "model.layers.1.self_attn.q_proj" in config.target_modules
    config._folder = config.layers = None
    assert names(get_peft_model(llama(), config)) == names(model)


def test_a_default_of_peft_for_a_type_of_models_need_not_match_in_full():
    model = get_peft_model(llama(), CosaConfig(a=3, b=3))
    assert len(names(model)) == 4
    assert isinstance(model.base_model.model, transformers.LlamaForCausalLM)
