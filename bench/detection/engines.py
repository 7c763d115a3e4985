"""The engines by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.detection.detector import Built, Task


def build(engine: str, task: Task) -> Built:
    """A detector of the engine, ready to train.

    Raises:
        SpecError, CheckpointError: it cannot use the encoder; the message lists why.
    """
    if engine == "detectron2":
        from bench.detection.detectron2_engine import build_detectron2

        return build_detectron2(task)
    if task.recipe.architecture == "single_stage":
        from bench.detection.single_stage import build_single_stage

        return build_single_stage(task)
    from bench.detection.faster_rcnn import build_faster_rcnn

    return build_faster_rcnn(task)
