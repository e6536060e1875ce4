"""Moments for calibration are gathered once, of the layers that pairs have."""

import numpy as np
import torch
from transformers import BertConfig, BertModel

from cosa_theory.nn import layer_moments, random_batches
from cosa_theory.nn.readout import TextModel
from experiments import calibration
from experiments.calibration import calibrated, texts_of


def test_moments_are_gathered_once_and_kept_for_the_model_that_they_are_of(tmp_path, monkeypatch):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2}
    network = BertModel(BertConfig(num_hidden_layers=1, vocab_size=50, **sizes)).eval()
    model = TextModel(network, None, "embeddings")
    monkeypatch.setattr(calibration, "load_text_model", lambda base: model)
    found = calibrated("base", "random", 5, tmp_path)
    assert not [name for name in found.inputs if name.startswith("pooler")]
    name = "encoder.layer.0.output.dense.weight"
    again = layer_moments(network, random_batches(network, 5, 48))
    np.testing.assert_allclose(found.inputs[name].matrix, again.inputs[name].matrix, rtol=1e-5)
    monkeypatch.setattr(calibration, "layer_moments", None)
    assert calibrated("base", "random", 5, tmp_path).model == found.model
    with torch.no_grad():
        network.encoder.layer[0].output.dense.weight.add_(1)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(calibration, "layer_moments", layer_moments)
    assert calibrated("base", "random", 5, tmp_path).model != found.model


def test_texts_come_in_an_order_that_depends_on_their_source_alone():
    texts = texts_of("sre_card")
    assert len(set(texts)) == len(texts) == 25
    assert texts == texts_of.__wrapped__("sre_card")
