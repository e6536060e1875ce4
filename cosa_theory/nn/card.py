"""The model card of an adapter's folder: what it is, and the lines that load it.

PEFT reads an adapter of a method that it does not ship only after the module that registers the
method was imported, and says no more than ``KeyError: 'COSA'`` otherwise. The card, README.md, is
where a receiver looks. A card that is there already keeps what it says: its tags are completed, and
a section between two marks is written anew.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["CARD", "cosa_section", "loading_lines", "write_card"]

CARD = "README.md"
PAPER = "[arXiv 2602.05148](https://arxiv.org/abs/2602.05148)"
_BEGIN, _END = "<!-- cosa-theory: begin -->", "<!-- cosa-theory: end -->"
_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


def write_card(
    folder: Path, target: Path, tags: Sequence[str], base: str | None, section: str
) -> None:
    """Write a card into the folder `target`, which completes the one in `folder`, if any.

    A card that is not in UTF-8 stays as it is.
    """
    try:
        text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).exists() else ""
    except (OSError, UnicodeDecodeError):
        return
    front, body = _parted(text)
    if base:
        front = _with(front, "base_model", json.dumps(base, ensure_ascii=False))
        tags = [*tags, f"base_model:adapter:{base}"]
    front = _with_tags(_with(front, "library_name", "peft"), tags)
    marked = f"{_BEGIN}\n{section.strip()}\n{_END}"
    old = re.search(rf"{re.escape(_BEGIN)}.*?{re.escape(_END)}", body, re.DOTALL)
    if old:
        body = body[: old.start()] + marked + body[old.end() :]
    else:
        body = f"{marked}\n\n{body}" if body else marked
    text = "---\n" + "\n".join(front) + "\n---\n\n" + body.rstrip() + "\n"
    (target / CARD).write_text(text, encoding="utf-8")


def _parted(text: str) -> tuple[list[str], str]:
    """Return the lines of the metadata at the top of a card, and the rest."""
    found = re.match(r"---[ \t]*\r?\n(.*?)(?:^|\n)---[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    if found is None:
        return [], text.lstrip()
    return found[1].rstrip().splitlines(), text[found.end() :].lstrip()


def _with(front: list[str], name: str, value: str) -> list[str]:
    known = any(line.startswith(f"{name}:") for line in front)
    return front if known else [*front, f"{name}: {value}"]


def _with_tags(front: list[str], tags: Sequence[str]) -> list[str]:
    """Add the tags that are missing to the list of tags, however it is written."""
    place = next((i for i, line in enumerate(front) if line.startswith("tags:")), None)
    if place is None:
        return [*front, "tags:", *(f"- {_quoted(tag)}" for tag in tags)]
    stop = place + 1
    while stop < len(front) and re.match(r"\s*-|\s+\S|\s*#", front[stop]):
        stop += 1
    inline = front[place].removeprefix("tags:").strip().strip("[]")
    present = [one.strip() for one in inline.split(",") if one.strip()]
    present += [
        line.strip().removeprefix("-").strip() for line in front[place + 1 : stop] if "-" in line
    ]
    names = {one.strip("\"'") for one in present}
    present += [_quoted(tag) for tag in tags if tag not in names]
    return [*front[:place], "tags:", *(f"- {one}" for one in present), *front[stop:]]


def _quoted(tag: str) -> str:
    return tag if re.fullmatch(r"[\w./:-]+", tag) else json.dumps(tag, ensure_ascii=False)


def loading_lines(settings: Mapping[str, Any], first: str = "") -> str:
    """Return a block of Python that loads the adapter, run in its folder; `first` goes before."""
    base, task = settings.get("base_model_name_or_path"), settings.get("task_type")
    mapping = settings.get("auto_mapping") or {}
    name = _CLASSES.get(getattr(task, "value", task) or "")
    if name is None and str(mapping.get("parent_library", "")).split(".")[0] == "transformers":
        name = mapping.get("base_model_class")
    lines = [first] if first else []
    if base and name:
        lines += [
            "from peft import PeftModel",
            f"from transformers import {name}",
            "",
            f"model = {name}.from_pretrained({json.dumps(base, ensure_ascii=False)})",
            'model = PeftModel.from_pretrained(model, ".")  # this folder, or its name on the Hub',
        ]
    else:
        lines += [
            "from peft import PeftConfig",
            "",
            'config = PeftConfig.from_pretrained(".")  # this folder, or its name on the Hub',
            '# PeftModel.from_pretrained(model, ".") puts it on the model it was trained on.',
        ]
    return "```python\n" + "\n".join(lines) + "\n```"


def cosa_section(settings: Mapping[str, Any]) -> str:
    """Return what the card of a CoSA adapter says, from the content of adapter_config.json."""
    cores = [tuple(entry["core"]) for entry in (settings.get("layers") or {}).values()]
    shapes = Counter(cores).most_common() or [((settings["a"], settings["b"]), 0)]
    sizes = ", ".join(f"{a} × {b} ({count} layers)" for (a, b), count in shapes[:5])
    alpha = f"{settings['alpha']}" + (", others by layer" if settings.get("alpha_pattern") else "")
    base, whole = settings.get("base_model_name_or_path"), settings.get("modules_to_save")
    trained = f"{sum(a * b for a, b in cores):,} numbers in {len(cores)} cores"
    rows = {
        "Base model": f"`{base}`" if base else "not recorded",
        "Method": f"CoSA, ΔW = alpha · L Y R with frozen L and R, {PAPER}",
        "Core a × b": sizes + (", …" if len(shapes) > 5 else ""),
        "alpha": alpha,
        "Projections": _projections(settings),
        "Trained": trained + (f", and {', '.join(whole)} whole" if whole else ""),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    first = (
        "import cosa_theory.nn.peft  # PEFT knows the method by this line; else KeyError: 'COSA'"
    )
    return f"""# CoSA adapter

| | |
|---|---|
{table}

It needs the package cosa-theory with its extra `llm`.

{loading_lines(settings, first)}

Without PEFT: `cosa_theory.nn.load_cosa(model, ".")`. For software that knows only LoRA:
`cosa-theory to-lora . --out lora`.
"""


def _projections(settings: Mapping[str, Any]) -> str:
    left, stored = settings.get("left"), settings.get("projection_bytes")
    return (
        settings["kind"]
        + (f", L {left}" if left else "")
        + f", scale {settings['scale']}, seed {settings['seed']}"
        + (f"; {stored:,} bytes of them are stored" if stored else "")
    )
