"""What the commands share: the application, their common options, and how results leave."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from cosa_theory import __version__
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.printable import command_line, json_text, printable, readable
from cosa_theory.ground.program import note, terminal_width

if TYPE_CHECKING:
    from cosa_theory.page.document import Document

__all__ = [
    "CELLS",
    "AllowPickle",
    "BaseArgument",
    "Command",
    "Dask",
    "Exclude",
    "Flatten",
    "Include",
    "Json",
    "OnNonfinite",
    "OnShape",
    "Out",
    "Partial",
    "ResumingOut",
    "Seed",
    "Threads",
    "TunedArgument",
    "app",
    "check_out",
    "deliver",
    "interruptible",
    "open_checked_pair",
    "opening_of",
    "provenance_of",
    "resumable",
    "store_and_print",
    "whole_numbers",
]

CELLS = ".cells"
"""The folder under --out where finished pieces of a run are kept for resuming."""


_WORDS: ContextVar[tuple[str, ...]] = ContextVar("words")
"""What was typed behind the command's name, for results to say how they are made again."""


class Command(TyperCommand):
    """A command whose help has no signs that the encoding of standard output lacks.

    What prints the help would write them in UTF-8, whatever the encoding.
    """

    def get_help(self, ctx: Any) -> str:
        """Return the help as it will be printed."""
        return readable(super().get_help(ctx), sys.stdout.encoding)


class _Application(typer.Typer):
    """Makes a `Command` of every function."""

    def command(self, *names: Any, **settings: Any) -> Any:
        """Return the decorator that registers a function."""
        return super().command(*names, **({"cls": Command} | settings))


class _Commands(TyperGroup):
    """The commands, each of which names its own options where the library names arguments."""

    def main(self, *unnamed: Any, **settings: Any) -> Any:
        args = settings.get("args")
        token = _WORDS.set(tuple(sys.argv[1:] if args is None else args))
        try:
            return super().main(*unnamed, **settings)
        finally:
            _WORDS.reset(token)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            command = self.commands[ctx.invoked_subcommand]
            options = {
                str(one.name): max(one.opts, key=len)
                if one.param_type_name == "option"
                else str(one.name).upper()
                for one in command.params
            }
            raise InputError(*error.spelt(options)) from error


