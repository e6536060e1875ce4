"""Tasks: the right tokens are labelled, and the parts are always the same."""

import hashlib
import json

from experiments.finetune.rows import Item
from experiments.finetune.tasks import answer_examples


def test_answers_are_labelled_with_their_end_alone_and_long_ones_are_left_out():
    def encode(texts):
        return [[ord(letter) for letter in text] for text in texts]

    texts = [Item(("ab",), "cd", "m"), Item(("abc",), "def", "m")]
    (example,) = answer_examples(texts, encode, 1, 5)
    assert example.input_ids == (97, 98, 99, 100, 1)
    assert example.labels == (-100, -100, 99, 100, 1)
    assert example.group == "m"
    assert len(answer_examples(texts, encode, 1, 7)) == 2
    assert answer_examples([Item(("ab",), "", "m")], encode, 1, 7) == [], "nothing to learn"


def test_the_parts_of_the_texts_are_always_the_same(texts):
    assert len(texts.validation) == len(texts.test) == 30
    assert len(texts.train) == 5485 - 600
    assert all(len(example.input_ids) <= 16 for example in texts.train)
    parts = [
        [list(example.input_ids), example.labels, example.group]
        for part in (texts.train, texts.validation, texts.test)
        for example in part
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    assert digest.startswith("7e0a470b6d2841a1"), "stored results are of these"
