"""The command `cosa-theory`: reads its arguments, calls the library, prints the result.

Standard output holds the result alone, text or one JSON document; notes, progress and errors go
to standard error, each error as one plain line. Exit codes: 0 done, 2 input to mend, 130
interrupted.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cosa_theory import __version__
from cosa_theory.errors import InputError

__all__ = ["app", "main"]

CELLS = ".cells"

app = typer.Typer(
    name="cosa-theory",
    help="Test the compressed-sensing theory of CoSA adapters on real weight updates.",
    epilog="Each command explains itself: cosa-theory spectrum --help",
    rich_markup_mode=None,  # plain lines: help and errors are read by scripts and narrow terminals
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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


def _ranks(text: str | None) -> list[int] | None:
    """Read "4,8,16"; None leaves the budgets to each layer's shape."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--ranks is {text!r}: give positive integers, as in --ranks 4,8,16")
    return [int(part) for part in parts]


def _families(text: str | None) -> list[str] | None:
    """Read "truncated_svd,cosa_haar", or "none"; None stands for all of them."""
    if text is None or text == "all":
        return None
    return [] if text == "none" else [part.strip() for part in text.split(",") if part.strip()]


def _check_out(out: Path | None) -> None:
    """Find out before the computation whether its results can be stored."""
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--out is {out}: a file is in the way, name a folder") from error


@app.command(
    short_help="Compare two checkpoints: spectra of the update, low rank against CoSA.",
    epilog="Example: cosa-theory spectrum base.safetensors tuned.safetensors --out pair",
)
def spectrum(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE", help="A safetensors file, a folder (shards too), or a hub id."
        ),
    ],
    tuned: Annotated[
        str, typer.Argument(metavar="TUNED", help="The same, or the folder of a PEFT LoRA adapter.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for tables (parquet), spectrum.json, figures (PDF, PNG) and report.html. "
            "Earlier results in it are replaced; an interrupted run resumes.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: verdict, notices, layers, families, crossover, "
            "provenance. (The singular values are in spectra.parquet of --out.)",
        ),
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help="Only names in which this is found; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help="No names in which this is found; repeatable."),
    ] = None,
    ranks: Annotated[
        str | None,
        typer.Option(
            metavar="R,R,...",
            help="Budgets, as ranks of a LoRA with as many parameters. [default: 4,8,16, or less "
            "for small matrices]",
        ),
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Update families to measure, or none for spectra and crossover only. "
            "[default: all]",
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            min=2, metavar="N", help="Most draws of a random family per matrix and budget."
        ),
    ] = 20,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the random projections.")
    ] = 0,
    matrices: Annotated[
        Literal["all", "delta"],
        typer.Option(help="Whose singular values to list: base, tuned and update, or the update."),
    ] = "all",
    on_shape: Annotated[
        Literal["error", "skip", "truncate"],
        typer.Option(help="Where shapes differ; truncate cuts an enlarged vocabulary."),
    ] = "error",
    on_nonfinite: Annotated[
        Literal["error", "skip"], typer.Option(help="Where a matrix holds NaN or Inf.")
    ] = "error",
    flatten: Annotated[
        bool, typer.Option("--flatten", help="Take experts and convolutions as matrices too.")
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Read .bin and .pt with torch's weights-only loader."),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Matrices worked on at once, each on one thread; memory grows with it. "
            "[default: one per core]",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Torch device for the singular values, such as cuda. [default: numpy]",
        ),
    ] = None,
) -> None:
    """Compare two checkpoints: the spectrum of every update, and what low rank and CoSA can hold.

    The first line printed is the verdict.
    """
    settings = dict(locals())
    from cosa_theory.deltas import open_pair
    from cosa_theory.provenance import provenance
    from cosa_theory.report import Results, render_text, write_page, write_results
    from cosa_theory.survey import MATRICES, survey_pair

    budgets, chosen = _ranks(ranks), _families(families)
    pair = open_pair(
        base,
        tuned,
        include=include or None,
        exclude=exclude or None,
        on_shape=on_shape,
        on_nonfinite=on_nonfinite,
        on_other="flatten" if flatten else "skip",
        allow_pickle=allow_pickle,
    )
    _check_out(out)
    for notice in pair.report.notices:
        _note(f"note: {notice}")
    survey = _resumable(
        out,
        lambda progress: survey_pair(
            pair,
            ranks=budgets,
            families=chosen,
            draws=draws,
            seed=seed,
            matrices=MATRICES if matrices == "all" else ("delta",),
            cells=None if out is None else out / CELLS,
            workers=threads or os.cpu_count() or 1,
            device=device,
            progress=progress,
        ),
    )
    for notice in survey.notices:
        if notice not in pair.report.notices:
            _note(f"note: {notice}")
    made = provenance({name: _plain(value) for name, value in settings.items()}, seed=seed)
    results = Results.of_survey(survey, made)
    if as_json:
        print(json.dumps(results.as_json(), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        print(render_text(results))
    if out is not None:
        write_results(results, out)
        page = write_page(results, out)
        print(f"\nReport: {page}", file=sys.stderr if as_json else sys.stdout)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _resumable(out: Path | None, survey: Callable[[Callable[[int, int, str], None]], Any]) -> Any:
    """Run a survey under a progress bar; say what an interruption leaves behind."""
    from cosa_theory.report import progress_bar

    try:
        with progress_bar("matrices") as advance:
            return survey(advance)
    except KeyboardInterrupt:
        kept = "nothing is kept without --out"
        if out is not None:
            kept = f"finished matrices are kept in {out / CELLS}, the same command resumes"
        _note(f"interrupted: {kept}")
        raise typer.Exit(130) from None


@app.command(
    short_help="Render stored results again: page and figures.",
    epilog="Example: cosa-theory report pair",
)
def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder that --out of another command made.")
    ],
) -> None:
    """Render stored results again: report.html and the figures, from the tables alone."""
    from cosa_theory.report import read_results, write_page

    stored = read_results(results)
    print(stored.verdict)
    print(f"\nReport: {write_page(stored, results)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of those of the process.

    Returns
    -------
    int
        The exit code: 0 done, 2 input to mend (one line per problem on standard error), 130
        interrupted.
    """
    try:
        code = app(args=arguments, prog_name="cosa-theory", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the reader has seen enough, as `head` does
        # typer leaves by SystemExit when a write met the closed pipe. What is still buffered goes
        # nowhere, or the interpreter would try to write it once more while it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except InputError as error:
        problems = error.problems
    except typer.TyperException as error:  # a misspelt option, a missing argument
        problems = (error.format_message(),)
    except OSError as error:  # a full disk, a folder without permission
        where = f"{error.filename}: " if error.filename else ""
        problems = (f"{where}{error.strerror or error}",)
    else:
        return code if isinstance(code, int) else 0
    for problem in dict.fromkeys(problems):
        _note(f"error: {_for_the_shell(' '.join(problem.split()))}")
    return 2


def _for_the_shell(problem: str) -> str:
    """Spell the remedies as options: the library names its own arguments."""
    problem = re.sub(r'\b(on_shape|on_nonfinite)="(\w+)"', r"--\1 \2", problem)
    for name in ("on_shape", "on_nonfinite", "allow_pickle"):
        problem = problem.replace(f"--{name}", name).replace(name, f"--{name.replace('_', '-')}")
    return problem
