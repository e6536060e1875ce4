"""A result says where it comes from."""

import json
import sys
from importlib.metadata import version

from cosa_theory.ground.provenance import provenance


def test_provenance_is_json_and_names_versions_seed_and_arguments():
    record = json.loads(json.dumps(provenance({"base": "a.safetensors", "draws": 3}, seed=7)))
    assert record["arguments"] == {"base": "a.safetensors", "draws": 3}
    assert record["seed"] == 7
    assert record["versions"]["numpy"] == version("numpy")
    assert record["versions"]["cosa-theory"] == version("cosa-theory")
    assert record["python"] == sys.version.split()[0]
    assert record["time"].endswith("+00:00")


def test_the_commit_is_that_of_the_checkout(request):
    commit = provenance({})["commit"]
    assert commit is None or len(commit.removesuffix("+changes")) == 40
    assert (commit is None) == (not (request.config.rootpath / ".git").exists())
