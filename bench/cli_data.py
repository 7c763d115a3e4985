"""The commands ``jointbench data …``: examine images of your own, and keep them under a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli_options import DataParams, Labels, Plugins

if TYPE_CHECKING:
    from bench.choice import Choice
    from bench.data.examination import Examination, LabelCount, Remark
    from bench.registry import Catalog

data_app = typer.Typer(help="Examine images of your own, and keep them under a name.", no_args_is_help=True)

MOST_CLASSES = 40
"""Classes that the table shows; of more it shows the rarest and the most frequent."""
MOST_OFFENDERS = 200
OBJECT_KINDS = {
    "small": "small (area below 32²)",
    "medium": "medium",
    "large": "large (above 96²)",
    "difficult": "difficult",
    "crowd": "crowds",
    "dropped": "left out",
    "empty": "images without an object",
}
"""Counts of objects, and what a line calls them."""
Name = Annotated[str, typer.Argument(metavar="NAME", help="What `--dataset` will call them.")]
AllowLeakage = Annotated[
    bool, typer.Option("--allow-leakage", help="Keep them although their splits share images or patients.")
]


@data_app.command()
def doctor(
    what: Annotated[
        str, typer.Argument(metavar="PATH|NAME|KEY", help="A folder, a file, a name of yours, or a dataset's key.")
    ],
    labels: Labels = None,
    data_param: DataParams = None,
    plugin: Plugins = None,
) -> None:
    """Count and compare all images; exit code 1 when splits share images or patients, or something else is wrong."""
    from bench.registry import discover

    catalog = discover(plugin or ())
    found = _examined(catalog, _named(catalog, what, labels, data_param or []))
    _print_examination(found)
    if found.problems:
        raise typer.Exit(1)


@data_app.command()
def add(
    name: Name,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder or file of any known layout.")],
    labels: Labels = None,
    data_param: DataParams = None,
    allow_leakage: AllowLeakage = False,  # noqa: FBT002 (Typer passes options by name)
    plugin: Plugins = None,
) -> None:
    """Examine images and keep them under a name: `jointbench run --dataset NAME` then works from anywhere."""
    from bench.choice import choose
    from bench.collection import Collection, Named
    from bench.errors import DataError
    from bench.registry import discover
    from bench.spec import DataSpec

    catalog, collection = discover(plugin or ()), Collection()
    collection.check(name, registered=catalog.datasets)
    chosen = choose(catalog.datasets, data=path, dataset="", labels=labels, params=data_param or [])
    assert chosen.spec is not None and chosen.root is not None
    found = _examined(catalog, chosen)
    _print_examination(found)
    if found.leakage and not allow_leakage:
        raise DataError(
            f"{path} is not kept: its splits share images or patients (above). Mend it, or add --allow-leakage to "
            "measure on these splits nevertheless."
        )
    parameters = catalog.datasets[chosen.spec.key].parameters
    own = {"name": name, **({"allow_leakage": True} if allow_leakage else {})}
    params = {**chosen.spec.params, **{key: value for key, value in own.items() if key in parameters}}
    kept = Named(root=str(chosen.root.resolve()), data=DataSpec(key=chosen.spec.key, params=params))
    collection.add(name, kept, registered=catalog.datasets)
    print(f"\nKept as {name}: jointbench run --dataset {name}")


@data_app.command("list")
def list_sets() -> None:
    """List the images that are kept under a name."""
    lines = kept_lines()
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        print(f"{name:<{width}}  {text}")
    if not lines:
        print("None yet: jointbench data add NAME PATH")


@data_app.command()
def remove(name: Name) -> None:
    """Forget a name; the images stay where they are."""
    from bench.collection import Collection

    Collection().remove(name)
    print(f"{name} is forgotten; its images are untouched.")


def kept_lines() -> list[tuple[str, str]]:
    """Name and description of each set that the user keeps."""
    from bench.choice import words_of
    from bench.collection import Collection

    return [
        (name, f"yours: {held.root} ({held.data.key}) {words_of(held.data.params)}".rstrip())
        for name, held in Collection().sets().items()
    ]


def _named(catalog: Catalog, what: str, labels: Path | None, params: list[str]) -> Choice:
    """A name of the user's or a key comes before a path, which can always be written with ``./``."""
    from bench.choice import choose
    from bench.collection import Collection

    is_name = what in catalog.datasets or what in Collection().sets()
    return choose(
        catalog.datasets,
        data=None if is_name else Path(what),
        dataset=what if is_name else "",
        labels=labels,
        params=params,
    )


