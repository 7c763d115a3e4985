"""The options that several commands share, and their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

WITHOUT = "without one quick, or own for images of your own"
SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", show_default=False, help=f"Key of a suite, or a YAML file; {WITHOUT}.")
]
SuiteOption = Annotated[
    str, typer.Option(metavar="SUITE", show_default=False, help=f"Suite that the cells belong to; {WITHOUT}.")
]
Methods = Annotated[str, typer.Option(metavar="A,B", help="Only these methods.")]
Protocols = Annotated[str, typer.Option(metavar="P,Q", help="Only these protocols.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="Number of seeds, instead of the suite's.")]
Data = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Images of your own: a folder or a file of any known layout."),
]
Labels = Annotated[Path | None, typer.Option(metavar="CSV", help="Labels of the images in --data.")]
DataParams = Annotated[
    list[str] | None, typer.Option("--data-param", metavar="KEY=VALUE", help="A parameter of the dataset.")
]
Dataset = Annotated[str, typer.Option(metavar="KEY", help="Dataset that replaces the suite's, found in --data.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", metavar="FILE", help="A file that registers more.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where the report is written.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Devices = Annotated[
    int, typer.Option(min=1, help="Devices that share each training and evaluation, one process on each.")
]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes; 0 chooses by device and cores.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of each worker; 0 is one on a CPU.")]
Loaders = Annotated[
    int, typer.Option(min=0, help="Processes that decode images which do not fit into memory; 0 chooses by the cores.")
]
Force = Annotated[bool, typer.Option("--force", help="Evaluate the chosen cells again, from the stored encoders.")]
Calibrate = Annotated[bool, typer.Option(help="Measure this machine for what no earlier run tells the cost of.")]
Kind = Literal["methods", "protocols", "datasets", "backbones", "suites"]
NewKind = Literal["method", "protocol", "dataset"]
Origin = Literal["published", "measured", "both"]
Format = Literal["md", "csv", "latex", "json", "html"]

REPORT = "jointbench-report"
