"""The page of a toy survey, drawn once for all tests that look at it."""

import dataclasses
from functools import cache

import pandas as pd

from cosa_theory.page.document import Document
from cosa_theory.studies.shown import document_page
from tests.studies.spectrum.survey_tables import toy_tables

VERDICT = "Low rank wins in 17 of 17 matrices (rank 2): the truncated SVD holds <most> & more."
HOSTILE = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'>.weight"
ZERO = "encoder.layer.0.attention.self.query.weight"
CHECKS = pd.DataFrame(
    {
        "id": ["C1", "C5"],
        "claim": ["The identity holds", "Low rank is restrictive"],
        "source": ["abstract", "abstract"],
        "method": ["Explicit product.", "Crossover."],
        "quantity": ["error", "ratio"],
        "criterion": ["at most 1e-13", "below 1"],
        "verdict": ["holds", "holds under conditions"],
        "summary": ["2e-16 at most", "in 3 of 39 <layers>"],
        "seconds": [0.1, 2.0],
    }
)


def toy_document(checks=None, **options):
    tables = toy_tables(**({"blocks": 2} | options))
    return Document(
        "spectrum",
        VERDICT,
        ("17 tensors matched.", "3 only in base <first: a>."),
        tables if checks is None else tables | {"checks": checks},
        {"arguments": {"base": "base.safetensors", "tuned": "<tuned>"}, "seed": 0},
        unlisted=("spectra",),
    )


@cache
def drawn_page():
    """Return a page with a zero update, paper checks, and a name that would be markup."""
    document = toy_document(CHECKS, blocks=2, zero_layer=ZERO)
    tables = {
        name: table.replace("embeddings.position_embeddings.weight", HOSTILE)
        for name, table in document.tables.items()
    }
    return document_page(dataclasses.replace(document, tables=tables))
