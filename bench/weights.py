"""Files of weights and the store: imported encoders by name, and any stored encoder for export.

An imported encoder is three things in the store: its weights as an object, a record that a suite shows it under a name
on these data, and, once it is evaluated, rows like those of any method.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch

from bench.data.sources import DataSource
from bench.encoders.build import build_backbone
from bench.encoders.exports import Export
from bench.encoders.imports import ImportedEncoder, Wish, import_encoder
from bench.errors import DataError, RequestError, StoreError, UnknownNameError
from bench.request import Request, default_cache
from bench.spec import IMPORTED, PretrainSpec
from bench.suite import Candidate, Component

if TYPE_CHECKING:
    from bench.store import Store

SHORTEST_PREFIX = 6
"""Characters of an identity that name it."""


def remember_import(
    request: Request, encoder: ImportedEncoder, name: str, *, image_size: int = 0, replace: bool = False
) -> Candidate:
    """Keep the encoder in the request's store and let its suite show it, on its data, from now on.

    Args:
        name: what tables call it.
        image_size: side in pixels that images are resized to; 0 leaves that to the encoder.
        replace: give the name to this encoder in every suite where another one has it.

    Raises:
        RequestError: the name cannot be used, or another encoder has it.
    """
    check_name(name)
    candidate = Candidate(
        method=IMPORTED,
        variant=name,
        backbone=Component(key=encoder.backbone, params=dict(encoder.backbone_params)),
        params=encoder.method_params(image_size=image_size),
    )
    store: Store = request.results
    places = {request.place}
    for record in store.imports():
        if _words(record["name"]) != _words(name):
            continue
        if record["name"] != name:
            raise RequestError(
                f"--name {name!r}: the store has {record['name']!r}, and reports tell names apart by letters and "
                "digits alone. Choose another --name."
            )
        if Candidate.model_validate(record["candidate"]) != candidate:
            _check_replaceable(record, candidate, replace=replace)
            places.add((record["suite"], record["data"]))
    store.write_object(encoder.weights())
    for suite, data in sorted(places):
        store.write_import({"suite": suite, "data": data, "name": name, "candidate": candidate.model_dump(mode="json")})
    return candidate


def check_name(name: str) -> None:
    """Refuse what addresses and options could not hold (RequestError)."""
    if not re.fullmatch(r"\w[\w .+=@-]*", name) or name != name.strip():
        raise RequestError(
            f"--name {name!r}: use letters, digits, blanks and . + = @ - _, beginning with a letter or a digit."
        )


def _check_replaceable(record: dict[str, Any], candidate: Candidate, *, replace: bool) -> None:
    if replace:
        return
    held = record["candidate"]["params"]
    what = "another file" if held.get("file") != candidate.params["file"] else "this file with other settings"
    raise RequestError(
        f"--name {record['name']!r} stands for {what} in this store (file {str(held.get('file'))[:12]}, suite "
        f"{record['suite']}). Choose another --name, or add --replace; its values will then be computed anew."
    )


def _words(name: str) -> str:
    return " ".join(re.findall(r"\w+", name))


# --- export -----------------------------------------------------------------------------------------------------


def find_export(request: Request, what: str, wish: Wish) -> Export:
    """The encoder to export.

    Args:
        request: names the store, the suite, and the data whose statistics a trained encoder expects.
        what: a file of weights; or a stored encoder by its method, the user's name, its address, or the first
            characters of its identity.
        wish: how to read a file.

    Raises:
        RequestError: nothing, or more than one encoder, is meant.
        StoreError: the store lacks its weights.
        DataError: the data that it was trained on have changed.
    """
    if Path(what).is_file():
        found = import_encoder(Path(what), request.catalog.backbones, wish)
        facts = {name: value for name, value in vars(found).items() if name in Export.__dataclass_fields__}
        return Export(**facts, origin=f"imported from a file ({found.layout})")
    row = _find_row(request, what)
    spec = PretrainSpec.from_json(str(row["spec"]))
    stored = request.results.pretrained(str(row["identity"]))
    if stored is None:
        raise StoreError(f"The store has no weights of {row['cell']}. Compute it again: jointbench run {row['suite']}.")
    facts = _contract(request, spec, str(row["data_hash"]))
    module = build_backbone(
        request.catalog.backbones[spec.backbone], spec.backbone_params, channels=facts["channels"], seed=spec.seed
    )
    tensors = safetensors.torch.load(stored[1])
    module.load_state_dict(
        {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    )
    return Export(
        module=module.eval(),
        backbone=spec.backbone,
        backbone_params=spec.backbone_params,
        origin=f"{spec.name} on {spec.trained_on}, seed {spec.seed}",
        **facts,
    )


def _contract(request: Request, spec: PretrainSpec, data_hash: str) -> dict[str, Any]:
    """What the encoder expects of images: of an imported one as its parameters say, else as its data were."""
    if spec.imported:
        given = spec.method_params
        return {
            "channels": int(given["channels"]),
            "mean": tuple(given["mean"]),
            "std": tuple(given["std"]),
            "image_size": int(given["image_size"]),
        }
    data = DataSource(request.catalog.datasets, root=request.root, cache=default_cache()).load(spec.data)
    if data.fingerprint != data_hash:
        raise DataError(
            f"{spec.data.label} is no longer what the encoder was trained on, so its normalization is not known. "
            "Give the data of the run with --data, or run again."
        )
    mean, std = data.channel_statistics
    height, width = data.image_size
    return {"channels": data.channels, "mean": mean, "std": std, "image_size": height if height == width else 0}


def _find_row(request: Request, what: str) -> dict[str, Any]:
    """The newest row of the one pre-training that is meant."""
    rows = request.results.frame()
    done = rows[(rows["kind"] == "pretraining") & (rows["status"] == "ok") & (rows["suite"] == request.place[0])]
    newest = done.sort_values("finished_at", kind="stable").drop_duplicates("cell", keep="last")
    exact = newest[newest["cell"] == what]
    if exact.empty and len(what) >= SHORTEST_PREFIX:
        exact = done[done["identity"].str.startswith(what)]
    found = exact if not exact.empty else newest[[what in _names(spec) for spec in newest["spec"]]]
    if found.empty:
        known = sorted({name for spec in newest["spec"] for name in _names(spec)} | set(newest["cell"]))
        hint = f"These are finished in suite {request.place[0]}; --suite names another, and a file must exist."
        raise UnknownNameError("stored encoder", what, known, hint=hint)
    if len(found) > 1:
        raise RequestError(f"{what!r} names {len(found)} encoders: {', '.join(sorted(found['cell']))}. Name one.")
    return {str(name): value for name, value in found.to_dict("records")[0].items()}


def _names(text: str) -> set[str]:
    spec = PretrainSpec.from_json(text)
    return {spec.name, *([spec.variant] if spec.imported else [])}
