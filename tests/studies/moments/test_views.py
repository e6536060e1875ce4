"""What `cosa-theory moments` says of its table."""

import pandas as pd

from cosa_theory.studies.moments.views import moments_verdict


def test_the_average_is_over_layers_and_not_over_distinct_inputs():
    rows = [("inputs", "q", 3, 64, 0.9), ("inputs", "o", 1, 320, 0.5), ("gradients", "q", 1, 64, 0)]
    table = pd.DataFrame(rows, columns=["of", "layer", "layers", "n", "top_32"])
    said = moments_verdict(table, "5 texts")
    assert said.startswith("32 directions hold 80.0 % of the energy")
    assert "on average over 4 layers and 5 texts (least 50.0 %, in o)" in said
    assert said.endswith("directions that know nothing hold 40.0 %.")
