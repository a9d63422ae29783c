"""Where the probes of attribute accuracy learn."""

from typing import Any

import torch

from zoo.data.attributes import attributes_path
from zoo.data.layouts import ECOMMERCE_T2I
from zoo.tasks.text_to_image.corruptions import degraded
from zoo.tasks.text_to_image.data import TextToImageDataModule
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors, true_features
from zoo.tasks.text_to_image.metrics.attribute_accuracy import Probes

SCORER = "scorer"  # a folder beside a task's: images and texts that only scorers learn from


def train_probes(extractors: FeatureExtractors, data: TextToImageDataModule, **processes: Any) -> Probes | None:
    """Train probes on features of images as they are, and blurred and noisy, as generated ones may be.

    The images are the training images of the folder ``scorer`` beside the task's own, where there is one that says what
    images show: scorers that have not seen what they score. Else they are those of the task's own folder.

    Args:
        extractors: Whose features, those that ``probed`` names.
        data: Whose folder, and at which image size.
        **processes: ``agree`` and ``write`` of ``true_features``.

    Returns:
        The probes; None where no training image says what it shows.
    """
    folders = (data.folder.parent / SCORER / ECOMMERCE_T2I.folder, data.folder)
    folder = next((each for each in folders if attributes_path(each, "train").is_file()), None)
    if folder is None:
        return None
    source = TextToImageDataModule(
        str(folder),
        image_size=data.image_size,
        eval_batch_size=data.eval_batch_size,
        num_workers=data.num_workers,
    )
    source.trainer = data.trainer
    shown, name = source.targets("train").shown, extractors.probed
    assert shown is not None
    features = [
        true_features(extractors, source, "train", names=[name], corrupt=corrupt, **processes)[name]
        for corrupt in (None, degraded)
    ]
    return Probes(torch.cat(features), shown.attributes * len(features))
