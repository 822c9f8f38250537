"""`fcnzoo list`: what models there are."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from fcnzoo.cli.console import complain, print_table


def list_models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of the name, or a shell pattern such as 'fcn8s_*'.", show_default=False),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head", help="Only this head: fcn32s, fcn16s, fcn8s, fcn, deeplabv3 or lraspp.", show_default=False
        ),
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only trained weights, each as name.tag.")] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Only weights trained on this data set.", show_default=False)
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", help="Only weights under this license.", show_default=False)
    ] = None,
    buildable: Annotated[
        bool, typer.Option("--buildable", help="List every name that builds: each head on each backbone that fits.")
    ] = False,
    backbones: Annotated[
        bool, typer.Option("--backbones", help="List backbones instead: any of them goes with any head that fits.")
    ] = False,
) -> None:
    """List the models of the zoo, or the backbones it can build on.

    On a terminal as a table; elsewhere one line each, columns separated by tabs, the name first.
    """
    from fcnzoo.zoo import registry

    if head is not None and head not in registry.HEADS:
        raise typer.BadParameter(f"{head!r} is none of {', '.join(registry.HEADS)}", param_hint="--head")
    if backbones and (head or pretrained or dataset or license or buildable):
        raise typer.BadParameter("takes a pattern only, none of the filters for models", param_hint="--backbones")
    wanted = "*" if pattern is None else pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    if backbones:
        rows = [(name,) for name in registry.list_backbones(wanted)]
    else:
        names = registry.list_models(
            wanted,
            pretrained=pretrained,
            head=cast("registry.HeadName | None", head),
            dataset=dataset,
            license=license,
            buildable=buildable,
        )
        rows = [_row(name) for name in names]
    if not rows:
        complain(f"no {'backbone' if backbones else 'model'} fits; `fcnzoo list` without options lists all")
        raise typer.Exit(1)
    print_table(("name",) if backbones else ("name", "weights", "trained on", "license", "description"), rows)


def _row(name: str) -> tuple[str, ...]:
    """Return the columns of a model (or, with a tag in the name, of one set of its weights)."""
    from fcnzoo.zoo.registry import get_spec

    spec = get_spec(name)
    tag = name.partition(".")[2]
    weights = [one for one in spec.weights if not tag or one.tag == tag]
    columns = (", ".join(dict.fromkeys(getattr(one, key) for one in weights)) for key in ("tag", "dataset", "license"))
    return (name, *(column or "–" for column in columns), spec.description)
