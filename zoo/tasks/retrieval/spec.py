"""What the retrieval task tells the rest of zoo."""

from zoo.spec import Command, TaskSpec

SPEC = TaskSpec(
    name="retrieval",
    task="zoo.tasks.retrieval.task:RetrievalTask",
    data="zoo.tasks.retrieval.data:RetrievalDataModule",
    files="zoo.data.layouts:MULTIMODAL_RETRIEVAL",
    callbacks=(
        "zoo.tasks.retrieval.evaluation:RetrievalEvaluation",
        "zoo.tasks.retrieval.submission:RetrievalSubmission",
        "zoo.tasks.retrieval.collapse_alarm:CollapseAlarm",
        "zoo.tasks.retrieval.hard_negatives:HardNegatives",
        "zoo.tasks.retrieval.zero_shot:ZeroShotGuard",
    ),
    registries=("zoo.tasks.retrieval.registry:LOSSES",),
    metrics=("zoo.tasks.retrieval.metrics:RetrievalRecall",),
    monitors={name: "max" for name in ("val/mean_recall", "val/recall@1", "val/recall@5", "val/recall@10")},
    results=("zoo.tasks.retrieval.results:RESULTS",),
    scorings={"retrieval": Command("zoo.tasks.retrieval.scoring:main", "Recall@1/5/10 and MeanRecall")},
    commands={
        "embed": Command("zoo.tasks.retrieval.search.embed:main", "embed a shop's products, for a search"),
        "index": Command("zoo.tasks.retrieval.search.index:main", "make embeddings searchable: LanceDB, Milvus"),
        "search": Command("zoo.tasks.retrieval.search.search:main", "find products by text, image or both"),
        "serve": Command("zoo.tasks.retrieval.search.serve:main", "serve a search page and its REST interface"),
    },
    benches={
        "data": Command(
            "zoo.tasks.retrieval.bench.data:main", "the training loader and cn-clip's; the indexing of a TSV"
        ),
        "eval": Command(
            "zoo.tasks.retrieval.bench.eval:main", "the exact ranking and the bare matrix product, faiss, cn-clip"
        ),
        "step": Command(
            "zoo.tasks.retrieval.bench.step:main", "a ViT-B/16 training step and those of cn-clip and open_clip"
        ),
        "export": Command("zoo.tasks.retrieval.bench.export:main", "an exported ONNX model and the same in PyTorch"),
        "gpu": Command("zoo.tasks.retrieval.bench.gpu:main", "a training step on a GPU and open_clip's; what feeds it"),
        "memory": Command(
            "zoo.tasks.retrieval.bench.memory:main", "the peak memory of a step, in chunks and kept whole"
        ),
        "search": Command("zoo.tasks.retrieval.bench.search:main", "an index of products and the exact ranking"),
        "serve": Command("zoo.tasks.retrieval.bench.serve:main", "a product search under the requests of 20 clients"),
    },
    exports={
        "transformers": "zoo.tasks.retrieval.export.transformers:TransformersFolder",
        "sentence_transformers": "zoo.tasks.retrieval.export.sentence_transformers:SentenceTransformersFolder",
        "cn_clip": "zoo.tasks.retrieval.export.cn_clip:CnClipFile",
        "open_clip": "zoo.tasks.retrieval.export.open_clip:OpenClipFolder",
        "onnx": "zoo.tasks.retrieval.export.onnx:OnnxFolder",
        "onnx_fp16": "zoo.tasks.retrieval.export.onnx:OnnxHalf",
        "onnx_int8": "zoo.tasks.retrieval.export.onnx:OnnxInt8",
    },
    published=(
        "zoo.tasks.retrieval.published:read_cn_clip",
        "zoo.tasks.retrieval.published:read_embedder",
        "zoo.tasks.retrieval.published:read_transformers",
        "zoo.tasks.retrieval.published:read_open_clip",
    ),
    hub_task="zero-shot-image-classification",
    example='vectors = task.encode_text(["红色连衣裙"])',
)
