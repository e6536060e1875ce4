"""The command `python -m paper_checks`."""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.manifest import check_folder
from cosa_theory.ground.printable import command_line, json_text, printable
from cosa_theory.ground.program import note, program, terminal_width
from cosa_theory.ground.provenance import provenance
from cosa_theory.page.document import RESULTS
from cosa_theory.page.html import write_page
from paper_checks.base import Verdict
from paper_checks.run import (
    CHECKS,
    FILES,
    PART,
    claims,
    document,
    headline,
    run_checks,
    select,
    write,
)
from paper_checks.shown import page_files, shown

_WIDTH = 98


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks",
        description="Measure the paper's claims and decide each from the numbers.",
        epilog="example: python -m paper_checks C5 C6 --json",
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"of {', '.join(CHECKS)}; else all")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--quick", action="store_true", help="what can be measured here and now (default)"
    )
    extent.add_argument(
        "--full",
        action="store_true",
        help="also what is committed of all updates, in experiments/reference",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--pair",
        nargs=2,
        metavar=("BASE", "TUNED"),
        help="checkpoints to measure (default: results/finetune_delta, made if it is not there)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/paper_checks"), help="default: %(default)s"
    )
    return parser


def _text(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts to read: the first line says it all."""
    width = min(_WIDTH, terminal_width() or _WIDTH)
    lines = [headline(verdicts)]
    for verdict in verdicts:
        lines += ["", f"{verdict.claim.id}  {verdict.verdict}"]
        for label, text in (
            ("claim", verdict.claim.claim),
            ("criterion", verdict.claim.criterion),
            ("found", verdict.summary),
        ):
            indent = " " * 15
            first = f"    {label:<11}"
            lines += textwrap.wrap(
                printable(text), width, initial_indent=first, subsequent_indent=indent
            )
    return "\n".join(lines)


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code, 0 whatever the verdicts are."""
    chosen = _parser().parse_args(arguments)
    if chosen.seed < 0:
        raise InputError(f"--seed is {chosen.seed}: it must be zero or positive")
    ids = select(chosen.ids)
    check_folder(chosen.out, PART, FILES, inputs=chosen.pair or ())
    check_folder(chosen.out, RESULTS, page_files(ids))
    verdicts = run_checks(
        ids,
        tuple(chosen.pair) if chosen.pair else None,
        chosen.seed,
        lambda name: note(f"checking {name}"),
        full=chosen.full,
    )
    settings = {"ids": ids, "pair": chosen.pair, "full": chosen.full}
    words = sys.argv[1:] if arguments is None else arguments
    made = provenance(settings, seed=chosen.seed)
    made["command"] = command_line(["python", "-m", "paper_checks", *words])
    content = document(verdicts, made)
    write(verdicts, content, chosen.out)
    found = claims(verdicts, made)
    page = write_page(found, shown(found), chosen.out)
    if chosen.json:
        print(json_text(content, sys.stdout.encoding))
    else:
        print(f"{_text(verdicts)}\n\nReport: {printable(str(page))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
