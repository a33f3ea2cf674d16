"""CompressAI's `CompressionModel`, importable beside a CPU build of torch.

CompressAI imports torchvision, whose registry wheel registers its operators against a CUDA build. pixa uses none of
them, so declaring the two names that its import looks up is enough.
"""

import contextlib

import torch

_library = torch.library.Library("torchvision", "FRAGMENT")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    with contextlib.suppress(RuntimeError):  # a torchvision that matches torch has declared it
        _library.define(_schema)

from compressai.models.base import CompressionModel  # noqa: E402

__all__ = ["CompressionModel"]
