"""Models of a paper's architectures, shrunk and random, and copies of data sets in a few rows."""

import json

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
}
ARCHITECTURES = {
    "llama": ("LlamaForCausalLM", {"num_key_value_heads": 2, "max_position_embeddings": 64}),
    "qwen2": (
        "Qwen2ForCausalLM",
        {"num_key_value_heads": 2, "max_position_embeddings": 320, "vocab_size": 260},
    ),
    "roberta": ("RobertaForMaskedLM", {"max_position_embeddings": 66, "type_vocab_size": 1}),
    "bert": ("BertForMaskedLM", {"max_position_embeddings": 64}),
    "distilbert": ("DistilBertForMaskedLM", {"hidden_dim": 48, "max_position_embeddings": 64}),
    "deberta-v2": ("DebertaV2ForMaskedLM", {"max_position_embeddings": 64}),
    "xlm-roberta": ("XLMRobertaForMaskedLM", {"max_position_embeddings": 66}),
}
WORDS = ["<pad>", "<unk>", "</s>", *(f"w{number}" for number in range(40))]


def model_folder(folder, kind):
    """Write a model of an architecture and its tokenizer; return the folder."""
    name, more = ARCHITECTURES[kind]
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
    config = transformers.CONFIG_MAPPING[kind](**{**SIZES, **more, **ids})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, name)(config).save_pretrained(folder)
    if kind == "qwen2":  # transformers makes its own tokenizer of what is there: of bytes
        signs = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        vocabulary = {sign: number for number, sign in enumerate(signs)}
        transformers.Qwen2Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
        return folder
    words = Tokenizer(models.WordLevel(dict(zip(WORDS, range(len(WORDS)), strict=True)), "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder


def begin_texts(folder):
    """Let the tokenizer of a model begin every text with </s>, as Llama's begins them."""
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.post_processor = processors.TemplateProcessing(
        "</s> $A", special_tokens=[("</s>", 2)]
    )
    tokenizer.save(str(path))


def copy_of(copies, path, rows, subset=None):
    """Write a copy of a data set of the hub, as it lies there: {split: rows}."""
    folder = copies / path
    folder.mkdir(parents=True)
    files = []
    for split, listed in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in listed)
        (folder / f"{split}.jsonl").write_text(text)
        files.append(f"  - split: {split}\n    path: {split}.jsonl\n")
    front = f"configs:\n- config_name: {subset or 'default'}\n  data_files:\n{''.join(files)}"
    (folder / "README.md").write_text(f"---\n{front}---\n")


def words(number, count=6):
    """Return some words that the tokenizer knows."""
    return " ".join(f"w{(number * (k + 3)) % 40}" for k in range(count))


def copies_of_all(copies):
    """Write copies of MetaMathQA, of the instructions for code, and of two tasks of GLUE."""
    math = [
        {"query": words(n), "response": words(n + 1), "type": ("GSM_SV", "MATH_Rephrased")[n % 2]}
        for n in range(40)
    ]
    copy_of(copies, "meta-math/MetaMathQA", {"train": [*math, {**math[0], "type": "other"}]})
    code = [{"query": words(n), "answer": words(n + 2), "lang": "python"} for n in range(40)]
    other = {**code[0], "lang": "bash"}
    copy_of(copies, "m-a-p/CodeFeedback-Filtered-Instruction", {"train": [other, *code]})
    pairs = [
        {"sentence1": words(n), "sentence2": words(n + 1), "label": n % 2, "idx": n}
        for n in range(40)
    ]
    splits = {"train": pairs, "validation": pairs[:10], "test": [{**pairs[0], "label": -1}]}
    copy_of(copies, "nyu-mll/glue", splits, "mrpc")
    return copies
