"""Is a real update sparse enough for compressed sensing? A short policy-gradient run in bfloat16.

Where weights are stored in bfloat16 and steps are small, most entries come back from storage as
they were. SmolLM2-135M writes small functions (`configs/small_programs.toml`); programs that pass
their tests are made likelier, the others less likely. After every step every weight is rounded to
bfloat16 (arithmetic in float32), so the update is what that storage keeps. Beside it stand its
nulls: the same with shuffled rewards, and every answer learnt alike. What is measured is how many
entries of each matrix changed (`experiments.sparsity`).

    python -m experiments.policy_gradient --out results/policy_gradient
"""

import dataclasses
import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from cosa_theory.deltas import open_pair
from cosa_theory.deltas.language_models import quiet_transformers
from cosa_theory.ground.checks import real, whole
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.ground.progress import progress_bar
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View, count, number, percent
from experiments.command import (
    check_table,
    chosen_config,
    command_parser,
    run_command,
    write_reference,
    write_table,
)
from experiments.finetune.embedded import decoder_base
from experiments.finetune.sandbox import run_program
from experiments.pairs import RESULTS as PAIRS
from experiments.sparsity import CORES, judge, measure, verdict

__all__ = ["ARMS", "Config", "Task", "train", "weights_of_answers"]

NAME = "policy_gradient"
TASKS = Path(__file__).parent / "configs" / "small_programs.toml"
ARMS = ("rewarded", "shuffled", "supervised")
"""Rewards as earned; the same, shuffled over the answers of a step; every answer learnt alike."""
_BEFORE = '''def increment(x):
    """Return x plus one."""
    return x + 1


def longest(words):
    """Return the longest of the words."""
    return max(words, key=len)


'''
"""Functions as they should be written: without them, and the word that an answer goes on from, none
of a hundred answers was a function."""
_PROMPT = '''{before}def {name}({arguments}):
    """{asked}"""
    return'''
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam


@dataclass(frozen=True)
class Config:
    """One run.

    Attributes
    ----------
    steps : int
        Of AdamW without decay.
    problems : int
        Functions asked for in one step.
    samples : int
        Answers to each, at temperature 1.
    tokens : int
        The longest answer.
    rate : float
        Of the steps; 1e-6 is usual for policy gradients.
    seed : int
        Of which functions are asked for, of the answers, and of shuffling.
    """

    steps: int = 10
    problems: int = 4
    samples: int = 6
    tokens: int = 16
    rate: float = 1e-6
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "problems", "samples", "tokens"):
            whole(name, getattr(self, name))
        real("rate", self.rate, above=0)
        whole("seed", self.seed, least=0)


@dataclass(frozen=True)
class Task:
    """A function to be written: its prompt, and expressions that must be true of it."""

    prompt: str
    checks: tuple[str, ...]

    def passed(self, answer: str) -> bool:
        """Tell whether a continuation's first line does what is asked; it is run apart."""
        tests = "\n".join(f"assert {one}" for one in self.checks)
        line = answer.split("\n")[0]
        return run_program(f"{self.prompt}{line}\n{tests}", seconds=2).passed