app = _Application(
    name="cosa-theory",
    cls=_Commands,
    help="Test the compressed-sensing theory of CoSA adapters on real weight updates.",
    epilog="Each command explains itself: cosa-theory spectrum --help",
    rich_markup_mode=None,  # plain lines: help and errors are read by scripts and narrow terminals
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BaseArgument = Annotated[
    str,
    typer.Argument(metavar="BASE", help="A safetensors file, a folder (shards too), or a hub id."),
]
TunedArgument = Annotated[
    str, typer.Argument(metavar="TUNED", help="The same, or the folder of a LoRA or CoSA adapter.")
]
_OUT = (
    "Folder for tables (parquet), a JSON summary, figures (PDF, PNG) and report.html. Earlier "
    "results in it are replaced"
)
Out = Annotated[Path | None, typer.Option(metavar="DIR", help=f"{_OUT}.")]
ResumingOut = Annotated[
    Path | None, typer.Option(metavar="DIR", help=f"{_OUT}; an interrupted run resumes.")
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON document: verdict, notices, tables as records, provenance."
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="REGEX", help="Only names in which this is found; repeatable."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="REGEX", help="No names in which this is found; repeatable."),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the random projections.")]
FamilyDraws = Annotated[
    int,
    typer.Option(min=2, metavar="N", help="Most draws of a random family per matrix and budget."),
]
KnownMoments = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Second moments of the base model's layers: adds the informed cores.",
    ),
]
OnShape = Annotated[
    Literal["error", "skip", "truncate"],
    typer.Option(help="Where shapes differ; truncate cuts an enlarged vocabulary."),
]
OnNonfinite = Annotated[
    Literal["error", "skip"], typer.Option(help="Where a matrix holds NaN or Inf.")
]
Flatten = Annotated[
    bool, typer.Option("--flatten", help="Take experts and convolutions as matrices too.")
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read .bin and .pt with torch's weights-only loader.")
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial", help="Go on where layers have no partner; the verdict begins with how many."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Matrices worked on at once, each on one thread; memory grows with it. "
        "[default: one per core]",
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Scheduler of a running Dask cluster to compute on instead, such as "
        "tcp://10.0.0.1:8786; files are read and written here.",
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cosa-theory {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def whole_numbers(option: str, text: str, example: str) -> list[int]:
    """Read "4,8,16" given to `option` (as in "--ranks"); `example` is shown in the message.

    `InputError` if a part is not a positive whole number.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        raise InputError(f"{option} is {text!r}: give positive integers, as in {option} {example}")
    return [int(part) for part in parts]


def check_out(out: Path | None, command: str, *inputs: str | Path | None) -> None:
    """Find out before the computation of a command whether its results can be stored.

    No file that is not its own may be in the way, nor one of its inputs in the folder.
    """
    if out is None:
        return
    from cosa_theory.ground.manifest import check_folder
    from cosa_theory.page.document import RESULTS
    from cosa_theory.studies.shown import result_files

    check_folder(out, RESULTS, result_files(command), folders=(CELLS,), inputs=inputs)


def opening_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `cosa_theory.deltas.open_pair` takes, from the arguments of a command."""
    names = ("on_shape", "on_nonfinite", "allow_pickle", "partial")
    return {
        "include": given["include"] or None,
        "exclude": given["exclude"] or None,
        "on_other": "flatten" if given.get("flatten") else "skip",
        **{name: given[name] for name in names},
    }


def open_checked_pair(base: str, tuned: str, given: Mapping[str, Any]) -> Any:
    """Open two checkpoints as a `cosa_theory.deltas.DeltaPair`, as a command was asked to."""
    from cosa_theory.deltas import open_pair

    return open_pair(base, tuned, **opening_of(given))


@contextmanager
def interruptible(
    kept: str = "nothing is kept, the same command starts from the beginning",
) -> Iterator[None]:
    """End the command on Ctrl-C with one line that says what is kept, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"interrupted: {kept}")
        raise typer.Exit(130) from None


def resumable(
    study: Callable[..., Any],
    *inputs: Any,
    given: Mapping[str, Any],
    parts: str = "matrices",
    **settings: Any,
) -> Any:
    """Study a pair under a progress bar; finished `parts` are kept under --out.

    The arguments `given` to the command say where, and with how many threads if it has that option;
    the study takes them as `cells`, `workers` and `dask`, with `progress` and the settings.
    """
    from cosa_theory.ground.progress import progress_bar

    settings["cells"] = cells = None if given["out"] is None else given["out"] / CELLS
    kept = f"finished {parts} are kept in {cells}, the same command resumes"
    if "threads" in given:
        settings["workers"] = given["threads"] or os.cpu_count() or 1
    if "dask" in given:
        settings["dask"] = given["dask"]
    with (
        interruptible("nothing is kept without --out" if cells is None else kept),
        progress_bar(parts) as advance,
    ):
        return study(*inputs, progress=advance, **settings)


def provenance_of(settings: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
    """Return where a result comes from, given the arguments of its command.

    Beside what `cosa_theory.ground.provenance.provenance` says: `command`, the line to repeat it.
    """
    from cosa_theory.ground.provenance import provenance

    made = provenance({name: _plain(value) for name, value in settings.items()}, seed=seed)
    words = _WORDS.get(())
    return made | ({"command": command_line(("cosa-theory", *words))} if words else {})


def _plain(value: Any) -> Any:
    """Return an argument as it will read when it comes back from JSON."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def deliver(
    document: "Document",
    out: Path | None,
    as_json: bool,
    noted: Sequence[str] = (),
    also: Callable[[Path], None] = lambda new: None,
) -> None:
    """Store a document with figures and page if asked to, and print it as text or as JSON.

    Its notices go to standard error, but for those that are `noted` already; `also` writes the
    files beside its tables into the folder it is given.
    """
    from cosa_theory.ground.progress import progress_bar
    from cosa_theory.studies import presentation
    from cosa_theory.studies.shown import document_text, write_results

    undeclared = set(document.tables).difference(presentation(document.command).tables)
    if undeclared:
        raise ValueError(f"the presentation of {document.command} lacks tables: {undeclared}")

    def store(folder: Path) -> Path:
        with progress_bar("tables, figures and the page"):
            return write_results({"": document}, folder, also)

    for notice in document.notices:
        if notice not in noted:
            note(f"note: {notice}")
    width, encoding = terminal_width(), sys.stdout.encoding
    show = document.as_json if as_json else partial(document_text, document, width, encoding)
    store_and_print(store, show, out)


def store_and_print(
    store: Callable[[Path], Path], show: Callable[[], str | dict[str, Any]], out: Path | None
) -> None:
    """Store a result, then print it: text, or one JSON document.

    Stored first, because printing ends at once where a reader such as `head` has closed the pipe;
    printed even so where storing failed, so that a full disk does not lose the result. `store`
    writes into the folder it is given and returns the page; `show` returns the text, or what goes
    into JSON.
    """
    page = None
    try:
        if out is not None:
            page = store(out)
    finally:
        shown = show()
        as_json = not isinstance(shown, str)
        if as_json:
            shown = json_text(shown, sys.stdout.encoding)
        print(shown)
    if page is not None:
        said = f"Report: {printable(str(page))}"
        if as_json:
            note(said)
        else:
            print(f"\n{said}")
