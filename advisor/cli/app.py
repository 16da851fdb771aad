"""`advisor`: the verbs. `advisor VERB --help` explains each."""

from __future__ import annotations

import typer

from advisor.cli import (
    calibrate,
    check_env,
    compare,
    dashboard,
    doctor,
    engines,
    estimate,
    explain,
    export,
    plan,
    report,
    studies,
    tune,
    verify,
)

app = typer.Typer(
    name="advisor",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Finds the best trtllm-serve configuration for a workload, and says why a server runs out of memory.",
)

app.command("tune")(tune.tune)
app.command("plan")(plan.plan)
app.command("estimate")(estimate.estimate)
app.command("explain")(explain.explain)
app.command("report")(report.report)
app.command("calibrate")(calibrate.calibrate)
app.command("export")(export.export)
app.command("verify")(verify.verify)
app.command("compare")(compare.compare)
app.command("dashboard")(dashboard.dashboard)
app.command("doctor")(doctor.doctor)
app.command("check-env")(check_env.check_env)
app.command("studies")(studies.studies)
app.command("engines")(engines.engines)


def _print_version(wanted: bool) -> None:
    if wanted:
        import advisor

        typer.echo(f"advisor {advisor.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", is_eager=True, callback=_print_version, help="Print the version."),
) -> None:
    """Options before the verb."""
