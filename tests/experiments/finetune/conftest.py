"""What several tests of trainings share."""

from pathlib import Path

import pytest

from experiments.finetune.config import Config
from experiments.finetune.tasks import load_task


@pytest.fixture(scope="session")
def texts():
    """Reuters R8 with the sentence encoder; reading and cutting all of it takes seconds."""
    return load_task(Config(tokens=16, items=30), Path("."))
