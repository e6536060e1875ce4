"""How prompts are put to a language model: as they are, as an instruction, or as a chat."""

from collections.abc import Sequence
from typing import Any

from cosa_theory.ground.errors import InputError, reason

__all__ = ["TEMPLATES", "answered", "put"]

TEMPLATES = ("", "alpaca", "chat")

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{}\n\n### Response:\n"
)
"""The prompt of Stanford's Alpaca, which data sets of instructions are usually learnt with."""

History = Sequence[tuple[str, str]]
"""What was said before, as (role, text)."""


def put(prompt: str, template: str, tokenizer: Any, history: History = ()) -> str:
    """Return a prompt as the model reads it.

    Parameters
    ----------
    prompt : str
        What is asked.
    template : str
        One of `TEMPLATES`: "alpaca", "chat" for the tokenizer's own, or "" for nothing around it.
    tokenizer : tokenizer
        Of the model.
    history : sequence of (str, str)
        The messages before, of a chat.

    Raises
    ------
    InputError
        If the tokenizer has no chat template, or it cannot put these messages.
    """
    if template == "chat":
        return _rendered(tokenizer, [*history, ("user", prompt)], add_generation_prompt=True)
    return _ALPACA.format(prompt) if template == "alpaca" else prompt


def answered(prompt: str, answer: str, tokenizer: Any, history: History = ()) -> str:
    """Return a chat with its answer and what ends that, as the tokenizer's template has it."""
    return _rendered(tokenizer, [*history, ("user", prompt), ("assistant", answer)])


def _rendered(tokenizer: Any, messages: History, **settings: Any) -> str:
    if not tokenizer.chat_template:
        raise InputError(
            f"template is 'chat', and the tokenizer of {tokenizer.name_or_path} has none for "
            'chats: name a model that is tuned for them, or set template = "alpaca"',
            argument="template",
        )
    said = [{"role": role, "content": text} for role, text in messages]
    try:
        text: str = tokenizer.apply_chat_template(said, tokenize=False, **settings)
    except Exception as error:  # a template is a program, and raises what it likes
        raise InputError(
            f"the chat template of {tokenizer.name_or_path} refuses a chat of "
            f"{', '.join(role for role, _ in messages)[:60]} ({reason(error)[:100]}): change the "
            'messages, or set template = "alpaca"',
            argument="template",
        ) from error
    return text
