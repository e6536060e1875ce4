"""`cosa-theory recover`: an update from its core, with the certificate of the solver."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cosa_theory.cli.app import CELLS, Command, Json, Seed, app, check_out, deliver, provenance_of
from cosa_theory.ground.program import note

__all__ = ["recover"]


class _NamesMethods(Command):
    """Names the solvers in its help, for which alone they are loaded."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from cosa_theory.recovery import METHODS

        for option in self.params:
            if option.name == "method":
                *names, last = METHODS
                option.help = (  # type: ignore[attr-defined]
                    f"The solver: {', '.join(names)} or {last}. [default: basis_pursuit; "
                    "fista with a noise level or λ, or where no update has this core]"
                )
        super().format_options(ctx, formatter)


@app.command(
    cls=_NamesMethods,
    short_help="Recover an update from its core, by any of the solvers.",
    epilog="Examples: cosa-theory recover core.safetensors:core --shape 4096 4096 --seed 0 --out "
    "recovered; cosa-theory recover core.npy --projections projections.safetensors --method omp "
    "--truth delta.npy",
)
def recover(
    core: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:TENSOR]",
            help="The core (a × b) in a .npy or .safetensors file. Metadata fingerprint_L and "
            "fingerprint_R of the file, if there, must be those of the projections.",
        ),
    ],
    core_is: Annotated[
        Literal["measurements", "best"],
        typer.Option(
            help="What the core holds: the measurements Lᵀ ΔW Rᵀ, or the best core L⁺ ΔW R⁺."
        ),
    ] = "measurements",
    shape: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="M N", help="Sizes of ΔW; needed unless --projections has them."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ensemble of L and R. [default: gaussian]")
    ] = None,
    scale: Annotated[
        Literal["synthesis", "analysis"] | None,
        typer.Option(help="Scale of L and R. [default: synthesis, as CosaBasis.sample]"),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The layer's name, with which L and R were drawn."),
    ] = None,
    seed: Seed = 0,
    projections: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A .safetensors file with the tensors L (m × a) and R (b × n), in place of a "
            "draw; with metadata fingerprint_L and fingerprint_R it is checked.",
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="The solver.")] = None,
    basis: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Where ΔW is sparse: coordinate, dct, wavelet or singular."
        ),
    ] = "coordinate",
    weight: Annotated[
        str | None, typer.Option(metavar="FILE[:TENSOR]", help="W (m × n), for the basis singular.")
    ] = None,
    noise_level: Annotated[
        float, typer.Option(metavar="σ", help="Bound on the norm of the measurements' noise.")
    ] = 0.0,
    sparsity: Annotated[
        int | None, typer.Option(metavar="S", help="Nonzero coefficients sought.")
    ] = None,
    lam: Annotated[
        float | None, typer.Option(metavar="λ", help="Weight of ‖x‖₁ in ½‖Φx − y‖² + λ‖x‖₁.")
    ] = None,
    lam_ratio: Annotated[
        float | None, typer.Option(metavar="T", help="The same, as a share of ‖Φᵀy‖_∞.")
    ] = None,
    omega: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ω of analysis: differences or dct+identity.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What reference minimises: bpdn, basis_pursuit, lasso, analysis or nuclear.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(metavar="T", help="Where the relative certificate holds.")
    ] = None,
    max_iterations: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most iterations.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="FILE[:TENSOR]", help="An update (m × n) to start from.")
    ] = None,
    moments: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:LAYER]",
            help="Second moments of the layer's inputs, for the method prior; the layer is --key "
            "by default.",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:TENSOR]",
            help="ΔW itself (m × n): only compared with the estimate, when that is there.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float64"], typer.Option(help="Type computed in.")
    ] = "float64",
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A torch device such as cuda; numpy without it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for estimate.safetensors (tensors delta, core and, for sparse answers, "
            "debiased), tables, JSON, figures and report.html. Earlier results in it are "
            "replaced; an interrupted run resumes.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recover an update ΔW from its core and the projections that measured it.

    The first line printed is the verdict: what was found, to which certificate, and whether theory
    lets it be the update that was measured.
    """
    settings = dict(locals())
    from cosa_theory.studies.recovery.asked import asked

    check_out(out, "recover", core, projections, weight, start, moments, truth)
    recovery = asked(settings)
    made = provenance_of(dict(recovery.settings), seed) | (
        {} if projections is None else {"seed": None}
    )
    iterates = recovery.iterates(None if out is None else out / CELLS)
    try:
        document, result = recovery.document(iterates, made, note)
    except BaseException as error:
        kept = isinstance(error, KeyboardInterrupt) and iterates.keep()
        if not isinstance(error, KeyboardInterrupt):
            raise
        note(f"interrupted: {iterates.where() if kept else 'nothing is kept'}, the same command "
             f"{'resumes' if kept else 'starts from the beginning'}")  # fmt: skip
        raise typer.Exit(130) from None
    deliver(document, out, as_json, also=lambda new: recovery.write(result, new))
    iterates.discard()
