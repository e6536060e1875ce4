"""Small tables with a survey's columns and types, from a seeded toy model: nothing is surveyed."""

import numpy as np

from cosa_theory.spectrum.families.compare import (
    CROSSOVER_COLUMNS,
    FAMILY_COLUMNS,
    typed_frame,
)
from cosa_theory.spectrum.families.null import noise_top_share
from cosa_theory.studies.spectrum.pair import LAYER_COLUMNS, SPECTRUM_COLUMNS

MODULES = {
    "attention.self.query": (24, 24),
    "attention.self.value": (24, 24),
    "attention.output.dense": (24, 24),
    "intermediate.dense": (96, 24),
    "output.dense": (24, 96),
}
OUTSIDE = {"embeddings.position_embeddings": (60, 24), "pooler.dense": (24, 24)}
COSA = ("gaussian", "rademacher", "achlioptas", "very_sparse", "sjlt", "haar", "srht")
RANKS = (1, 2, 4)


def _layer_names(blocks):
    for block in range(blocks):
        for module, shape in MODULES.items():
            yield f"encoder.layer.{block}.{module}.weight", module, block, shape
    for module, shape in OUTSIDE.items():
        yield f"{module}.weight", module, None, shape


def _layer_row(key, shape, sigma, base_norm):
    energy = sigma**2
    total = energy.sum()
    flat = total == 0
    share = np.cumsum(energy) / total if not flat else None
    ranks = {
        f"rank_{q}": None if flat else int(np.searchsorted(share, q / 100) + 1)
        for q in (90, 95, 99)
    }
    p = energy / total if not flat else None
    return {
        **key,
        "base_dtype": "float32",
        "tuned_dtype": "float32",
        "delta_norm": float(np.sqrt(total)),
        "relative_norm": float(np.sqrt(total) / base_norm),
        "rank": 0 if flat else len(sigma),
        "resolved": False,
        "sigma_max": float(sigma[0]),
        "frobenius": float(np.sqrt(total)),
        "stable_rank": None if flat else float(total / energy[0]),
        "effective_rank_entropy_sigma2": None if flat else float(np.exp(-(p * np.log(p)).sum())),
        "effective_rank_entropy_sigma": None if flat else float(len(sigma) / 2),
        "participation_ratio": None if flat else float(total**2 / (energy**2).sum()),
        "flatness": None if flat else float(np.exp(np.log(energy).mean()) / energy.mean()),
        **ranks,
        "noise_sd": None if flat else float(sigma[-1] / np.sqrt(max(shape))),
        "mp_edge": None if flat else float(sigma[len(sigma) // 2]),
        "spikes": None if flat else len(sigma) // 2,
        "noise_misfit": None if flat else 0.05,
        **_beside_base(flat),
        "rounding_rms": 1e-9,
        "rounding_edge": 1e-9 * (np.sqrt(shape[0]) + np.sqrt(shape[1])),
    }


def _beside_base(flat):
    null = None if flat else 0.1
    vectors = {"intruders": 2, "intruders_null_low": 0, "intruders_null_high": 1}
    vectors |= {"lowest_cosine": 0.3, "lowest_cosine_null_low": 0.4, "lowest_cosine_null_high": 0.6}
    for side in ("left", "right"):
        vectors |= {f"{side}_overlap{name}": 0.2 for name in ("", "_null", "_null_sd")}
    shares = {"zero_share": 0.0, "bf16_lost_share": 0.25, "bf16_lost_null": 0.125}
    return {name: null and value for name, value in vectors.items()} | shares


def _spectra(key, sigma, base_sigma):
    rows = []
    keys = {name: key[name] for name in ("layer", "module", "block")}
    for matrix, values in (("base", base_sigma), ("tuned", base_sigma * 1.003), ("delta", sigma)):
        for index, value in enumerate(values):
            resolved = bool(value > 0 and (matrix != "delta" or index < len(values) - 2))
            rows.append(
                {**keys, "matrix": matrix, "index": index + 1, "sigma": value, "resolved": resolved}
            )
    return rows


def _shares(key, sigma, generator, ranks):
    m, n = key["m"], key["n"]
    total = (sigma**2).sum()
    families, crossover = [], []
    for rank in ranks:
        budget = rank * (m + n)
        b = min(int(np.sqrt(budget * m / n)), n)
        a = min(budget // b, m)
        law = a * b / (m * n)
        top = float((sigma[:rank] ** 2).sum() / total) if total else None
        common = {**key, "rank_budget": rank}
        exact = {"ci_low": top, "ci_high": top, "sd": 0.0, "draws": 0, "law": None}
        families.append(
            {**common, "family": "truncated_svd", "budget": budget, "parameters": budget}
            | {"size": f"r={rank}", "a": None, "b": None, "captured": top, **exact}
        )
        lora_xs = top / 3 if total else None
        families.append(
            {**common, "family": "lora_xs", "budget": budget, "parameters": budget}
            | {"size": f"r={int(budget**0.5)}", "a": None, "b": None, "captured": lora_xs}
            | {**exact, "ci_low": lora_xs, "ci_high": lora_xs}
        )
        for kind in COSA:
            share = law * (1 + 0.01 * generator.standard_normal()) if total else None
            half = 0.01 * law if total else None
            families.append(
                {**common, "family": f"cosa_{kind}", "budget": budget, "parameters": a * b}
                | {"size": f"a={a}, b={b}", "a": a, "b": b, "captured": share}
                | {"ci_low": share - half if total else None, "sd": half, "draws": 5}
                | {"ci_high": share + half if total else None, "law": law}
            )
        ratio = top / law if total else None
        noise = noise_top_share(m, n, rank)
        crossover.append(
            {**common, "parameters": a * b, "top_share": top, "law": law}
            | {"crossover_ratio": ratio, "noise_ratio": noise / law}
            | {"excess": top / noise if total else None}
            | {"advantage_bound": (m + n) / max(m, n)}
            | {"winner": None if ratio is None else "low rank" if ratio > 1 else "cosa"}
        )
    return families, crossover


def toy_tables(*, blocks=4, seed=0, zero_layer=None, flat_module=None, ranks=RANKS):
    """Return the survey tables of a toy encoder by name.

    `zero_layer` names a layer whose update is zero; `flat_module` a module whose updates have a
    perfectly flat spectrum, so that CoSA wins there.
    """
    generator = np.random.default_rng(seed)
    layers, spectra, families, crossover = [], [], [], []
    for name, module, block, (m, n) in _layer_names(blocks):
        key = {"layer": name, "module": module, "block": block, "m": m, "n": n}
        index = np.arange(1, min(m, n) + 1)
        sigma = 0.02 * index**-0.9 * np.exp(0.15 * generator.standard_normal(index.size))
        sigma = np.sort(sigma)[::-1]
        if module == flat_module:
            sigma = np.full(index.size, 0.01)
        if name == zero_layer:
            sigma = np.zeros(index.size)
        base = np.sort(generator.uniform(0.2, 3.0, index.size))[::-1]
        layers.append(_layer_row(key, (m, n), sigma, float(np.sqrt((base**2).sum()))))
        spectra.extend(_spectra(key, sigma, base))
        more_families, more_crossover = _shares(key, sigma, generator, ranks)
        families.extend(more_families)
        crossover.extend(more_crossover)
    named = {"layer": "object", "module": "object", "block": "Int64", "m": "int64", "n": "int64"}
    return {
        "layers": typed_frame(layers, LAYER_COLUMNS),
        "spectra": typed_frame(spectra, SPECTRUM_COLUMNS),
        "families": typed_frame(families, named | FAMILY_COLUMNS),
        "crossover": typed_frame(crossover, named | CROSSOVER_COLUMNS),
    }
