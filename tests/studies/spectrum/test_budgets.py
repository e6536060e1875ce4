import pandas as pd

from cosa_theory.studies.spectrum.budgets import (
    at_budget,
    common_budgets,
    leading,
    middle_budget,
    named_budget,
)


def crossover(**ranks_of):
    rows = [(layer, rank, 0.5) for layer, ranks in ranks_of.items() for rank in ranks]
    return pd.DataFrame(rows, columns=["layer", "rank_budget", "top_share"])


def test_common_budgets_are_those_that_most_layers_share():
    table = crossover(big=(4, 8, 16), other=(4, 8, 16), small=(1, 2))
    assert common_budgets(table) == [4, 8, 16]
    assert middle_budget(table) == 8


def test_zero_updates_count_only_if_all_are_zero():
    table = crossover(big=(4, 8), zero=(1, 2), null=(1, 2))
    table.loc[table["layer"] != "big", "top_share"] = None
    assert common_budgets(table) == [4, 8]
    table["top_share"] = None
    assert common_budgets(table) == [1, 2]


def test_a_table_without_rows_has_no_budget():
    assert middle_budget(crossover()) is None


def test_a_layer_without_the_budget_enters_with_its_nearest_and_ties_go_to_the_smaller():
    table = crossover(big=(4, 8, 16), small=(1, 2), between=(6, 10))
    chosen = at_budget(table, 8).set_index("layer")["rank_budget"]
    assert chosen.to_dict() == {"big": 8, "small": 2, "between": 6}


def test_a_budget_that_some_layer_does_not_have_is_named_so():
    large = crossover(big=(4, 8, 16), other=(4, 8, 16))
    chosen = at_budget(large, 8)
    assert (named_budget(chosen, 8), leading(chosen, 8)) == ("rank 8", "8")
    chosen = at_budget(pd.concat([large, crossover(small=(1, 2))]), 8)
    assert named_budget(chosen, 8) == "rank 8, or the nearest that a small matrix has"
    assert leading(chosen, 8) == "r"