def read_tasks(path: Path = TASKS) -> list[Task]:
    """Return the functions that are asked for."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))["programs"]
    return [Task(_PROMPT.format(before=_BEFORE, **one), tuple(one["checks"])) for one in found]


def weights_of_answers(rewards: Tensor, arm: str, generator: torch.Generator) -> Tensor:
    """Return by how much each answer is made likelier, shape (problems, samples).

    Rewards minus the mean over the answers to the same problem, over the standard deviation of them
    all; zero where all are equal. With `arm` "shuffled" the rewards are permuted before; with
    "supervised" all weights are one.
    """
    if arm == "supervised":
        return torch.ones_like(rewards)
    if arm == "shuffled":
        order = torch.randperm(rewards.numel(), generator=generator)
        rewards = rewards.reshape(-1)[order].reshape(rewards.shape)
    above = rewards - rewards.mean(1, keepdim=True)
    spread = above.square().mean().sqrt()
    return above / spread if spread > 0 else above


class _Run:
    """One arm: model, optimiser and what was earned; a stored state goes on to the same numbers."""

    def __init__(self, config: Config, arm: str, base: Path, folder: Path) -> None:
        self.config, self.arm, self.folder = config, arm, folder
        with quiet_transformers():
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                base, dtype=torch.float32
            )
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(base)
        self.model.eval()  # dropout has no part in it
        self.named = dict(self.model.named_parameters())
        self.round()
        self.optimiser = torch.optim.AdamW(self.named.values(), lr=config.rate, weight_decay=0.0)
        self.earned: list[float] = []
        self.tasks = read_tasks()
        self._resume()

    @torch.no_grad()
    def round(self) -> None:
        """Put every weight to what bfloat16 keeps of it."""
        for weight in self.named.values():
            weight.copy_(weight.to(torch.bfloat16))

    def step(self) -> None:
        """Ask, run, learn."""
        config, place = self.config, len(self.earned)
        generator = torch.Generator().manual_seed(1_000_003 * config.seed + place)
        chosen = torch.randperm(len(self.tasks), generator=generator)[: config.problems]
        asked = [self.tasks[int(one)] for one in chosen]
        with _seeded(1_000_003 * config.seed + place):
            answers = [self._answers(task) for task in asked]
        rewards = torch.tensor(
            [
                [float(task.passed(self._text(one))) for one in own]
                for task, own in zip(asked, answers, strict=True)
            ]
        )
        weights = weights_of_answers(rewards, self.arm, generator)
        for weight in self.named.values():  # where nothing is learnt too, a step is a step
            weight.grad = torch.zeros_like(weight)
        for task, own, row in zip(asked, answers, weights, strict=True):
            if row.any():
                self._learn(task, own, row / (config.problems * config.samples))
        self.optimiser.step()
        self.round()
        self.earned.append(float(rewards.mean()))

    def _prompt(self, task: Task) -> Tensor:
        return torch.tensor(self.tokenizer(task.prompt, add_special_tokens=False).input_ids)

    @torch.no_grad()
    def _answers(self, task: Task) -> list[Tensor]:
        """Return the tokens of the answers to one problem, each up to its end."""
        prompt, end = self._prompt(task), self.tokenizer.eos_token_id
        made = self.model.generate(
            input_ids=prompt[None].repeat(self.config.samples, 1),
            attention_mask=torch.ones(self.config.samples, len(prompt), dtype=torch.long),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=self.config.tokens,
            eos_token_id=end,
            pad_token_id=end,
        )[:, len(prompt) :]
        return [row[: int((row == end).cumsum(0).eq(0).sum()) + 1] for row in made]

    def _text(self, tokens: Tensor) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _learn(self, task: Task, answers: Sequence[Tensor], weights: Tensor) -> None:
        """Add the gradient of −Σ w log p(answer)/tokens, over the answers to one problem."""
        prompt = self._prompt(task)
        rows = [torch.cat([prompt, one]) for one in answers]
        width = max(map(len, rows))
        ids = torch.stack([torch.nn.functional.pad(one, (0, width - len(one))) for one in rows])
        mask = torch.stack([(torch.arange(width) < len(one)).long() for one in rows])
        logits = self.model(input_ids=ids, attention_mask=mask).logits[:, len(prompt) - 1 : -1]
        told = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), ids[:, len(prompt) :], reduction="none"
        )
        seen = mask[:, len(prompt) :]
        losses = (told * seen).sum(1) / seen.sum(1).clamp(min=1)
        (weights * losses).sum().backward()

    def store(self) -> None:
        """Keep weights, moments and rewards, so that a killed run goes on from here."""
        moments = self.optimiser.state_dict()["state"]
        tensors = {}
        for place, (name, weight) in enumerate(self.named.items()):
            tensors[f"weights.{name}"] = weight.detach().clone()
            tensors |= {f"{kind}.{name}": moments[place][kind] for kind in _MOMENTS}
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / "state.safetensors") as temporary:
            save_file(tensors, temporary, self._described() | {"earned": json.dumps(self.earned)})

    def _resume(self) -> None:
        path = self.folder / "state.safetensors"
        if not path.is_file():
            return
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            known = file.metadata()
        if self._described().items() - known.items():
            return  # of other settings: begun anew
        self.earned = json.loads(known["earned"])
        tensors = load_file(path)
        state = {}
        with torch.no_grad():
            for place, (name, weight) in enumerate(self.named.items()):
                weight.copy_(tensors[f"weights.{name}"])
                kept = {kind: tensors[f"{kind}.{name}"] for kind in _MOMENTS}
                state[place] = kept | {"step": torch.tensor(float(len(self.earned)))}
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})

    def _described(self) -> dict[str, str]:
        return {"settings": json.dumps(_settings(self.config, self.arm))}

    def matrices(self) -> dict[str, Tensor]:
        """Return every matrix as it is stored."""
        return {
            name: weight.detach().to(torch.bfloat16).contiguous()
            for name, weight in self.named.items()
            if weight.ndim == 2
        }


def _settings(config: Config, arm: str) -> dict[str, Any]:
    return dataclasses.asdict(config) | {"arm": arm}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train(config: Config, arm: str, base: Path, folder: Path) -> tuple[Path, Path, list[float]]:
    """Train one arm, unless that was done; a killed one goes on after its last step.

    Returns
    -------
    (path, path, list of float)
        The matrices before and after, in bfloat16, and the share of programs that passed in each
        step.
    """
    before, after = folder.parent / "before.safetensors", folder / "after.safetensors"
    summary = folder / "summary.json"
    settings = _settings(config, arm)
    if summary.is_file():
        known = json.loads(summary.read_text(encoding="utf-8"))
        if known["settings"] == settings:
            return before, after, known["earned"]
    run = _Run(config, arm, base, folder)
    if not run.earned:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(before) as temporary:
            save_file(run.matrices(), temporary)
    with progress_bar(f"policy gradient, {arm}", notes=True) as advance:
        while len(run.earned) < config.steps:
            run.step()
            run.store()
            advance(len(run.earned), config.steps)
    with atomic_path(after) as temporary:
        save_file(run.matrices(), temporary)
    with atomic_path(summary) as temporary:
        record = {"settings": settings, "earned": run.earned}
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "state.safetensors").unlink(missing_ok=True)
    return before, after, run.earned


_COLUMNS = (
    Column("arm", "arm", text=True),
    Column("passed", "passed", "programs, over the run", percent),
    Column("matrices", "matrices", "", count),
    Column("density", "changed", "share of the entries, all matrices together", percent),
    Column("least", "from", "the sparsest matrix", percent),
    Column("most", "to", "the densest", percent),
    *(
        Column(f"decodable_{core:g}", f"d = {core:g}", "matrices sparse enough for ℓ1", count)
        for core in CORES
    ),
    Column("core_bits", "core", "bits per entry of the smallest that is enough", number),
    Column("coded_bits", "coded", "bits per entry of places and values", number),
)

_JUDGED = (
    Column("prediction", "expected", text=True),
    Column("value", "measured", "", number),
    Column("outcome", "outcome", text=True),
)


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    parser = command_parser(
        f"experiments.{NAME}",
        "Train SmolLM2 by policy gradients in bfloat16, and see how sparse its update is.",
        out=Path("results") / NAME,
        config=Config(),
        reference=True,
    )
    add = parser.add_argument
    add("--arms", nargs="+", choices=ARMS, default=ARMS, help="default: all")
    chosen = parser.parse_args(arguments)

    def body() -> None:
        config = chosen_config(Config(), chosen)
        beside = (f"{NAME}_layers", f"{NAME}_judged")
        check_table(chosen.out, NAME, beside=beside)
        run_program("")  # tells where programs cannot be run apart
        base = decoder_base(PAIRS / "base")
        rows, layers = [], []
        for arm in (one for one in ARMS if one in chosen.arms):
            before, after, earned = train(config, arm, base, chosen.out / "runs" / arm)
            pair = open_pair(before, after, include=r"\.layers\.")
            each, pooled = measure(pair)
            rows.append({"arm": arm, "passed": sum(earned) / len(earned)} | pooled)
            layers.append(each.assign(arm=arm))
        table, every = pd.DataFrame(rows), pd.concat(layers, ignore_index=True)
        text = verdict(table)
        settings = dataclasses.asdict(config)
        judged = judge(table, every)
        tables = dict(zip(beside, (every, judged), strict=True))
        stored: dict[str, Any] = {"arguments": settings, "verdict": text, "seed": config.seed}
        write_table(table, chosen.out, NAME, beside=tables, **stored)
        if chosen.reference:
            write_reference({NAME: table, f"{NAME}_judged": judged})
        print(printable(text))
        print(render_view(View.of("How much of an update bfloat16 keeps", _COLUMNS, table)))
        print(render_view(View.of("What was expected", _JUDGED, judged)))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
