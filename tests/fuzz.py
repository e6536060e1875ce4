"""Every reader of files on damaged files: `python -m tests.fuzz --seconds 600`.

A subject is a folder of whole files and a function that reads them. A case damages one of the files
and reads the folder: that must give a value or an `InputError` of a few short sentences.
"""

import argparse
import faulthandler
import json
import random
import shutil
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from cosa_theory.deltas.adapters import open_adapter
from cosa_theory.ground.array_files import read_array, read_array_metadata
from cosa_theory.ground.cells import read_array_cell, write_cell
from cosa_theory.ground.manifest import check_folder, is_damaged
from cosa_theory.ground.swap import PENDING, reading
from cosa_theory.page.document import Document, read_document, showing, write_document
from cosa_theory.studies.shown import document_text
from tests.hostile import damaged_file, held

__all__ = ["ADAPTERS", "SUBJECTS", "run"]

LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"q": 2},
        "alpha_pattern": {"q": 1}, "use_rslora": False, "fan_in_fan_out": False}  # fmt: skip
COSA = {"peft_type": "COSA", "a": 4, "b": 3, "alpha": 1.5, "seed": 0, "kind": "gaussian",
        "scale": "synthesis", "options": {}, "alpha_pattern": {}, "bias": "none", "dropout": 0.0,
        "layers": {"q": {"key": "q", "size": [5, 4], "core": [4, 3], "L": None, "R": None}},
        }  # fmt: skip
RELEASED = {"peft_type": "COSA", "r": 2, "lora_alpha": 4, "use_compression": True,
            "rank_pattern": {}, "bias": "none", "lora_dropout": 0.0}  # fmt: skip
