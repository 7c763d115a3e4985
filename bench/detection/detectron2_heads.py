"""The regions' head of detectors with a C4 backbone, as MoCo's transfer has it."""

from __future__ import annotations

from typing import Any

from detectron2.layers import get_norm
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from torch import nn


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):  # type: ignore[misc]
    """res5 on each region, followed by one more batch normalization.

    So MoCo's transfer has it (He et al. 2020, arXiv:1911.05722, section 4.2; facebookresearch/moco,
    detection/train_net.py, whose configurations name this class). ResNet-18 and -34 have a res5 of basic blocks, which
    Detectron2's own head does not build.
    """

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = super().from_config(cfg, input_shape)
        resnet = cfg.MODEL.RESNETS
        channels = 8 * resnet.RES2_OUT_CHANNELS
        blocks = list(arguments["res5"])
        if resnet.DEPTH in (18, 34):
            count = {18: 2, 34: 3}[resnet.DEPTH]
            blocks = ResNet.make_stage(
                BasicBlock,
                count,
                stride_per_block=[2] + [1] * (count - 1),
                in_channels=channels // 2,
                out_channels=channels,
                norm=resnet.NORM,
            )
        arguments["res5"] = nn.Sequential(*blocks)
        arguments["res5"].add_module("norm", get_norm(resnet.NORM, channels))
        return arguments
