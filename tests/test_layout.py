"""What importing the package does, which no linter sees."""

import subprocess
import sys


def test_importing_the_package_is_quiet_light_and_seeds_nothing():
    code = (
        "import sys, numpy as np; before = np.random.get_state()[1].copy(); import cosa_theory; "
        "assert (np.random.get_state()[1] == before).all(); "
        "heavy = {'torch', 'matplotlib', 'pandas', 'cvxpy', 'typer'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