ADAPTERS = {
    "lora": (LORA, {"q.lora_A.weight": (2, 3), "q.lora_B.weight": (4, 2)}),
    "cosa": (COSA, {"q.cosa_Y": (4, 3)}),
    "released": (RELEASED, {"q.lora_Y.weight": (4, 3), "q.lora_L": (4, 5), "q.lora_R": (4, 3)}),
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
         "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 32, "head_dim": 4,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}  # fmt: skip


def write_adapter(folder, name):
    settings, shapes = ADAPTERS[name]
    tensors = {key: np.ones(shape, np.float32) for key, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def read_adapter(folder):
    opened = open_adapter(folder, "tuned", False)
    for name in () if opened is None else opened.infos:
        if np.prod(opened.infos[name].shape) <= 100:  # else it may say anything, and be right
            (opened.factors if name in opened.products else opened.load)(name)


def write_arrays(folder):
    np.save(folder / "x.npy", np.ones((4, 3), np.float32))
    save_file({"q": np.ones((2, 3), np.float32)}, folder / "x.safetensors", {"seed": "1"})


def read_arrays(folder):
    held(read_array, str(folder / "x.npy"), "CORE")
    read_array_metadata(str(folder / "x.safetensors"))
    read_array(str(folder / "x.safetensors"), "CORE")


def write_results(folder):
    from cosa_theory.studies.rip.compute import isometry_document, matrix_isometry

    tables = matrix_isometry(np.random.default_rng(0).standard_normal((4, 5)), [1, 2], seed=0)
    write_document(isometry_document(tables, {"seed": 0, "arguments": {"x": 1}}), folder)


def read_results(folder):
    check_folder(folder, "results", ["rip.json"])
    is_damaged(folder, ["rip.json"])
    document = read_document(folder, "rip")
    with showing(folder):
        document_text(document)


def write_table_of_many_types(folder):
    table = pd.DataFrame({"name": ["a", "b"], "word": pd.Categorical(["x", "y"]),
                          "count": pd.array([1, None], dtype="Int64"),
                          "list": [[1.0], [2.0]]})  # fmt: skip
    write_document(Document("jl", "Yes.", ("a",), {"all": table}, {}), folder)


def write_plan(folder):
    (folder / PENDING).mkdir()
    plan = {"last": "a.json", "removed": ["old/b.json", "c.json"]}
    (folder / PENDING / ".plan.json").write_text(json.dumps(plan))
    (folder / PENDING / "a.json").write_text("{}")


def read_plan(folder):
    with reading(folder):
        pass


def _preset(module):
    return import_module(f"experiments.{module}").PRESETS["quick"]


def write_settings(folder, module):
    lines = [f"{name} = {json.dumps(value)}" for name, value in vars(_preset(module)).items()]
    (folder / "x.toml").write_text("\n".join(lines))


def read_settings(folder, module):
    from experiments.command import read_config

    read_config(_preset(module), folder / "x.toml")


def write_base(folder):
    (folder / "config.json").write_text(json.dumps(LLAMA))


def read_base(folder):
    from cosa_theory.nn.shapes import model_layers

    model_layers(folder)


def write_pair(folder):
    (folder / "base").mkdir()
    (folder / "tuned").mkdir()
    write_base(folder / "base")
    save_file({"q.weight": np.ones((4, 3), np.float32)}, folder / "base" / "model.safetensors")
    write_adapter(folder / "tuned", "lora")


def read_pair(folder):
    from cosa_theory.deltas import open_pair

    open_pair(folder / "base", folder / "tuned")


def write_array_cell(folder):
    write_cell(folder / "cell.cell", {"result": {"a": 1.5, "b": [1]}}, np.ones((4, 3)))


SUBJECTS = {
    **{name: (partial(write_adapter, name=name), read_adapter) for name in ADAPTERS},
    "arrays": (write_arrays, read_arrays),
    "cell": (write_array_cell, lambda folder: read_array_cell(folder / "cell.cell")),
    "results": (write_results, read_results),
    "tables": (write_table_of_many_types, lambda folder: read_document(folder, "jl")),
    "plan": (write_plan, read_plan),
    **{name: (partial(write_settings, module=name), partial(read_settings, module=name))
       for name in ("phase_transition", "recovery_config", "jl_curves")},
    "base": (write_base, read_base),
    "pair": (write_pair, read_pair),
}  # fmt: skip
"""Name to what writes the whole files into a folder, and what reads them there."""


@contextmanager
def _cpu_seconds(most):
    """Fail what takes more than so many seconds of the processor."""

    def end(_number, _frame):
        raise AssertionError(f"it takes more than {most} s")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run(subject, folder, draw):
    """Read a subject's files, one of them damaged, in a folder that is made anew.

    Raises whatever the reader raised that it must not; the folder is then as it was read.
    """
    write, read = SUBJECTS[subject]
    whole = folder.with_name(f"{folder.name}-{subject}-whole")
    shutil.rmtree(folder, ignore_errors=True)
    if not whole.exists():
        whole.mkdir(parents=True)
        write(whole)
        assert held(read, shutil.copytree(whole, folder))
        shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    path = draw.choice(paths)
    path.write_bytes(damaged_file(path.name, path.read_bytes(), draw))
    with _cpu_seconds(20):
        held(read, folder)


def main(arguments=None):
    """Run cases for some time; store the files of those that fail; return 1 if some did."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--subject", choices=SUBJECTS, action="append")
    chosen = parser.parse_args(arguments)
    faulthandler.enable()
    out, end = Path("results/fuzz"), time.monotonic() + chosen.seconds
    work = out / "now"  # what a crash leaves there was its input
    for path in out.glob("now*"):
        shutil.rmtree(path)
    print(f"seed {chosen.seed}; what is being read lies in {work}", flush=True)
    failed, kinds, case = 0, set(), 0
    while time.monotonic() < end:
        subject = (chosen.subject or list(SUBJECTS))[case % len(chosen.subject or SUBJECTS)]
        try:
            run(subject, work, random.Random(f"{chosen.seed}/{case}"))
        except Exception as error:
            failed += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            if (kind := (type(error), last.filename, last.lineno)) not in kinds:
                kinds.add(kind)
                kept = out / f"{subject}-{chosen.seed}-{case}"
                shutil.copytree(work, kept, dirs_exist_ok=True)
                print("".join(traceback.format_exception(error)[-6:]), flush=True)
                print(f"{kept}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        case += 1
    for path in out.glob("now*"):
        shutil.rmtree(path)
    print(f"{case} cases, {failed} failed in {len(kinds)} ways")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
