"""Grades by EleutherAI's lm-evaluation-harness, of a task that it has or of a task's file."""

from pathlib import Path
from typing import Any

from cosa_theory.ground.errors import InputError, quoted, reason
from experiments.finetune.config import HARNESS, Config

__all__ = ["harness_grades", "harness_task"]

_BATCH = 8


def harness_task(name: str) -> dict[str, Any]:
    """Return a task of the harness with its data, as that loads them.

    Parameters
    ----------
    name : str
        "lm_eval:" and a task's name, or its YAML file.

    Raises
    ------
    InputError
        If the harness is not installed, has no such task or cannot read its data, or the task runs
        what a model wrote outside any confinement.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(
            f"grades has {quoted(name)}, and lm-eval is not installed: install cosa-theory[eval]",
            argument="grades",
        ) from error
    asked = name.removeprefix(HARNESS)
    manager = TaskManager()
    if asked not in manager.all_tasks and not Path(asked).is_file():
        raise InputError(
            f"grades has {quoted(name)}: lm-eval has no task {quoted(asked)}, and it is no "
            "file: `lm-eval ls tasks` lists them",
            argument="grades",
        )
    try:
        loaded: dict[str, Any] = manager.load([asked])
    except Exception as error:  # offline, gated, damaged: each library raises its own
        raise InputError(
            f"grades has {quoted(name)}: lm-eval cannot read its data ({reason(error)[:120]}): "
            "check the network",
            argument="grades",
        ) from error
    if any(getattr(one, "UNSAFE_CODE", False) for one in loaded["tasks"].values()):
        raise InputError(
            f"grades has {quoted(name)}: lm-eval runs its programs unconfined: take humaneval or "
            "mbpp without lm_eval, which are run apart",
            argument="grades",
        )
    return loaded


def harness_grades(
    loaded: dict[str, Any], model: Any, tokenizer: Any, config: Config
) -> dict[str, float]:
    """Return what the harness measures, as TASK/METRIC; its standard errors among them."""
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM

    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(seed=config.seed)
    found = evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH),
        limit=config.items or None,
        apply_chat_template=config.template == "chat",
        log_samples=False,
        bootstrap_iters=1000,
        task_dict=loaded,
    )
    return {
        f"{task}/{metric}": float(value)
        for task, metrics in (found or {"results": {}})["results"].items()
        for metric, value in metrics.items()
        if isinstance(value, (int, float))
    }
