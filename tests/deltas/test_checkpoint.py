import json

import numpy as np
import pytest
import torch

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from tests.deltas.files import moved, save, save_pair, save_sharded, total, weights


def assert_moved_everywhere(pair):
    deltas = total(pair)
    assert set(deltas) == {name for name in weights() if name.endswith("weight")}
    for delta in deltas.values():
        np.testing.assert_allclose(delta, 0.25, atol=1e-6)


def test_two_files_give_the_update_of_every_matrix(tmp_path):
    assert_moved_everywhere(open_pair(*save_pair(tmp_path, weights(), moved(weights()))))


def test_a_folder_and_a_sharded_folder_give_the_same_as_files(tmp_path):
    save(tmp_path / "base" / "model.safetensors", weights())
    save_sharded(tmp_path / "tuned", moved(weights()))
    assert_moved_everywhere(open_pair(tmp_path / "base", tmp_path / "tuned"))
    index = tmp_path / "tuned" / "model.safetensors.index.json"
    assert_moved_everywhere(open_pair(str(tmp_path / "base"), str(index)))


def test_state_dicts_of_torch_or_numpy_and_modules_give_the_same():
    assert_moved_everywhere(open_pair(weights(), moved(weights())))
    arrays = {name: value.numpy() for name, value in weights().items()}
    assert_moved_everywhere(open_pair(arrays, moved(weights())))
    base = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    tuned = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    tuned.load_state_dict(moved(base.state_dict()))
    for layer in open_pair(base, tuned):
        np.testing.assert_allclose(layer.delta, 0.25, atol=1e-6)


def test_reading_a_pair_changes_neither_model_in_memory():
    base, tuned = weights(), moved(weights())
    arrays = {name: value.numpy().copy() for name, value in base.items()}
    total(open_pair(base, tuned))
    total(open_pair(arrays, tuned))
    total(open_pair(tuned, arrays))
    for name, value in weights().items():
        assert torch.equal(base[name], value)
        assert torch.equal(tuned[name], moved(weights())[name])
        np.testing.assert_array_equal(arrays[name], value)


def test_layers_of_a_file_come_in_their_natural_order(tmp_path):
    tensors = {f"layers.{i}.weight": torch.randn(2, 2) for i in range(12)}
    pair = open_pair(*save_pair(tmp_path, tensors, moved(tensors)))
    assert pair.names == tuple(f"layers.{i}.weight" for i in range(12))


def test_a_pair_can_be_iterated_twice(tmp_path):
    pair = open_pair(*save_pair(tmp_path, weights(), moved(weights())))
    assert len(pair) == 3
    first, second = total(pair), total(pair)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


# Damaged and dangerous files


def test_a_truncated_file_is_named_with_expected_and_actual_size(tmp_path):
    base, tuned = save_pair(tmp_path, weights(), moved(weights()))
    whole = tuned.read_bytes()
    tuned.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="truncated") as caught:
        open_pair(base, tuned)
    message = str(caught.value)
    assert str(tuned) in message
    assert str(len(whole)) in message
    assert str(len(whole) - 10) in message


def test_a_missing_shard_is_named(tmp_path):
    base = save(tmp_path / "base.safetensors", weights())
    folder = save_sharded(tmp_path / "tuned", weights())
    shard = folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    with pytest.raises(InputError, match=r"missing; .*index.json expects 2 tensors") as caught:
        open_pair(base, folder)
    assert str(shard) in str(caught.value)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("extra", [False, True])
def test_an_index_that_disagrees_with_a_shard_gives_expected_and_actual(tmp_path, missing, extra):
    base = save(tmp_path / "base.safetensors", weights())
    folder = save_sharded(tmp_path / "tuned", moved(weights()))
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shard = index["weight_map"]["layers.0.q_proj.weight"]
    found = list(index["weight_map"].values()).count(shard)
    if missing:
        index["weight_map"]["ghost.weight"] = shard
    if extra:
        del index["weight_map"]["layers.0.q_proj.weight"]
    path.write_text(json.dumps(index))
    if not missing and not extra:
        assert_moved_everywhere(open_pair(base, folder))
        return
    with pytest.raises(InputError, match=r"disagrees with model.safetensors.index.json") as caught:
        open_pair(base, folder)
    message = str(caught.value)
    assert shard in message
    assert f"expected {found + missing - extra} tensors, found {found};" in message
    assert ("missing: ghost.weight" in message) == missing
    assert ("not in the index: layers.0.q_proj.weight" in message) == extra


