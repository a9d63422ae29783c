"""What a processor computes well: what it reports, and what PyTorch's libraries use of that."""

import os
import subprocess
import sys

import pytest
import torch

from zoo.core.hardware import best_precision, bfloat16_units


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("used", [True, False])
def test_bfloat16_is_for_processors_that_report_it_and_libraries_that_use_it(monkeypatch, reported, used):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: reported)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: used)
    assert bfloat16_units() == (["AVX512-BF16"] if reported and used else [])
    assert best_precision() == ("bf16-mixed" if reported and used else "32-true")


def test_a_processor_held_to_avx2_does_not_train_in_bfloat16():
    code = "from zoo.core.hardware import best_precision; print(best_precision())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "CUDA_VISIBLE_DEVICES": ""}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "32-true"
