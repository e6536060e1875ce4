"""What a model says on texts: embeddings and logits that do not depend on batches."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import readout as module
from cosa_theory.nn.readout import Readout, load_text_model
from tests.deltas.language_models import save_model

TEXTS = ["the cat sat", "a mat", "the cat ran far away and sat on a mat", "ran", "cat cat cat"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: save_model(folder / kind, kind) for kind in ("causal", "headless", "masked")}


def test_embeddings_are_means_over_tokens_without_padding(folders):
    model = load_text_model(folders["headless"])
    assert model.task == "embeddings"
    together = Readout(model, TEXTS, 32)
    outputs = torch.empty(len(TEXTS), 8)
    for (places, _), one in zip(together.batches, together.outputs(), strict=True):
        outputs[places] = one
    for place, text in enumerate(TEXTS):
        encoded = model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = model.network(input_ids=encoded["input_ids"]).last_hidden_state
        torch.testing.assert_close(outputs[place], hidden[0].mean(0), rtol=1e-4, atol=1e-5)


def test_excess_losses_are_the_models_own_and_nothing_is_far_from_itself(folders):
    model = load_text_model(folders["causal"])
    assert model.task == "causal-lm"
    readout = Readout(model, TEXTS, 32)

    def losses():
        found = []
        for text in TEXTS:
            ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                loss = model.network(input_ids=ids, labels=ids).loss
            found.append(float(loss) * (ids.shape[1] - 1) if ids.shape[1] > 1 else 0.0)
        return np.array(found)

    readout.remember()
    before = losses()
    apart = readout.apart()
    for zero in (apart.squared, apart.divergence, apart.loss):
        np.testing.assert_allclose(zero, 0, atol=1e-9)
    with torch.no_grad():
        for weight in model.weights().values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(readout.apart().loss, losses() - before, rtol=1e-4, atol=1e-5)


def test_the_divergence_of_two_models_is_that_of_their_next_token_distributions(
    folders, monkeypatch
):
    model = load_text_model(folders["causal"])
    readout = Readout(model, TEXTS, 32)
    monkeypatch.setattr(module, "_ROWS", 3)
    readout.remember()
    first = list(readout.outputs())
    second = [one + torch.linspace(0, 1, one.shape[1]) for one in first]
    monkeypatch.setattr(readout, "_output", second.__getitem__)
    apart = readout.apart()
    expected = sum(
        float((f.softmax(1) * (f.softmax(1) / g.softmax(1)).log()).sum())
        for f, g in zip(first, second, strict=True)
    )
    assert apart.divergence.sum() == pytest.approx(expected, rel=1e-4)
    assert apart.squared.sum() == pytest.approx(
        sum(float((f - g).square().sum()) for f, g in zip(first, second, strict=True)), rel=1e-5
    )


def test_positions_are_thinned_to_the_memory_there_is(folders, monkeypatch):
    model = load_text_model(folders["causal"])
    every = Readout(model, TEXTS, 32).tokens()
    monkeypatch.setattr(module, "_MOST_LOGITS", every.sum() * 14 // 2)
    half = Readout(model, TEXTS, 32).tokens()
    assert 0.4 < half.sum() / every.sum() <= 0.6


def test_a_model_without_a_head_is_refused_the_task(folders):
    with pytest.raises(InputError, match="BertModel") as caught:
        load_text_model(folders["headless"], "causal-lm")
    assert caught.value.argument == "task"
    assert load_text_model(folders["causal"], "embeddings").task == "embeddings"


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        load_text_model(tmp_path)


@pytest.mark.parametrize("kind", ["headless", "causal"])
def test_weights_that_are_not_there_are_not_drawn(kind, folders, tmp_path):
    folder = shutil.copytree(folders[kind], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    lost = sorted(name for name in weights if "pooler" not in name)[-2:]
    kept = {name: one for name, one in weights.items() if name not in lost}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=rf"model: its files lack {lost[0]} and 1 more, which"):
        load_text_model(folder)


def test_a_tokenizer_of_another_model_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders["headless"], tmp_path / "model")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["elsewhere"] = 14
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="15 tokens"):
        load_text_model(folder)


def test_texts_that_a_tokenizer_does_not_know_are_refused(folders):
    model = load_text_model(folders["headless"])
    with pytest.raises(InputError, match=r"less than half of the texts: 6 of .* tokens are"):
        Readout(model, ["quite another language"] * 2, 32)
