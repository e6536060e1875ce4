"""The names that others build on can be imported from where they are documented."""

from importlib import import_module

import pytest

CONTRACT = {
    "cosa_theory": "CosaBasis InputError KroneckerOperator",
    "cosa_theory.projections": "INFORMED KINDS fingerprint make_projection stream",
    "cosa_theory.isometry": (
        "babel jl_distortion jl_min_dim kronecker_rip_bounds mutual_coherence recovery_guarantees "
        "rip_bracket rip_exact rip_lower rip_upper welch_bound"
    ),
    "cosa_theory.recovery": "RecoveryProblem recover",
    "cosa_theory.spectrum": (
        "FAMILIES compare_families singular_values sparsity_profile summarize"
    ),
    "cosa_theory.deltas": "open_pair",
    "cosa_theory.errors": "InputError",
    "cosa_theory.survey": "survey_pair",
    "cosa_theory.audit": "ASSUMPTIONS audit_pair",
    "cosa_theory.nn": "CosaLinear add_cosa load_cosa merge_cosa save_cosa",
    "cosa_theory.nn.peft": "CosaConfig CosaModel",
}


@pytest.mark.parametrize("room", CONTRACT)
def test_a_room_offers_the_names_of_its_contract(room):
    offered = import_module(room).__all__
    assert set(CONTRACT[room].split()) <= set(offered)
    assert all(hasattr(import_module(room), name) for name in offered)


def test_the_default_adapter_needs_no_argument():
    config = import_module("cosa_theory.nn.peft").CosaConfig()
    assert (config.clip, config.init_weights, config.kind) == (True, True, "gaussian")
