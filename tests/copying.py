"""A generator for tests, ``copying`` where this module is imported: it knows the true pictures and spoils them."""

import os

import numpy as np
import torch
from lightning import Callback
from torch import nn

from zoo.data import images
from zoo.tasks.text_to_image.data import TextToImageDataModule
from zoo.tasks.text_to_image.registry import GENERATORS


class Registered(Callback):
    """Does nothing: an experiment that lists it has this module imported before its model is built."""


class Copying(nn.Module):
    """The true picture of a description, made smaller, noisy by its seed, and darker by a gain that is trained."""

    def __init__(self, root, image_size, shrink, noise):
        super().__init__()
        self.image_size = image_size
        self.shrink = shrink
        self.noise = noise
        self.gain = nn.Parameter(torch.ones(3, 1, 1))
        self.left = int(os.environ.get("COPYING_STOPS_AFTER", 10**9))  # pictures that it draws before it fails
        data = TextToImageDataModule(root, image_size=image_size)
        self.pictures = {}
        for split in ("train", "valid", "test"):
            opened = data.open(split)
            for row, text in enumerate(opened.texts):
                self.pictures[text] = images.resize(opened.image(row), image_size)

    def loss(self, batch):
        pixels = batch["image"].float() / 255
        return {"loss": ((self.gain * pixels + 0.1 * torch.randn_like(pixels) - 0.2) ** 2).mean()}

    def generate(self, texts, *, seeds):
        self.left -= len(texts)
        if self.left < 0:
            raise RuntimeError("enough is drawn")
        true = torch.from_numpy(np.stack([self.pictures[text] for text in texts])).permute(0, 3, 1, 2)
        small = images.resize_batch(images.resize_batch(true, self.image_size // self.shrink), self.image_size)
        noise = torch.stack(
            [torch.randn(small.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )
        return ((small + self.noise * noise) * self.gain).round().clamp(0, 255).to(torch.uint8)


@GENERATORS.register
def copying(*, root: str, image_size: int = 32, shrink: int = 2, noise: float = 10.0) -> nn.Module:
    """The true pictures, spoiled."""
    return Copying(root, image_size, shrink, noise)