@pytest.mark.parametrize(
    "shard",
    ["../secret.safetensors", "/etc/secret.safetensors", "a/../../b", "C:\\x.safetensors", "..\\x"],
)
def test_an_index_that_leaves_its_folder_is_refused_before_reading(tmp_path, shard):
    save(tmp_path / "secret.safetensors", weights())
    folder = tmp_path / "tuned"
    folder.mkdir()
    index = {"weight_map": dict.fromkeys(weights(), shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="outside its folder") as caught:
        open_pair(weights(), folder)
    assert "model.safetensors.index.json" in str(caught.value)


def test_a_hub_cache_of_links_is_no_path_leaving_the_folder(tmp_path):
    blob = save(tmp_path / "blobs" / "abc", weights())
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to(blob)
    assert len(open_pair(snapshot, moved(weights()))) == 3


def test_the_problems_of_both_files_come_at_once(tmp_path):
    (tmp_path / "base.safetensors").write_bytes(b"123")
    with pytest.raises(InputError) as caught:
        open_pair(tmp_path / "base.safetensors", tmp_path / "none.safetensors")
    assert len(caught.value.problems) == 2
    assert "at least 8 bytes, this one has 3" in caught.value.problems[0]
    assert "no such file or folder" in caught.value.problems[1]


def test_a_folder_without_weights_or_with_several_candidates_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no weights here .*shards\)\.$"):
        open_pair(tmp_path / "empty", weights())
    save(tmp_path / "empty" / "merged" / "model.safetensors", weights())
    with pytest.raises(InputError, match="but in its folders: name one of merged"):
        open_pair(tmp_path / "empty", weights())
    save(tmp_path / "two" / "a.safetensors", weights())
    save(tmp_path / "two" / "b.safetensors", weights())
    with pytest.raises(InputError, match=r"several files.*a.safetensors, b.safetensors"):
        open_pair(tmp_path / "two", weights())


def test_something_that_is_no_source_is_refused():
    with pytest.raises(InputError, match="expected a path, a hub id, a module or a mapping"):
        open_pair(3, weights())


def test_an_unknown_option_value_is_a_value_error():
    with pytest.raises(ValueError, match="on_shape is 'cut': it must be one of"):
        open_pair(weights(), weights(), on_shape="cut")


# Pickles


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "unnamed"])
def test_pickles_are_refused_unless_allowed(tmp_path, name):
    torch.save(moved(weights()), tmp_path / name)
    with pytest.raises(InputError, match=r"a pickle.*convert it to safetensors, or allow"):
        open_pair(weights(), tmp_path / name)
    assert_moved_everywhere(open_pair(weights(), tmp_path / name, allow_pickle=True))


def test_a_pickle_named_safetensors_is_refused_in_any_case(tmp_path):
    torch.save(moved(weights()), tmp_path / "model.safetensors")
    for allow, says in ((False, "a pickle, which can run any code"), (True, "rename it")):
        with pytest.raises(InputError, match=says):
            open_pair(weights(), tmp_path / "model.safetensors", allow_pickle=allow)


def test_a_legacy_pickle_is_refused_and_read_like_a_new_one(tmp_path):
    path = tmp_path / "old.pt"
    torch.save(moved(weights()), path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="a pickle"):
        open_pair(weights(), path)
    assert_moved_everywhere(open_pair(weights(), path, allow_pickle=True))


def test_the_weights_only_loader_runs_no_code(tmp_path, capsys):
    torch.save({"a.weight": torch.ones(2, 2), "evil": Evil()}, tmp_path / "model.bin")
    with pytest.raises(InputError, match="weights-only loader refused it"):
        open_pair(weights(), tmp_path / "model.bin", allow_pickle=True)
    assert "code ran" not in capsys.readouterr().out


def test_sharded_pickles_are_read_when_allowed(tmp_path):
    tensors = moved(weights())
    names = sorted(tensors)
    weight_map = {}
    for number in (0, 1):
        part = {name: tensors[name] for name in names[number::2]}
        torch.save(part, tmp_path / f"pytorch_model-{number}.bin")
        weight_map.update(dict.fromkeys(part, f"pytorch_model-{number}.bin"))
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InputError, match="a pickle"):
        open_pair(weights(), tmp_path)
    assert_moved_everywhere(open_pair(weights(), tmp_path, allow_pickle=True))
    (tmp_path / "pytorch_model-1.bin").unlink()
    with pytest.raises(InputError, match=r"pytorch_model-1.bin: missing"):
        open_pair(weights(), tmp_path, allow_pickle=True)


def test_a_state_dict_nested_in_a_training_checkpoint_is_found(tmp_path):
    torch.save({"state_dict": moved(weights()), "epoch": 3}, tmp_path / "last.ckpt")
    assert_moved_everywhere(open_pair(weights(), tmp_path / "last.ckpt", allow_pickle=True))


# The hub


def test_a_hub_id_is_downloaded_and_read(tmp_path, monkeypatch):
    save(tmp_path / "snapshot" / "model.safetensors", moved(weights()))
    asked = []

    def snapshot_download(identifier, **options):
        asked.append((identifier, options["allow_patterns"]))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert_moved_everywhere(open_pair(weights(), "someone/tuned"))
    assert [identifier for identifier, _ in asked] == ["someone/tuned"]
    assert not any("bin" in pattern for pattern in asked[0][1])


def test_a_hub_id_without_a_network_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match="someone/tuned is no file or folder here") as caught:
        open_pair(weights(), "someone/tuned")
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


def test_a_mistyped_path_is_never_asked_of_the_hub(monkeypatch):
    def snapshot_download(*_, **__):
        raise AssertionError("asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for text in ("models/tuned.safetensors", "./tuned", "/no/such/folder", "a/b/c"):
        with pytest.raises(InputError, match="no such file or folder"):
            open_pair(weights(), text)