def _examined(catalog: Catalog, chosen: Choice) -> Examination:
    """Read the set anew, as it would be used; one that is refused for what it shares is read with all its leaks."""
    from bench.data.examination import examine
    from bench.data.sources import DataSource
    from bench.errors import DataError
    from bench.request import default_cache
    from bench.spec import DataSpec

    assert chosen.spec is not None
    source = DataSource(catalog.datasets, root=chosen.root, cache=default_cache())
    try:
        return examine(source.unchecked(chosen.spec))
    except DataError:
        if "allow_leakage" not in catalog.datasets[chosen.spec.key].parameters:
            raise
        allowed = {**chosen.spec.params, "allow_leakage": True}
        found = examine(source.unchecked(DataSpec(key=chosen.spec.key, params=allowed)))
        if not found.leakage:
            raise
        return found


def _print_examination(found: Examination) -> None:
    size = f"{found.image_size[1]}×{found.image_size[0]}"
    if found.original_sizes:
        small, large = (f"{width}×{height}" for width, height in found.original_sizes)
        size += f" (files {small})" if small == large else f" (files {small} to {large})"
    color = {1: "gray", 3: "color"}.get(found.channels, f"{found.channels} channels")
    kind = "findings" if found.multilabel and not found.objects else "classes"
    print(f"{found.title} ({found.key}): {sum(found.images.values())} images, {len(found.class_names)} {kind}")
    print(f"{size} pixels, {found.bits} bits, {color}\n")
    for line in _aligned([*_rows(found), *_object_rows(found)]):
        print(line)
    for heading, remarks in (("Notes", found.notes), ("Problems", found.problems)):
        if remarks:
            print(f"\n{heading}")
        for remark in remarks:
            _print_remark(remark)
    if not found.problems:
        print("\nNo problems: no image, patient or study is shared between splits.")


def _object_rows(found: Examination) -> Iterator[list[str]]:
    """Objects of each class, and of each size in COCO's sense; kinds that no split has are left out."""
    counts = list(found.objects.values())
    if not counts:
        return
    yield []
    yield ["objects", *(str(count.total) for count in counts)]
    order = sorted(range(len(found.class_names)), key=lambda k: -sum(count.classes[k] for count in counts))
    for number in order[:MOST_CLASSES]:
        yield [found.class_names[number], *(str(count.classes[number]) for count in counts)]
    if rest := order[MOST_CLASSES:]:
        yield [f"… {len(rest)} more …", *(str(sum(count.classes[k] for k in rest)) for count in counts)]
    for name, words in OBJECT_KINDS.items():
        numbers = [int(getattr(count, name)) for count in counts]
        if any(numbers):
            yield [words, *map(str, numbers)]


def _print_remark(remark: Remark) -> None:
    print(f"- {remark.text}{':' if remark.offenders else '.'}")
    for offender in remark.offenders[:MOST_OFFENDERS]:
        print(f"    {offender}")
    if (rest := len(remark.offenders) - MOST_OFFENDERS) > 0:
        print(f"    and {rest} more")


def _rows(found: Examination) -> Iterator[list[str]]:
    splits = list(found.images)
    yield ["", *splits]
    yield ["images", *(str(found.images[split]) for split in splits)]
    for column, counts in found.identities.items():
        plural = "studies" if column == "study" else f"{column}s"
        yield [plural, *(str(counts[split]) for split in splits)]
    if found.unidentified:
        yield ["images without a patient", str(found.unidentified)]
    yield []
    labels = sorted(found.labels, key=lambda count: -sum(count.present.values()))
    if len(labels) > MOST_CLASSES:
        rest = labels[MOST_CLASSES // 2 : -MOST_CLASSES // 2]
        shown = [labels[: MOST_CLASSES // 2], labels[-MOST_CLASSES // 2 :]]
        yield from (_label_row(count, found) for count in shown[0])
        yield [f"… {len(rest)} more …"]
        yield from (_label_row(count, found) for count in shown[1])
    else:
        yield from (_label_row(count, found) for count in (labels if found.multilabel else found.labels))


def _label_row(count: LabelCount, found: Examination) -> list[str]:
    return [count.name, *(_share(count, split, found.images) for split in found.images)]


def _share(count: LabelCount, split: str, images: Mapping[str, int]) -> str:
    """Images of the class, or with the finding, and their share of those that say whether they have it."""
    known = images[split] - count.unknown[split] - count.uncertain[split]
    if not known:
        return "–"
    text = f"{count.present[split]} ({100 * count.present[split] / known:.1f} %)"
    doubts = [f"{number} {word}" for word, number in _doubts(count, split) if number]
    return ", ".join([text, *doubts])


def _doubts(count: LabelCount, split: str) -> tuple[tuple[str, int], ...]:
    return (("uncertain", count.uncertain[split]), ("unknown", count.unknown[split]))


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[index]) for row in rows if len(row) > index) for index in range(max(map(len, rows)))]
    for row in rows:
        first, *rest = row or [""]
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=False))
        yield f"{first:<{widths[0]}}  {'  '.join(cells)}".rstrip()
