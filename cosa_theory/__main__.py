"""Run the command as `python -m cosa_theory`."""

import sys

from cosa_theory.cli import main

if __name__ == "__main__":
    sys.exit(main())
