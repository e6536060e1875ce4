"""FILE:TENSOR names a tensor, whatever colons the two names have."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from cosa_theory.ground.array_files import read_array, split_spec


@pytest.mark.parametrize("file", ["core.safetensors", "run:2.safetensors"])
@pytest.mark.parametrize("tensor", ["Y", "dense/kernel:0", ":"])
def test_a_tensor_is_found_whatever_colons_the_names_have(tmp_path, file, tensor):
    save_file({tensor: np.ones((2, 3)), "other": np.zeros((1, 1))}, tmp_path / file)
    assert read_array(f"{tmp_path / file}:{tensor}", "CORE").shape == (2, 3)


def test_the_last_colon_counts_where_no_file_is_there():
    assert split_spec("none.safetensors:a:b") == ("none.safetensors:a", "b")
    assert split_spec("none.safetensors") == ("none.safetensors", None)
