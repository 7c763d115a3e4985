"""The commands ``jointbench evaluate`` and ``jointbench export``: files of weights in and out."""

from __future__ import annotations

from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli_options import (
    REPORT,
    Data,
    DataParams,
    Dataset,
    Device,
    Force,
    Labels,
    Loaders,
    Out,
    Plugins,
    Protocols,
    Seeds,
    SuiteOption,
    Threads,
    Workers,
)
from bench.cli_steps import bring_up_to_date, exit_with_failures, make_request, show_report
from bench.cli_store import STORE, StoreUrl
from bench.errors import RequestError

if TYPE_CHECKING:
    from bench.encoders.imports import Wish
    from bench.plan import Plan
    from bench.request import Request

# fmt: off
LayoutName = Literal[
    "auto", "torchvision", "timm", "moco", "simsiam", "vicreg", "barlow_twins", "byol", "swav",
    "solo-learn", "lightly", "vissl", "mmselfsup", "detectron2",
]
# fmt: on
"""``auto`` and the keys of :data:`bench.encoders.layouts.LAYOUTS`, which ``--help`` must not wait for."""

Layout = Annotated[LayoutName, typer.Option(help="Whose code made the file; auto recognizes it by the keys.")]
Network = Annotated[
    Literal["online", "momentum"], typer.Option(help="Which network of two; papers evaluate the online one.")
]
Mean = Annotated[str, typer.Option(metavar="R,G,B", help="Mean of the images on the [0, 1] scale.")]
Std = Annotated[str, typer.Option(metavar="R,G,B", help="Standard deviation of the images on the [0, 1] scale.")]
ChannelOrder = Annotated[Literal["auto", "rgb", "bgr"], typer.Option(help="How the network takes color images.")]


def evaluate(
    weights: Annotated[Path, typer.Option(metavar="FILE", help="Weights of a ResNet that somebody trained.")],
    layout: Layout = "auto",
    name: Annotated[str, typer.Option(metavar="NAME", help="What tables call it; without one the file's name.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Take the name from another encoder.")] = False,  # noqa: FBT002
    network: Network = "online",
    mean: Mean = "",
    std: Std = "",
    channel_order: ChannelOrder = "auto",
    image_size: Annotated[int, typer.Option(min=0, metavar="N", help="Resize images to N pixels; 0: as they are.")] = 0,
    suite: SuiteOption = "",
    protocols: Protocols = "",
    seeds: Seeds = None,
    data: Data = None,
    labels: Labels = None,
    data_param: DataParams = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    out: Out = Path(REPORT),
    plugin: Plugins = None,
    device: Device = "auto",
    workers: Workers = 0,
    threads: Threads = 0,
    loaders: Loaders = 0,
    force: Force = False,  # noqa: FBT002 (Typer passes options by name)
) -> None:
    """Evaluate a checkpoint that somebody else trained under the protocols of a suite, and keep it in the store."""
    from bench.encoders.imports import import_encoder
    from bench.weights import check_name, remember_import

    request = make_request(
        suite, "", protocols, seeds, data, dataset, store, plugin,
        labels=labels, data_param=data_param, device=device, workers=workers, threads=threads, loaders=loaders,
        force=force,
    )  # fmt: skip
    called = name or weights.stem
    check_name(called)
    encoder = import_encoder(weights, request.catalog.backbones, _wish(layout, network, mean, std, channel_order))
    print(f"{called}: {weights.name}, SHA-256 {encoder.file[:12]}")
    for note in encoder.notes:
        print(f"  {note}")
    candidate = remember_import(request, encoder, called, image_size=image_size, replace=replace)
    request = changed(request, methods=(candidate.name,))
    plan, failures = bring_up_to_date(request, out)
    _print_values(request, plan)
    show_report(request, out)
    exit_with_failures(plan, failures)


def export(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="A stored encoder by method or address, or a file.")],
    format: Annotated[
        Literal["torchvision", "timm", "detectron2", "safetensors"], typer.Option(help="Who is to load it.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    layout: Layout = "auto",
    network: Network = "online",
    mean: Mean = "",
    std: Std = "",
    channel_order: ChannelOrder = "auto",
    bgr: Annotated[bool, typer.Option("--bgr", help="For detectron2: images come as BGR.")] = False,  # noqa: FBT002
    suite: SuiteOption = "",
    data: Data = None,
    labels: Labels = None,
    data_param: DataParams = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    plugin: Plugins = None,
) -> None:
    """Write an encoder of the store, or a file of weights, as a file that another library loads."""
    from bench.encoders.exports import write_export
    from bench.weights import find_export

    request = make_request(
        suite, "", "", None, data, dataset, store, plugin, labels=labels, data_param=data_param
    )  # fmt: skip
    found = find_export(request, what, _wish(layout, network, mean, std, channel_order))
    print(write_export(found, format, out, bgr=bgr))
    print(f"Wrote {out} ({found.backbone}; {found.origin}).")


def _wish(layout: str, network: str, mean: str, std: str, channel_order: str) -> Wish:
    from bench.encoders.imports import Wish

    return Wish(
        layout=layout,
        network=network,  # type: ignore[arg-type]
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        channel_order=channel_order,  # type: ignore[arg-type]
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise RequestError(f"{option} {text!r}: give numbers with commas between, such as 0.5,0.5,0.5.") from None


def _print_values(request: Request, plan: Plan) -> None:
    """The values of the plan's cells, one line each; what a protocol could not define is left out."""
    rows = request.results.frame()
    for cell in plan.cells:
        found = rows[(rows["identity"] == cell.identity.digest) & (rows["status"] == "ok")]
        stored = {row["metric"]: row for row in found.to_dict("records")}
        values = []
        for metric in request.catalog.protocols[cell.spec.protocol].card.metrics:  # type: ignore[union-attr]
            row = stored.get(metric.key, {})
            if not (value := metric.format(row.get("value"))):
                continue
            low, high = metric.format(row["low"]), metric.format(row["high"])
            values.append(f"{metric.title} {value}" + (f" ({low} to {high})" if low and high else ""))
        print(f"  {cell.address}: {', '.join(values) or cell.reason}")
