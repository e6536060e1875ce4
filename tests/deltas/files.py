"""Small checkpoints for the tests."""

import json
import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def weights(seed=0, dtype=torch.float32):
    """A small two-layer model: matrices, vectors, a vocabulary."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    return {
        "embed_tokens.weight": draw(11, 6),
        "layers.0.q_proj.weight": draw(8, 6),
        "layers.0.q_proj.bias": draw(8),
        "layers.1.q_proj.weight": draw(8, 6),
        "layers.1.q_proj.bias": draw(8),
    }


def moved(tensors, amount=0.25):
    """The same model with `amount` added to every floating-point entry."""
    return {
        name: value + amount if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def save(path, tensors):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    return path


def save_pair(folder, base, tuned):
    return save(folder / "base.safetensors", base), save(folder / "tuned.safetensors", tuned)


def save_sharded(folder, tensors, shards=2):
    """A folder with `model.safetensors.index.json` and its shards."""
    names = sorted(tensors)
    weight_map = {}
    for number in range(shards):
        shard = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save(folder / shard, {name: tensors[name] for name in part})
        weight_map.update(dict.fromkeys(part, shard))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_raw(path, header, data=b""):
    """A safetensors file with exactly this header (an object, or raw bytes) and these bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def total(pair):
    """Name to ΔW of every streamed layer."""
    return {layer.name: np.array(layer.delta) for layer in pair}
