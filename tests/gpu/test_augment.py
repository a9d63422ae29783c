"""AutoAugment on a pretended GPU, as the loader, Lightning and the data module hand a batch on."""

import lightning as L
import numpy as np
import pytest
import torch
from gpu.pretend_cuda import PretendTensor, pretend_cuda

from zoo.data.augment import auto_augment, draw_auto_augment
from zoo.data.augment_on_device import auto_augment_batch, plan
from zoo.tasks.retrieval.data import RetrievalDataModule


def epoch(root, folder, accelerator):
    """The batches of an epoch, and whether each came with a plan for the device."""
    data = RetrievalDataModule(str(root), image_size=48, batch_size=12, num_workers=0, flip=0.5, auto_augment=True)
    data.trainer = L.Trainer(accelerator=accelerator, devices=1, default_root_dir=folder, logger=False)
    data.setup("fit")
    for batch in data.train_dataloader():
        planned = "augment" in batch
        moved = data.transfer_batch_to_device(batch, data.trainer.strategy.root_device, 0)
        yield data.on_after_batch_transfer(moved, 0), planned


def test_a_gpu_makes_what_workers_make_and_the_host_never_waits(muge_root, tmp_path):
    expected = list(epoch(muge_root, tmp_path, "cpu"))
    with pretend_cuda() as gpu:
        found = list(epoch(muge_root, tmp_path, "gpu"))
        assert not gpu.waits
        for (ours, planned), (theirs, by_worker) in zip(found, expected, strict=True):
            assert (planned, by_worker) == (True, False)
            assert isinstance(ours["image"], PretendTensor)
            assert torch.equal(ours["image"].cpu(), theirs["image"])


@pytest.mark.gpu
def test_a_real_gpu_makes_what_pillow_makes_and_the_host_never_waits():
    images = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), dtype=np.uint8)
    images[:, :, :20] //= 3
    expected = np.stack([auto_augment(image, seed) for seed, image in enumerate(images)])
    planned = plan(draw_auto_augment(64, range(200)), 64)
    on_gpu = torch.from_numpy(images).permute(0, 3, 1, 2).cuda()
    planned = planned._replace(rows=planned.rows.cuda(), numbers=planned.numbers.cuda())
    try:
        torch.cuda.set_sync_debug_mode("error")
        found = auto_augment_batch(on_gpu, planned)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1).cpu().numpy(), expected)
