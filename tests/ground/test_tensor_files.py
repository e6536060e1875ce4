"""Tensors in files: damage is found in the header, what is read is what was written."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file
from safetensors.torch import save_file as save_torch

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import is_pickle, read_header, read_metadata, read_tensor
from cosa_theory.ground.tensor_writer import write_arrays, write_tensors
from tests.deltas.files import write_raw

F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def test_a_valid_header_gives_type_shape_and_place(tmp_path):
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(4, np.float16)}
    path = tmp_path / "x.safetensors"
    save_file(values, path, metadata={"format": "pt"})
    infos = read_header(path)
    assert infos.keys() == {"a", "b"}
    assert (infos["a"].dtype, infos["a"].shape) == ("float32", (2, 3))
    assert (infos["b"].dtype, infos["b"].shape) == ("float16", (4,))
    stored = path.read_bytes()[infos["a"].start : infos["a"].stop]
    assert stored == values["a"].tobytes()


@given(cut=st.integers(min_value=0))
def test_every_truncation_of_a_file_is_refused_with_both_sizes(tmp_path_factory, cut):
    whole = save({"a": np.ones((3, 5), np.float32), "b": np.ones(7, np.float64)})
    size = cut % len(whole)
    path = tmp_path_factory.mktemp("cut") / "x.safetensors"
    path.write_bytes(whole[:size])
    with pytest.raises(InputError) as caught:
        read_header(path)
    message = str(caught.value)
    assert str(path) in message
    assert str(size) in message
    data_start = 8 + int.from_bytes(whole[:8], "little")
    expected = 8 if size < 8 else data_start if size < data_start else len(whole)
    assert str(expected) in message


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        (b"{not json", b"", "not valid JSON"),
        (b"\xff\xfe{}", b"", "not valid JSON"),
        (b"[1, 2]", b"", "not a JSON object"),
        (b'{"a": 1, "a": 2}', b"", "'a' occurs twice"),
        ({"a": 3}, b"", "'a' has no description"),
        ({"a": {**F32, "dtype": "F31"}}, bytes(24), "unknown type 'F31'"),
        ({"a": {**F32, "shape": [2, -3]}}, bytes(24), "invalid shape"),
        ({"a": {**F32, "shape": [2, True]}}, bytes(24), "invalid shape"),
        ({"a": {**F32, "shape": None}}, bytes(24), "invalid shape"),
        ({"a": {**F32, "data_offsets": [24, 0]}}, bytes(24), "invalid byte range"),
        ({"a": {**F32, "data_offsets": [0]}}, bytes(24), "invalid byte range"),
        ({"a": {**F32, "shape": [2, 4]}}, bytes(24), "needs 32 bytes, but the header gives it 24"),
        ({"a": F32, "b": F32}, bytes(24), "'a' and 'b' overlap"),
        ({"a": {**F32, "data_offsets": [8, 32]}}, bytes(32), "8 unused bytes before tensor 'a'"),
        ({"a": F32}, bytes(20), "truncated"),
        ({"a": F32}, bytes(30), "longer than its header says"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, header, data, says):
    path = write_raw(tmp_path / "x.safetensors", header, data)
    with pytest.raises(InputError, match=says) as caught:
        read_header(path)
    assert all(str(path) in problem for problem in caught.value.problems)


def test_all_problems_of_a_header_come_at_once(tmp_path):
    header = {"a": {**F32, "dtype": "X"}, "b": {**F32, "shape": "?"}}
    with pytest.raises(InputError) as caught:
        read_header(write_raw(tmp_path / "x.safetensors", header, bytes(24)))
    assert len(caught.value.problems) == 2


def test_a_file_of_another_format_is_called_that(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"this is plain text, not weights")
    with pytest.raises(InputError, match="not a safetensors file"):
        read_header(path)


def test_a_header_of_640_bytes_is_not_taken_for_a_pickle(tmp_path):
    empty = {"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    raw = str(empty).replace("'", '"').encode().ljust(640)
    path = write_raw(tmp_path / "x.safetensors", raw)
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert not is_pickle(path)
    assert read_header(path)["a"].shape == (0,)


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int32", "uint8", "bool"]
)
def test_a_tensor_is_read_as_it_was_written_and_a_part_of_it_is_its_slice(dtype, tmp_path):
    values = torch.linspace(-3, 300, 24).reshape(2, 3, 4)
    tensor = (values > 0 if dtype == "bool" else values.abs()).to(getattr(torch, dtype))
    save_torch({"before": torch.ones(3), "x": tensor}, tmp_path / "x.safetensors")
    info = read_header(tmp_path / "x.safetensors")["x"]
    expected = tensor.float() if dtype == "bfloat16" else tensor
    assert np.array_equal(read_tensor(info), expected.numpy())
    assert np.array_equal(read_tensor(info, 1), expected[1].numpy())
    assert read_tensor(info).dtype == expected.numpy().dtype
    assert read_tensor(info).flags.writeable


KINDS = st.sampled_from(["f8", "f4", "f2", "i4", "?"])


@given(st.dictionaries(st.text(min_size=1), KINDS, max_size=5))
def test_arrays_written_here_are_read_by_the_library_and_back(kinds):
    arrays = {name: np.arange(6).reshape(2, 3).T.astype(kind) for name, kind in kinds.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        write_arrays(path, arrays, {"about": "a test"})
        theirs, infos = load_file(path), read_header(path)
        assert theirs.keys() == infos.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(theirs[name], array)
            assert np.array_equal(read_tensor(infos[name]), array)
        assert read_metadata(f"{path}") == {"about": "a test"}


def test_contents_that_do_not_follow_the_layout_are_refused(tmp_path):
    layout = {"a": ("float32", (2,)), "b": ("float32", (1,))}
    for contents in ([("a", b"1234")], [("b", b"1234")], [("a", b"12345678")]):
        with pytest.raises(ValueError, match="layout"):
            write_tensors(tmp_path / "x", layout, contents)
