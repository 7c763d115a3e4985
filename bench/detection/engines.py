"""The engines by name; one that is not installed says how to get it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from bench.errors import JobError

if TYPE_CHECKING:
    from bench.detection.detector import Built, Task

DETECTRON2_ADVICE = (
    "engine: detectron2 needs Detectron2, which is not installed. Install it from its repository as its INSTALL.md "
    "says (python -m pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git', with "
    "torch installed first), or choose engine: torchvision."
)


def build(engine: str, task: Task) -> Built:
    """A detector of the engine, ready to train.

    Raises:
        JobError: the engine is not installed.
        SpecError, CheckpointError: it cannot use the encoder; the message lists why.
    """
    if engine == "detectron2":
        if importlib.util.find_spec("detectron2") is None:
            raise JobError(DETECTRON2_ADVICE)
        from bench.detection.detectron2_engine import build_detectron2

        return build_detectron2(task)
    if task.recipe.architecture == "single_stage":
        from bench.detection.single_stage import build_single_stage

        return build_single_stage(task)
    from bench.detection.faster_rcnn import build_faster_rcnn

    return build_faster_rcnn(task)
