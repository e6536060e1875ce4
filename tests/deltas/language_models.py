"""Language models of a few thousand parameters, with their tokenizer, made offline."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SPECIAL = ("[PAD]", "[UNK]", "[MASK]", "[CLS]")
WORDS = (*SPECIAL, "the", "cat", "sat", "on", "a", "mat", "and", "ran", "far", "away")
TEXTS = "the cat sat on a mat\n\nthe cat ran far away\na cat sat\n"


def _tokenizer(folder):
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_model(folder, kind="causal", seed=0):
    """Save a causal, a masked or a headless model with random weights; return the folder."""
    sizes = {
        "vocab_size": len(WORDS),
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "causal":
            config = LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=False)
            model = LlamaForCausalLM(config)
        else:
            made = {"masked": BertForMaskedLM, "headless": BertModel}[kind]
            model = made(BertConfig(**sizes, max_position_embeddings=32))
    model.save_pretrained(folder)
    _tokenizer(folder)
    return folder
