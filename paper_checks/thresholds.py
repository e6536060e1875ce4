"""The thresholds of the paper checks, with their reasons and the days they were committed.

A threshold comes in a commit before the first result that it judges, or with the code that
measures it where nothing was known; never in one that brings its result. A check may state its own
at the top of its module: ``THRESHOLDS["c12_error"] = Threshold(…)``.
"""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["THRESHOLDS", "Threshold"]


@dataclass(frozen=True)
class Threshold:
    """A bound that a measured quantity must respect.

    Attributes
    ----------
    quantity : str
        What is compared, in words.
    relation : {"at most", "at least"}
        On which side of `value` the quantity must lie; equality is allowed.
    value : float
        The bound.
    date : str
        The day on which this bound was committed, ISO 8601; a test compares it with the history.
    reason : str
        Why this bound and no other.
    """

    quantity: str
    relation: Literal["at most", "at least"]
    value: float
    date: str
    reason: str

    def __str__(self) -> str:
        return f"{self.quantity} {self.relation} {self.value:g} (set on {self.date})"


THRESHOLDS: dict[str, Threshold] = {
    "c1_error": Threshold(
        "largest relative difference between the two sides of the identity",
        "at most",
        1e-13,
        "2026-11-22",
        "Both sides add up at most 500 products in double precision (unit 1e-16), so rounding "
        "leaves about 1e-15; a wrong order or a missing transpose leaves about 1.",
    ),
    "c2_delta": Threshold(
        "restricted isometry constant at the best scale",
        "at most",
        1 / math.sqrt(2),
        "2026-11-22",
        "Below it at order 2s, ℓ1 minimisation recovers every s-sparse vector, and above it not "
        "always (Cai and Zhang 2014). The best scale is the kindest reading of the claim.",
    ),
    "c2_product": Threshold(
        "δ_s of a product over the bound (1 + δ_s(A))(1 + δ_s(B)) − 1 by its factors",
        "at most",
        1.0 + 1e-9,
        "2026-11-22",
        "A theorem (Jokar and Mehrmann 2009); only rounding is allowed.",
    ),
    "c2_bracket": Threshold(
        "largest distance of an enumerated constant from its bracket",
        "at most",
        1e-12,
        "2026-11-22",
        "Both ends are proven; only the rounding of the enumeration is allowed.",
    ),
    "c3_every": Threshold(
        "isometry constant over all cores at the best scale, (κ² − 1)/(κ² + 1)",
        "at most",
        0.5,
        "2026-11-22",
        "It is the factor by which gradient descent at its best step size shrinks the slowest part "
        "of the error: at one half every part at least halves in each step.",
    ),
    "c3_typical": Threshold(
        "relative standard deviation of ‖L Y R‖²/‖Y‖² over random cores",
        "at most",
        0.1,
        "2026-11-22",
        "Then the norms of 95 % of such cores agree to about 10 %: isometry for practical "
        "purposes.",
    ),
    "c3_law": Threshold(
        "|z| of the measured spreads against those computed from the factors",
        "at most",
        4.0,
        "2026-11-22",
        "The formula is exact for a given basis: beyond 4 standard errors the measurement is "
        "wrong.",
    ),
    "c3_steady": Threshold(
        "how much an adapter's gradients vary along a training with orthonormal projections over "
        "that with Gaussian ones, as a ratio of coefficients of variation",
        "at most",
        0.9,
        "2026-11-30",
        "If near-isometry made optimisation stable, perfect isometry would make it steadier: the "
        "study calls less than a tenth no difference.",
    ),
    "c4_kept": Threshold(
        "share of the update's energy that comes back",
        "at least",
        0.9,
        "2026-11-22",
        "The usual 90 % of explained energy, a relative error of 0.32; a decoded update with less "
        "is another update.",
    ),
    "c4_function": Threshold(
        "function recovered: share of the change of the model's embeddings that comes back",
        "at least",
        0.9,
        "2026-11-29",
        "The usual share of explained variation once more, 90 %: with less, whoever exchanges the "
        "tuned model for the decoded one sees another model. It is the bound set for the energy, "
        "and not chosen by what was known of this pair when it was stated: about 3 % by least "
        "squares, 81 to 87 % by the adjoint, 97 % by a random mask over p.",
    ),
    "c4_null": Threshold(
        "function recovered by noise of the update's energy, and by the update shuffled",
        "at most",
        0.05,
        "2026-11-29",
        "What knows nothing of the update must return nothing: were it more than a twentieth, as "
        "much of what a decoder returns would be chance.",
    ),
    "c4_exact": Threshold(
        "function recovered by the update itself",
        "at least",
        0.999,
        "2026-11-29",
        "Only rounding in single precision is allowed: otherwise what was put into the model is "
        "not what was meant.",
    ),
    "c4_law": Threshold(
        "|z| of all measured shares together against the energy law",
        "at most",
        4.0,
        "2026-11-22",
        "The law is a theorem for Gaussian factors: beyond 4 standard deviations (chance 6e-5) the "
        "measurement is wrong, and nothing else it says counts.",
    ),
    "c5_ratio": Threshold(
        "energy in the top r singular values over the CoSA share at equal parameters",
        "at most",
        1.0,
        "2026-11-22",
        "Below 1 the CoSA core holds more of the update than any rank-r matrix, above 1 less.",
    ),
    "c5_noise": Threshold(
        "largest |excess − 1| of drawn noise, its ratio over that of the null",
        "at most",
        0.1,
        "2026-11-29",
        "The null is a limit for large layers, so on those of a few hundred rows it is off by some "
        "per cent; an excess within a tenth of it is not read as structure.",
    ),
    "c5_bound": Threshold(
        "CoSA's advantage over rank r, as a share of (m+n)/max(m,n)",
        "at most",
        1.0 + 1e-9,
        "2026-11-22",
        "A theorem: the top r of min(m,n) singular values hold at least r/min(m,n). Only rounding "
        "is allowed.",
    ),
    "c6_saving": Threshold(
        "trainable parameters saved against LoRA (PiSSA trains as many)",
        "at least",
        0.684,
        "2026-11-22",
        "The number of the claim.",
    ),
    "c7_constant": Threshold(
        "bytes of the largest adapter over those of the smallest, the file's header aside",
        "at most",
        1.0,
        "2026-11-22",
        "An exact count: constant means equal.",
    ),
    "c7_restored": Threshold(
        "share of the projections that are bit for bit the same in every other process",
        "at least",
        1.0,
        "2026-11-22",
        "One layer with another projection has another update: the adapter is then another one.",
    ),
    "c8_accuracy": Threshold(
        "test accuracy with CoSA minus that with LoRA, mean over seeds",
        "at least",
        -0.01,
        "2026-11-22",
        "One text in a hundred: a smaller loss would still be read as a match in a table of "
        "accuracies.",
    ),
    "c8_loss": Threshold(
        "held-out loss with LoRA minus that with CoSA in nats a token, mean over seeds",
        "at least",
        -0.02,
        "2026-11-22",
        "A factor of 1.02 in perplexity: less than what another learning rate of a usual grid "
        "changes.",
    ),
    "c8_informed": Threshold(
        "held-out loss with LoRA minus that with informed projections in nats a text, over seeds",
        "at least",
        -0.01,
        "2026-11-29",
        "A twentieth of the loss of 0.2 that was left after such trainings in a trial: less than "
        "what the next rate of a quarter-decade grid changes.",
    ),
    "c8_gain": Threshold(
        "what LoRA gains over the untrained model, in accuracy or nats a token",
        "at least",
        0.05,
        "2026-11-22",
        "Where not even the reference learns, equal results say nothing about the methods.",
    ),
    "c8_budget": Threshold(
        "relative difference of the trainable parameters of CoSA and LoRA, a new head aside",
        "at most",
        0.03,
        "2026-11-22",
        "Whole numbers in the core's shape cost this much on narrow layers; a comparison at other "
        "sizes is another claim.",
    ),
    "c9_lora": Threshold(
        "rank of the update over LoRA's rank at equal trainable parameters, ab/(m+n)",
        "at least",
        2.0,
        "2026-11-29",
        "The whole numbers in a core's shape and in LoRA's rank make ratios a little above 1 out "
        "of nothing; a factor of two they cannot make. LoRA's rank is not rounded down, which "
        "would flatter CoSA. Known when this was stated: about 10 on the updates of an encoder.",
    ),
    "c9_rank": Threshold(
        "rank of the update over mn/(m+n)",
        "at least",
        1.0,
        "2026-11-22",
        "A matrix of rank r is cheaper to store as two factors, r(m+n) numbers, than as it is "
        "exactly when r < mn/(m+n): below that it is low-rank. The strictest reading of the claim, "
        "and no small core can meet it: as the rank is at most min(a, b), ab must be (mn/(m+n))² "
        "at least, a quarter of a square layer's entries.",
    ),
    "c9_wall": Threshold(
        "largest measured rank over min(a, b)",
        "at most",
        1.0,
        "2026-11-22",
        "A theorem: the rank of a product is at most that of each factor. A higher measured rank "
        "is a broken measurement.",
    ),
    "c9_side": Threshold(
        "short side of a layer",
        "at least",
        16,
        "2026-11-22",
        "On shorter sides even rank 1 is a large share of full rank, so low-rank has no meaning; "
        "such layers are left out of C9.",
    ),
    "c10_redundant": Threshold(
        "share of the core's entries that change nothing",
        "at most",
        0.0,
        "2026-11-22",
        "An exact count: with a ≤ m and b ≤ n and factors of full rank it is zero.",
    ),
    "c10_count": Threshold(
        "largest relative difference between counted and measured dimensions of the span",
        "at most",
        0.0,
        "2026-11-22",
        "Both are whole numbers; a difference means that the count does not describe the factors.",
    ),
    "c11_failure": Threshold(
        "chance that a norm is off by two standard deviations, over the Gaussian's",
        "at most",
        2.0,
        "2026-11-22",
        "Twice a chance of 5 %: made up for by about a quarter more rows. Ensembles that need more "
        "than that do not work alike.",
    ),
    "c11_energy": Threshold(
        "captured energy over the law ab/(mn)",
        "at least",
        0.95,
        "2026-11-22",
        "An ensemble that loses a twentieth is made up for by a core one twentieth larger.",
    ),
    "c11_delta": Threshold(
        "restricted isometry constant of the dictionary over the Gaussian one's, both exact",
        "at most",
        1.25,
        "2026-11-22",
        "Constants fall as one over the square root of the sizes: a quarter more is a layer of "
        "two thirds the size.",
    ),
    "c11_condition": Threshold(
        "inverse condition number of the dictionary over the Gaussian one's",
        "at least",
        0.8,
        "2026-11-22",
        "A condition number one quarter higher needs about a quarter more conjugate gradient "
        "steps.",
    ),
    "c11_gaussian": Threshold(
        "|z| of the Gaussian ensemble's failures against the χ² law",
        "at most",
        4.0,
        "2026-11-22",
        "The law is exact for Gaussian projections: beyond 4 standard deviations the measurement "
        "is wrong.",
    ),
}
