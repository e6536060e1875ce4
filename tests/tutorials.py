"""Run the pages of docs/tutorials as a reader types them; this command writes what they print.

The blocks of a page run in their order, in one folder and one process, but for those that begin
with "# a new process". What one prints stands in the block of kind "text" after it.

Example: `python -m tests.tutorials measure`
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from cosa_theory.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs/tutorials").glob("*.md"))
OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "1"}
_BLOCK = re.compile(
    r"```(?P<language>python|sh)\n(?P<code>.*?)```\n(?:\n```text\n(?P<shown>.*?)```\n)?", re.DOTALL
)


def printed_by(language: str, code: str, names: dict) -> str:
    """Run one block; lines of a shell block are calls of `cosa-theory`, cut by `head` or not."""
    if code.startswith("# a new process\n"):
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **OFFLINE})
        assert run.returncode == 0, run.stderr
        return run.stdout
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if language == "python":
            exec(compile(code, "block", "exec"), names)
        else:
            words = shlex.split(code.replace("\\\n", " "), comments=True)
            first = words[-4:] == ["|", "head", "-n", "1"]
            assert words[0] == "cosa-theory", code
            assert main(words[1 : -4 if first else None]) == 0, code
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    lines = [line for line in lines if not line.startswith("{'train_runtime'")]  # how long it took
    return "".join(f"{line}\n" for line in (lines[:1] if language == "sh" and first else lines))


def outputs(text: str, folder: Path) -> list[tuple[re.Match[str], str]]:
    """Run all blocks of a page in `folder`; return each with what it printed."""
    names = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        return [
            (found, printed_by(found["language"], found["code"], names))
            for found in _BLOCK.finditer(text)
        ]


def rewritten(text: str, folder: Path) -> str:
    """Return a page with what its blocks print now."""
    for found, printed in reversed(outputs(text, folder)):
        block = f"```{found['language']}\n{found['code']}```\n"
        shown = f"\n```text\n{printed}```\n" if printed else ""
        text = text[: found.start()] + block + shown + text[found.end() :]
    return text


if __name__ == "__main__":
    for page in [path for path in PAGES if path.stem in sys.argv[1:] or not sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder:
            written = rewritten(page.read_text(encoding="utf-8"), Path(folder))
        page.write_text(written, encoding="utf-8")
