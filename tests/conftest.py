"""Settings every test shares: one BLAS thread, no hub, no unexplained skips."""

import os
import tempfile

# Before numpy and torch load: two BLAS threads on two busy cores can be far slower than one.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
_DATASETS = tempfile.TemporaryDirectory(prefix="datasets")  # nothing known from earlier runs
os.environ["HF_DATASETS_CACHE"] = _DATASETS.name

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("cosa", deadline=None, derandomize=True)
settings.load_profile("cosa")

# Tests that may be skipped, with the reason. Any other skip fails the run.
ALLOWED_SKIPS: dict[str, str] = {
    "cuda": "needs a CUDA device",
    "eval": "lm-eval is not installed",  # its many dependencies are in no other extra
    "browser": "no Chromium is installed",  # a system package, not one of pip's
}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skip outside the short list into a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in ALLOWED_SKIPS.values()):
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} was skipped ({reason}), and is not on the list of allowed skips"
            )
