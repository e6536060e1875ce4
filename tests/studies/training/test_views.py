"""The page of a comparison of trainings: who is best comes first, with interval and cost."""

import pandas as pd
import pytest

from cosa_theory.page.document import Document, read_document, write_document
from cosa_theory.studies import presentation
from cosa_theory.studies.shown import document_page, document_text
from experiments.finetune_check_results import summarise
from tests.experiments.finetune_results import results


@pytest.fixture
def document():
    trainings = pd.concat(
        [
            results({"lora": [0.90, 0.92], "cosa": [0.94, 0.97], "full": [0.95]}),
            results({"lora": [2.125, 2.0], "cosa": [2.25, 2.0]}, "decoder", "loss", before=2.84375),
        ],
        ignore_index=True,
    )
    tables = {"summary": summarise(trainings), "trainings": trainings}
    return Document("finetune", "One is better.", (), tables, {"seed": 0})


def test_methods_are_in_the_order_of_their_results(document):
    accuracy, loss = presentation("finetune").views(document)
    assert [row[0] for row in accuracy.rows] == ["CoSA", "full fine-tuning", "LoRA"]
    assert [row[0] for row in loss.rows] == ["LoRA", "CoSA"], "a lower loss is better"
    assert accuracy.title.endswith("(before training 20.0 %)")
    assert loss.title.endswith("(before training 2.844)")


def test_leads_have_intervals_where_there_are_several_seeds(document):
    accuracy, loss = presentation("finetune").views(document)
    leads = {row[0]: row[3] for row in accuracy.rows}
    assert leads["LoRA"] == "–"
    assert leads["full fine-tuning"] == "+5.0"
    # 4.5 points on average, 0.5 apart from each: 12.706 · 0.5.
    assert leads["CoSA"] == "+4.5 [-1.9, +10.9]"
    assert loss.rows[1][3].startswith("-0.062 [")
    assert accuracy.rows[1][2] == "[85.0, 105.0]", "of a single seed over the items"


def test_every_training_is_listed_but_the_untrained_models(document):
    (view,) = presentation("finetune").detail_views(document)
    assert len(view.rows) == 9
    assert view.rows[0][:4] == ("encoder", "LoRA", "0", "90.0 %")


def test_the_stored_document_gives_the_same_page(document, tmp_path):
    write_document(document, tmp_path)
    page = document_page(read_document(tmp_path, "finetune"))
    assert page == document_page(document)
    assert "+4.5 [-1.9, +10.9]" in page
    assert document_text(document).splitlines()[0] == "One is better."
