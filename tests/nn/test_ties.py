"""Modules saved whole whose parameters are tied: both front ends train, save and read copies."""

import pytest
import torch
import transformers
from peft import PeftModel, get_peft_model

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa, load_cosa, merge_cosa, save_cosa
from cosa_theory.nn.lora import to_lora
from cosa_theory.nn.peft import CosaConfig
from tests.nn.peft.models import llama, t5

TOKENS = torch.arange(5, 12)[None]


def tied_llama(rows=60):
    model = llama(tie_word_embeddings=True).eval()
    if rows != 60:
        torch.manual_seed(3)
        model.resize_token_embeddings(rows)
    return model


def bert():
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24}
    return transformers.BertForMaskedLM(
        transformers.BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)
    ).eval()


CASES = [
    (tied_llama, "q_proj", ["lm_head"]),
    (tied_llama, "q_proj", ["embed_tokens"]),
    (tied_llama, "q_proj", ["embed_tokens", "lm_head"]),
    (lambda: t5().eval(), "q", ["shared"]),
    (lambda: t5().eval(), "q", ["embed_tokens", "lm_head"]),
    (bert, "query", ["predictions", "word_embeddings"]),
]
cases = pytest.mark.parametrize(("build", "target", "whole"), CASES)


def logits(model):
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    more = {"decoder_input_ids": TOKENS} if base.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS, **more).logits


def trained(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def read_alike(folder, build, expected):
    assert torch.allclose(logits(load_cosa(build(), folder)), expected, atol=1e-6)
    assert torch.allclose(logits(PeftModel.from_pretrained(build(), folder)), expected, atol=1e-6)


@cases
def test_what_peft_trained_is_read_by_both_front_ends(tmp_path, build, target, whole):
    config = CosaConfig(a=4, b=3, target_modules=[target], modules_to_save=whole)
    model = trained(get_peft_model(build(), config))
    model.save_pretrained(tmp_path)
    read_alike(tmp_path, build, logits(model))
    save_cosa(load_cosa(build(), tmp_path), tmp_path / "again")
    read_alike(tmp_path / "again", build, logits(model))
    to_lora(tmp_path, tmp_path / "lora")
    exported = PeftModel.from_pretrained(build(), tmp_path / "lora")
    assert torch.allclose(logits(exported), logits(model), atol=1e-5)


@cases
def test_what_the_plain_layer_trained_is_read_by_both_front_ends(tmp_path, build, target, whole):
    with pytest.warns(UserWarning, match=f"{whole[0]} shared parameters with .* is a copy now"):
        model = add_cosa(build(), [target], 4, 3, modules_to_save=whole)
    save_cosa(trained(model), tmp_path)
    read_alike(tmp_path, build, logits(model))


def test_an_embedding_and_a_head_that_were_trained_apart_survive_merging_and_saving(tmp_path):
    config = CosaConfig(
        a=4, b=3, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]
    )
    model = trained(get_peft_model(tied_llama(), config))
    model.save_pretrained(tmp_path / "adapter")
    merged = merge_cosa(load_cosa(tied_llama(), tmp_path / "adapter"), unload=True)
    merged.save_pretrained(tmp_path / "merged")
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(again), logits(model), atol=1e-5)


@pytest.mark.parametrize("whole", [None, ["lm_head"], ["embed_tokens", "lm_head"]])
def test_an_adapter_with_a_resized_tied_vocabulary_is_read(tmp_path, whole):
    def build():
        return tied_llama(70)

    config = CosaConfig(a=4, b=3, target_modules=["q_proj"], modules_to_save=whole)
    model = trained(get_peft_model(build(), config))
    model.save_pretrained(tmp_path, save_embedding_layers=True)
    read_alike(tmp_path, build, logits(model))
    save_cosa(load_cosa(build(), tmp_path), tmp_path / "again")
    read_alike(tmp_path / "again", build, logits(model))
    with pytest.raises(InputError, match=r"\(70, 16\).*\(60, 16\).*resize_token_embeddings\(70\)"):
        load_cosa(tied_llama(), tmp_path)
