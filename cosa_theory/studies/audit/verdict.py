"""The verdict of an audit in one plain sentence, computed from its table of assumptions."""

import pandas as pd

from cosa_theory.studies.audit.assumptions import ASSUMPTIONS

__all__ = ["counts", "verdict"]

_VERBS = {"holds": "holds", "fails": "fails", "undecided": "is undecided"}
_PLURALS = {"holds": "hold", "fails": "fail", "undecided": "are undecided"}
OUTCOMES = tuple(_VERBS)


def counts(assumptions: pd.DataFrame) -> pd.DataFrame:
    """Count the outcomes of every assumption in the table of an audit.

    Indexed by subject and assumption, in the order of the tables, with the columns `holds`,
    `fails`, `undecided`.
    """
    order = {name: place for place, name in enumerate(ASSUMPTIONS)}
    grouped = assumptions.groupby(["subject", "assumption"], sort=False)["outcome"]
    found = grouped.value_counts().unstack(fill_value=0)
    found = found.reindex(columns=list(OUTCOMES), fill_value=0).astype(int)
    keys = [(subject != "update", order[name]) for subject, name in found.index]
    return found.iloc[sorted(range(len(found)), key=keys.__getitem__)]


def verdict(assumptions: pd.DataFrame) -> str:
    """Say in one sentence which assumptions hold, fail or differ from matrix to matrix."""
    found = counts(assumptions)
    if found.empty:
        return "No matrix was audited."
    rows = {
        str(subject): table.droplevel(0) for subject, table in found.groupby(level=0, sort=False)
    }
    parts = [_of_updates(rows["update"])]
    if "gradient" in rows:
        parts.append(_of_gradients(rows["gradient"], rows["update"]))
    return "; ".join([*parts, *_zero_updates(assumptions)]) + "."


def _of_updates(rows: pd.DataFrame) -> str:
    """Count the assumptions by outcome, then name them."""
    total = int(rows.sum(axis=1).max())
    matrices = "the only matrix" if total == 1 else f"all {total} matrices"
    groups = _groups(rows)
    if len(groups) == 1 and "mixed" not in groups:
        [verb] = groups
        return f"All {len(rows)} assumptions of the theory {_PLURALS[verb]} in {matrices}"
    again = "it" if total == 1 else "all"  # for the second group on
    counted = _and(
        [
            _headline(kind, len(names), again if place else matrices)
            for place, (kind, names) in enumerate(groups.items())
        ]
    )
    return f"Of {len(rows)} assumptions of the theory, {counted}: {_named(rows)}"


def _of_gradients(rows: pd.DataFrame, updates: pd.DataFrame) -> str:
    """Name the assumptions by outcome, or say that the counts are those of the updates."""
    if rows.equals(updates.loc[rows.index]):
        return "what concerns updates has the same counts for the gradient of the first step"
    return f"for the gradient of the first step, {_named(rows)}"


def _groups(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Sort the assumptions by whether they have one outcome everywhere."""
    groups: dict[str, list[str]] = {"holds": [], "fails": [], "undecided": [], "mixed": []}
    for name, row in rows.iterrows():
        present = [outcome for outcome in OUTCOMES if row[outcome]]
        groups[present[0] if len(present) == 1 else "mixed"].append(str(name))
    return {kind: names for kind, names in groups.items() if names}


def _headline(kind: str, count: int, matrices: str) -> str:
    one = count == 1
    verbs = {
        "holds": f"hold{'s' if one else ''} in {matrices}",
        "fails": f"fail{'s' if one else ''} in {matrices}",
        "undecided": f"{'is' if one else 'are'} undecided in {matrices}",
        "mixed": f"{'differs' if one else 'differ'} from matrix to matrix",
    }
    return f"{count} {verbs[kind]}"


def _named(rows: pd.DataFrame) -> str:
    """List the assumptions by outcome, those of mixed outcome with their counts."""
    groups = _groups(rows)
    parts = []
    for kind in OUTCOMES:
        titles = [ASSUMPTIONS[name].title for name in groups.get(kind, [])]
        if titles:
            parts.append(f"{_and(titles)} {(_VERBS if len(titles) == 1 else _PLURALS)[kind]}")
    for name in groups.get("mixed", []):
        outcomes = {one: int(rows[one][name]) for one in OUTCOMES}
        counted = [f"{_VERBS[one]} in {count}" for one, count in outcomes.items() if count]
        parts.append(f"{ASSUMPTIONS[name].title} {_and(counted)}")
    return "; ".join(parts)


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _zero_updates(assumptions: pd.DataFrame) -> list[str]:
    """Say how many updates are zero: they have no number for what is about updates."""
    about = [name for name, one in ASSUMPTIONS.items() if one.of_update]
    updates = assumptions[
        (assumptions["subject"] == "update") & assumptions["assumption"].isin(about)
    ]
    zero = int(updates.groupby("layer")["value"].count().eq(0).sum())
    if not zero:
        return []
    return [f"{zero} zero update{'s are' if zero > 1 else ' is'} undecided"]
