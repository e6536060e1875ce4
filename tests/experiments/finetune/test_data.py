"""Data by name: one's own files, copies of the hub's, and what is wrong with them in a sentence."""

import json
import shutil
from dataclasses import replace

import pytest

from cosa_theory.ground.errors import InputError
from experiments.finetune.config import Config
from experiments.finetune.data import load_parts
from experiments.finetune.tasks import load_task
from tests.experiments.finetune.shrunk import copies_of_all, copy_of, words

ROWS = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(20)]


def files(folder, train=ROWS, test=ROWS[:4], **settings):
    """Write rows as JSON Lines, and return a training on them."""
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {name: str(folder / f"{name}.jsonl") for name in ("train", "test")}
    return Config(**{"data": "files", "inputs": ("text",), "output": "label", **named, **settings})


def test_rows_of_json_lines_and_of_csv_are_the_same_items(tmp_path):
    parts = load_parts(files(tmp_path))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (16, 4, 4)
    assert {item.inputs[0] for item in (*parts.train, *parts.validation)} == {
        row["text"] for row in ROWS
    }
    lines = ["label,text", *(f'{row["label"]},"{row["text"]}"' for row in ROWS)]
    (tmp_path / "train.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    (tmp_path / "train.csv").rename(tmp_path / "TRAIN.CSV")
    again = load_parts(replace(files(tmp_path), train=str(tmp_path / "TRAIN.CSV")))
    assert again.train == parts.train


def test_a_line_that_is_no_json_is_told_by_its_number_and_an_empty_one_is_no_row(tmp_path):
    config = files(tmp_path)
    file = tmp_path / "train.jsonl"
    plain, text = load_parts(config), file.read_text()
    file.write_text("\n" + text.replace("\n", "\n\n", 3))
    assert load_parts(config).train == plain.train
    file.write_text(text + "{'text': 'x'}\n")
    with pytest.raises(InputError, match=r"train\.jsonl, line 21: neither JSON Lines nor CSV"):
        load_parts(config)


def test_numbers_and_pairs_and_answers_are_learnt_too(tmp_path):
    rows = [{"a": "x", "b": "y", "n": n / 3} for n in range(10)]
    settings = {"inputs": ("a", "b"), "output": "n", "learns": "numbers"}
    parts = load_parts(files(tmp_path, rows, rows[:2], **settings))
    assert parts.train[0].inputs == ("x", "y")
    assert parts.test[0].output in (0.0, 1 / 3)
    settings = {"inputs": ("a",), "output": "b", "learns": "answers"}
    assert load_parts(files(tmp_path, rows, rows[:2], **settings)).test[0].output == "y"


def test_copies_of_the_hubs_are_read_as_the_hubs(tmp_path):
    copies = str(copies_of_all(tmp_path))
    math = load_parts(Config(data="metamath", copies=copies, rows=10))
    assert (len(math.train), len(math.validation)) == (10, 8)
    assert (math.template, math.train[0].inputs[0][:3]) == ("alpaca", "w0 ")
    glue = load_parts(Config(data="mrpc", copies=copies))
    assert (len(glue.train), len(glue.validation), len(glue.test)) == (32, 8, 10)
    assert {item.output for item in glue.train} == {"0", "1"}
    code = load_parts(Config(data="python", copies=copies))
    assert len(code.train) + len(code.validation) + len(code.test) == 40, "without the other lang"
    with pytest.raises(InputError, match=r"cannot read the split 'train'.*copies"):
        load_parts(Config(data="cola", copies=copies))


def test_a_copy_is_read_as_it_is_now_and_where_it_is(tmp_path):
    def learnt(folder, first):
        rows = [{"query": words(first + n), "answer": "a", "lang": "python"} for n in range(10)]
        copy_of(folder, "m-a-p/CodeFeedback-Filtered-Instruction", {"train": rows})
        return load_parts(Config(data="python", copies=str(folder))).train[0].inputs

    assert learnt(tmp_path / "one", 1) == (words(1),)
    assert learnt(tmp_path / "two", 2) == (words(2),)
    shutil.rmtree(tmp_path / "two")
    assert learnt(tmp_path / "two", 3) == (words(3),)


def test_rephrasings_of_a_question_are_never_in_two_parts(tmp_path):
    rows = [
        {
            "query": words(number),
            "response": words(number + 1),
            "type": "GSM_Rephrased",
            "original_question": f"question {number % 40}",
        }
        for number in range(400)
    ]
    copy_of(tmp_path, "meta-math/MetaMathQA", {"train": rows})
    for most, learnt in ((0, 24 * 10), (100, 100)):
        parts = load_parts(Config(data="metamath", copies=str(tmp_path), rows=most))
        assert (len(parts.train), len(parts.validation), len(parts.test)) == (learnt, 80, 80)
        groups = [
            {item.group for item in part} for part in (parts.train, parts.validation, parts.test)
        ]
        assert [len(one) for one in groups] == [24, 8, 8]
        assert len(set.union(*groups)) == 40, "no question is in two parts"
    first = next(row for row in rows if row["original_question"] == parts.train[0].group)
    assert parts.train[0].inputs == (first["query"],)


BAD = [
    ({"inputs": ("txt",)}, {}, r"train\.jsonl: no column 'txt', only text, label"),
    ({"inputs": ()}, {}, "inputs must name one column"),
    ({"output": ""}, {}, "output what is learnt"),
    ({}, {"train": []}, "the train part is empty: give it rows"),
    ({}, {"test": []}, "the test part is empty"),
    ({}, {"test": [{"text": "x", "label": "c"}]}, "the test part has the label 'c', which no"),
    ({}, {"train": [*ROWS, {"text": "x", "label": None}]}, "row 21 has no 'label': fill it"),
    ({}, {"train": [*ROWS, {"text": "x", "label": ""}]}, "row 21 has no 'label': fill it"),
    ({}, {"train": [{"text": ["x"], "label": "a"}]}, r"row 1 has \['x'\] as 'text': it must be a"),
    ({}, {"train": [3, *ROWS]}, "a row is no JSON object"),
    ({"learns": "numbers"}, {}, "row 1 has 'a' as 'label': numbers are learnt"),
    ({}, {"train": [{"text": "x", "label": "a"}] * 9}, "all 8 training rows have the label 'a'"),
    ({"data": "r9"}, {}, "data is 'r9': it must be one of r8"),
    ({"data": "no/where"}, {}, r"data no/where: datasets cannot read the split 'train'"),
]


@pytest.mark.parametrize(("settings", "rows", "words"), BAD)
def test_what_cannot_be_learnt_is_said_in_a_sentence(tmp_path, settings, rows, words):
    with pytest.raises(InputError, match=words) as caught:
        load_parts(files(tmp_path, **rows, **settings))
    assert len(str(caught.value)) <= 300


def test_a_file_that_is_not_there_or_not_named_is_told(tmp_path):
    config = files(tmp_path)
    with pytest.raises(InputError, match=r"/none/x\.csv"):
        load_parts(replace(config, test="/none/x.csv"))
    with pytest.raises(InputError, match="test must be a JSON Lines or CSV file"):
        load_parts(replace(config, test=""))


def test_an_embedded_model_is_for_its_kind_of_data(tmp_path):
    with pytest.raises(InputError, match="model is 'minilm', and answers are learnt"):
        load_task(files(tmp_path, output="text", learns="answers"), tmp_path)
    with pytest.raises(InputError, match="model is 'smollm2', and labels are learnt"):
        load_task(files(tmp_path, model="smollm2"), tmp_path)
    with pytest.raises(InputError, match="template is 'chat', and labels are learnt: leave it out"):
        load_task(files(tmp_path, template="chat"), tmp_path)
    with pytest.raises(InputError, match=r"model .*nowhere: transformers cannot load"):
        load_task(files(tmp_path, model=str(tmp_path / "nowhere")), tmp_path)
