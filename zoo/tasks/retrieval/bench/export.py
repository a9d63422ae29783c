"""``bench export``: a model in ONNX and the same model in PyTorch, on the processor."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zoo.core.bench.harness import Row, interleave, protocol, rate, report, require, run_bench

BATCHES = (1, 32)


def main(argv: list[str]) -> int:
    """Run ``bench export``."""
    return run_bench("export", measure, argv)


def measure(
    *, checkpoint: str | None = None, layers: int = 12, blocks: int = 7, calls: int = 3, output: str | None = None
) -> None:
    """Measure the queries and images a second of exported graphs in onnxruntime, against PyTorch's.

    Texts are Chinese titles, tokens counted on both sides; images are uint8 of the model's size. In fp32, and texts
    with matrices of int8 too. Of a ViT-B/16 and RoBERTa base some minutes.

    Args:
        checkpoint: A trained model, as of ``export``. None: a ViT-B/16 and RoBERTa base with random weights.
        layers: Layers of each tower of that model.
        blocks: Blocks of each contender.
        calls: Calls in a block.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: onnxruntime is not installed, or the model cannot be exported.
    """
    require({"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}, bench="bench export")
    import torch

    import zoo
    from zoo.core.export import sample_images
    from zoo.tasks.retrieval.export.agreement import sample_texts
    from zoo.tasks.retrieval.export.onnx import OnnxFolder, OnnxInt8, Runtime

    if checkpoint is None:
        task = zoo.RetrievalTask(image_tower_options={"num_layers": layers}, text_tower_options={"num_layers": layers})
    else:
        task = zoo.load(checkpoint)
    task = task.eval().requires_grad_(False)
    OnnxFolder().check(task)
    texts = (sample_texts(8) * 4)[: max(BATCHES)]
    images = task.image_tower.preprocess((sample_images(task.image_size, 8) * 4)[: max(BATCHES)])
    rows = []
    with TemporaryDirectory() as place, torch.inference_mode():
        runtimes = {}
        for name, exporter in (("ONNX", OnnxFolder()), ("ONNX int8", OnnxInt8())):
            folder = Path(place) / name
            folder.mkdir()
            exporter.write(task, folder)
            runtimes[name] = Runtime(folder, task)
        of_texts = {name: runtime.texts for name, runtime in runtimes.items()} | {"PyTorch": task.encode_text}
        of_images = {"ONNX": runtimes["ONNX"].images, "PyTorch": task.encode_image}  # int8 leaves the images' graph
        for count in BATCHES:
            for what, unit, inputs, embedders in (
                (f"texts by {count}", "queries/s", texts[:count], of_texts),
                (f"images by {count}", "images/s", images[:count], of_images),
            ):
                timed = {name: _timed(embed, inputs, calls) for name, embed in embedders.items()}
                rates = interleave(timed, blocks=blocks, what=f"bench export, {what}")
                rows += [Row(what, unit, rates, name, "PyTorch", 1.0) for name in embedders if name != "PyTorch"]
    metadata = protocol(
        packages=("onnx", "onnxruntime", "timm", "transformers"),
        model=f"{task.hparams['image_tower']} at {task.image_size} px, {task.hparams['text_tower']}, fp32"
        + ("" if checkpoint else f", {layers} layers, random weights"),
        threads=torch.get_num_threads(),
        blocks=f"{blocks} of {calls} calls each",
    )
    report("export", rows, metadata, output=output)


def _timed(embed: Callable[[Any], Any], inputs: Any, calls: int) -> Callable[[], float]:
    """How many inputs a second are embedded."""
    return rate(lambda: sum(len(embed(inputs)) for _ in range(calls)))
