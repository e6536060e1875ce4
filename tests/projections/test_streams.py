"""Streams depend on seed and key alone; fingerprints on content alone."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_array

from cosa_theory.ground.errors import InputError
from cosa_theory.projections import (
    KINDS,
    SRHT,
    draw_fingerprint,
    fingerprint,
    make_projection,
    stream,
)
from cosa_theory.projections.streams import fill_signs, raw_words, uniform_below

PARTS = st.one_of(st.text(max_size=6), st.integers())
KEYS = st.lists(
    st.recursive(PARTS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4),
    max_size=4,
).map(tuple)


def words(*arguments):
    return tuple(raw_words(stream(*arguments), 2))


def test_a_stream_is_pinned_for_ever():
    assert stream(0).bit_generator.random_raw(2).tolist() == GOLDEN_WORDS["empty"]
    named = stream(7, "model.layers.0.q_proj", "L", 3)
    assert named.bit_generator.random_raw(2).tolist() == GOLDEN_WORDS["named"]


# Changing these means that every stored seed restores other numbers.
GOLDEN_WORDS = {
    "empty": [12922346078378966572, 16008274857042971333],
    "named": [3956220271049698120, 1190054286684000312],
}


@given(KEYS, KEYS)
def test_streams_of_different_keys_differ_and_of_equal_keys_agree(first, second):
    assert (words(0, *first) == words(0, *second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("1",), (1,)),
        (("ab", "c"), ("a", "bc")),
        (("asb",), ("a", "b")),
        (("a", "b"), (("a", "b"),)),
        (("",), ()),
        (((),), ()),
        ((1, 2), (12,)),
        ((-1,), (1,)),
        (("s\x00",), ("s",)),
    ],
)
def test_keys_that_a_careless_encoding_would_confuse_have_their_own_streams(first, second):
    assert words(0, *first) != words(0, *second)


def test_the_seed_is_part_of_the_hash_at_any_size():
    huge = 10**5000
    seeds = [0, 1, 2**32, 2**64, 2**64 + 1, 2**128, huge, huge + 1]
    assert len({words(seed, "x") for seed in seeds}) == len(seeds)
    assert words(np.int64(5), "x") == words(5, "x")


@pytest.mark.parametrize("seed", [-1, True, 1.0, "0", None, -(10**30)])
def test_a_seed_that_is_not_a_non_negative_integer_is_refused(seed):
    with pytest.raises(InputError, match="seed is") as error:
        stream(seed)
    assert error.value.argument == "seed"


@pytest.mark.parametrize("part", [True, 1.5, None, b"x", ["a"], ("a", 2.0)])
def test_a_key_part_of_another_type_is_refused(part):
    with pytest.raises(ValueError, match=r"key holds .*str, int"):
        stream(0, part)


def test_signs_are_the_bits_of_the_stream_lowest_first():
    out = np.empty(150)
    fill_signs(out, stream(0, "bits"), 0.5)
    expected = [
        -0.5 if int(word) >> bit & 1 else 0.5
        for word in raw_words(stream(0, "bits"), 3)
        for bit in range(64)
    ]
    assert out.tolist() == expected[:150]


@given(st.integers(1, 2**32))
def test_bounded_integers_are_the_exact_high_part_of_a_product(bound):
    extremes = np.array([0, 1, 2**32 - 1, 2**32, 2**64 - 1], dtype=np.uint64)
    for drawn in (raw_words(stream(0, "u"), 50), extremes):
        expected = [int(word) * bound >> 64 for word in drawn]
        assert uniform_below(drawn, bound).tolist() == expected


ELSEWHERE = """
import json, sys
from cosa_theory.projections import SRHT, KINDS, draw_fingerprint
kinds = KINDS if sys.argv[1] == "forwards" else KINDS[::-1]
print(json.dumps({kind: draw_fingerprint(kind, 30, 100, seed=5, key="layer") for kind in kinds}))
"""


def test_draws_agree_between_processes_hash_seeds_thread_counts_and_orders():
    here = {kind: draw_fingerprint(kind, 30, 100, seed=5, key="layer") for kind in KINDS}
    for hash_seed, threads, order in (("1", "1", "forwards"), ("2", "2", "backwards")):
        environment = os.environ | {
            "PYTHONHASHSEED": hash_seed,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
        }
        run = subprocess.run(
            [sys.executable, "-c", ELSEWHERE, order],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(run.stdout) == here


def test_drawing_leaves_the_global_generators_alone():
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    pytorch = torch.get_rng_state()
    for kind in KINDS:
        make_projection(kind, 4, 20, seed=1)
    assert random.getstate() == python
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(after, numpy, strict=True))
    assert torch.equal(torch.get_rng_state(), pytorch)


def test_a_global_seed_does_not_reach_the_draws():
    expected = fingerprint(make_projection("gaussian", 4, 20, seed=1))
    for value in (0, 1):
        np.random.seed(value)  # noqa: NPY002
        torch.manual_seed(value)
        assert fingerprint(make_projection("gaussian", 4, 20, seed=1)) == expected


# Fingerprints


def test_a_fingerprint_is_32_hexadecimal_characters():
    assert len(bytes.fromhex(fingerprint(np.eye(3)))) == 16


def test_a_fingerprint_ignores_byte_order_and_memory_layout():
    A = np.arange(12.0).reshape(3, 4)
    expected = fingerprint(A)
    assert fingerprint(A.astype(">f8")) == expected
    assert fingerprint(np.asfortranarray(A)) == expected
    assert fingerprint(np.repeat(A, 2, axis=1)[:, ::2]) == expected


def test_a_fingerprint_of_a_large_strided_array_is_that_of_its_copy():
    A = stream(0, "large").standard_normal((700, 1100))
    assert fingerprint(A.T) == fingerprint(A.T.copy())
    assert fingerprint(A.ravel()[::2]) == fingerprint(A.ravel()[::2].copy())


def test_a_fingerprint_sees_values_dtype_shape_and_container():
    A = np.arange(12.0).reshape(3, 4)
    changed = A.copy()
    changed[2, 3] = np.nextafter(changed[2, 3], 0)
    sparse = csr_array(A)
    different = [
        A,
        changed,
        -0.0 * A,
        0.0 * A,
        A.astype(np.float32),
        A.reshape(4, 3),
        A.T,
        A.ravel(),
        A[:0],
        A[:, :0],
        sparse,
        csr_array((sparse.data, sparse.indices, sparse.indptr), shape=(3, 5)),
        sparse.T,
        sparse.tocsc(),
        sparse.astype(np.float32),
        make_projection("srht", 3, 4),
        make_projection("srht", 3, 4).T,
        make_projection("srht", 3, 4, scale="synthesis"),
        make_projection("srht", 3, 4, dtype="float32"),
        *(
            SRHT(np.array(signs, np.int8), np.array(rows), 0.5, np.dtype(float))
            for signs, rows in (([1, 1, 1], [0, 1]), ([1, 1, -1], [0, 1]), ([1, 1, 1], [0, 2]))
        ),
    ]
    assert len({fingerprint(each) for each in different}) == len(different)


def test_a_fingerprint_of_a_sparse_array_ignores_index_type_order_and_duplicates():
    data, columns, starts = np.array([1.0, 2.0, 3.0]), np.array([0, 2, 1]), np.array([0, 2, 3])
    A = csr_array((data, columns, starts), shape=(2, 3))
    expected = fingerprint(A)
    wide = csr_array((data, columns, starts), shape=(2, 3))
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert fingerprint(wide) == expected
    shuffled = csr_array((data[[1, 0, 2]], columns[[1, 0, 2]], starts), shape=(2, 3))
    assert fingerprint(shuffled) == expected
    assert shuffled.indices.tolist() == [2, 0, 1]  # and leaves its argument as it was
    split = csr_array(([0.5, 0.5, 2, 3], [0, 0, 2, 1], [0, 3, 4]), shape=(2, 3))
    assert fingerprint(split) == expected
    assert fingerprint(csc_array(A).T.tocsr().T) == fingerprint(csc_array(A))


def test_a_torch_tensor_has_the_fingerprint_of_its_array():
    A = make_projection("gaussian", 3, 5)
    assert fingerprint(torch.from_numpy(A)) == fingerprint(A)
    assert fingerprint(torch.nn.Parameter(torch.from_numpy(A).T)) == fingerprint(A.T)
    half = torch.from_numpy(A).bfloat16()
    assert fingerprint(half) == fingerprint(half.clone())
    assert fingerprint(half) != fingerprint(half.view(torch.uint16))
    assert fingerprint(half) != fingerprint(half.float())


@pytest.mark.parametrize("A", [[1.0], 3.0, None, "text"])
def test_a_fingerprint_of_anything_else_is_refused(A):
    with pytest.raises(ValueError, match="A is of type"):
        fingerprint(A)


def test_an_array_of_objects_has_no_content_to_hash():
    with pytest.raises(InputError, match="A has entries of type object: they must be numbers"):
        fingerprint(np.array([1.0, "a"], object))
