"""What a detector finds in the scenes of a split, in their own pixels."""

from __future__ import annotations

from contextlib import closing

import torch
import torch.distributed as dist

from bench.data.detection import DetectionSubset
from bench.detection.batches import evaluation_scenes
from bench.detection.detector import Detector, Found
from bench.detection.recipes import DetectionRecipe
from bench.training.distributed import process_count, process_rank


def detect_all(detector: Detector, subset: DetectionSubset, recipe: DetectionRecipe, *, device: str) -> list[Found]:
    """What is in each scene, in its original pixels and in the order of the subset.

    Every scene is judged alone. Several processes share the scenes, and all get everything.
    """
    count, rank = process_count(), process_rank()
    before = detector.training
    detector.eval()
    found: list[Found] = []
    own = evaluation_scenes(subset, recipe, range(rank, len(subset), count), device=device)
    with torch.no_grad(), closing(own) as scenes:
        for scene, original in scenes:
            found.append(detector.detect_at(scene, original))
    detector.train(before)
    if count == 1:
        return found
    parts: list[list[Found]] = [[] for _ in range(count)]
    dist.all_gather_object(parts, found)
    return [parts[index % count][index // count] for index in range(len(subset))]
