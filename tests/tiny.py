"""What is small enough for tests: a data set in MUGE's files, a matcher, an experiment."""

import hashlib
import io

from PIL import Image, ImageDraw

COLOURS = {
    "红色": "#d62828",
    "绿色": "#2a9d3f",
    "蓝色": "#2456c8",
    "黄色": "#f2c230",
    "黑色": "#1d1d1d",
    "紫色": "#7b3fa0",
}
SHAPES = {"方块": "rectangle", "圆球": "ellipse", "十字": "cross", "条纹": "stripes"}


def write_muge(root, *, apart=False):
    """Write coloured shapes, 24 to train on, 12 to validate, 12 to test, into ``root``, which is given back.

    Queries name one picture (蓝色圆球) or all of a colour (蓝色); the answers of the test split lie beside it.
    Text to image has as many descriptions (蓝色圆球), pictures in another order than the texts, also of the test split.
    Captioning has as many pictures, with one to three references each (蓝色圆球, 一个蓝色圆球, …).

    Texts are in several splits, as ``data check`` does not like; with ``apart`` each split has its own.
    """
    from zoo.data.formats import Query, write_captions, write_image_tsv, write_queries, write_text_tsv

    folder = root / "Multimodal_Retrieval"
    for number, (split, colours) in enumerate([("train", 6), ("valid", 3), ("test", 3)], start=1):
        pictures = {
            1000 * number + place: (colour, shape)
            for place, (colour, shape) in enumerate((c, s) for c in list(COLOURS)[-colours:] for s in SHAPES)
        }
        word = {"train": "", "valid": "新款", "test": "大号"}[split] if apart else ""
        names = {id_: f"{word}{colour}{shape}" for id_, (colour, shape) in pictures.items()}
        write_image_tsv(folder / f"MR_{split}_imgs.tsv", ((id_, draw(id_, *what)) for id_, what in pictures.items()))
        texts = [*dict.fromkeys(f"{word}{colour}" for colour, _ in pictures.values()), *names.values()]
        queries = [
            Query(100 * number + place, text, tuple(id_ for id_, name in names.items() if name.startswith(text)))
            for place, text in enumerate(texts)
        ]
        if split == "test":
            write_queries(folder / "MR_test_answers.jsonl", queries)
            queries = [Query(query.query_id, query.text) for query in queries]
        write_queries(folder / f"MR_{split}_queries.jsonl", queries)
        keys = {hashlib.md5(str(id_).encode()).hexdigest(): id_ for id_ in pictures}
        encoded = [(key, draw(keys[key], *pictures[keys[key]])) for key in sorted(keys)]
        beginning = root / "ECommerce-T2I" / f"T2I_{'val' if split == 'valid' else split}"
        write_text_tsv(f"{beginning}.txt.tsv", ((key, names[id_]) for key, id_ in keys.items()))
        write_image_tsv(f"{beginning}.img.tsv", encoded)
        captions = {
            key: [f"{before}{names[id_]}" for before in ("", "一个", "漂亮的")][: 1 + id_ % 3]
            for key, id_ in keys.items()
        }
        beginning = root / "ECommerce-IC" / f"IC_{split}"
        write_image_tsv(f"{beginning}.tsv", encoded)
        if split == "test":
            write_captions(f"{beginning}_answers.jsonl", captions.items())
            captions = dict.fromkeys(captions, [])
        write_captions(f"{beginning}.jsonl", captions.items())
    return root


def draw(seed, colour, shape):
    """One picture, JPEG or PNG, a little different for every seed."""
    width, height, margin = 32 + seed % 7, 30 + seed % 5, 5 + seed % 3
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    box, fill = (margin, margin, width - margin, height - margin), COLOURS[colour]
    if SHAPES[shape] in ("rectangle", "ellipse"):
        getattr(pen, SHAPES[shape])(box, fill=fill)
    if SHAPES[shape] == "cross":
        pen.line((box[0], box[1], box[2], box[3]), fill=fill, width=5)
        pen.line((box[0], box[3], box[2], box[1]), fill=fill, width=5)
    if SHAPES[shape] == "stripes":
        for top in range(margin, height - margin, 6):
            pen.rectangle((margin, top, width - margin, top + 2), fill=fill)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG" if seed % 2 else "PNG")
    return encoded.getvalue()


def write_matcher(path, *, seed=0, **changes):
    """Write a retrieval checkpoint with random weights; its path is given back."""
    from zoo.tasks import RetrievalTask

    options = {
        "image_tower": "timm:test_vit",
        "image_tower_options": {"image_size": 32},
        "image_pretrained": False,
        "text_tower": "bert_tiny_chinese",
        "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
        "embedding_dim": 16,
    }
    return write_task(path, RetrievalTask, {**options, **changes}, seed=seed)


def write_task(path, kind, options, *, seed=0):
    """Write a checkpoint of any task with random weights; its path is given back."""
    import torch

    torch.manual_seed(seed)
    task = kind(**options)
    contents = {"state_dict": task.state_dict(), "hyper_parameters": options, "global_step": 0}
    task.on_save_checkpoint(contents)
    torch.save(contents, path)
    return path


EXPERIMENT = """\
model:
  class_path: RetrievalTask
  init_args:
    image_tower: timm:test_vit
    image_tower_options: {image_size: 32}
    text_tower: bert_tiny_chinese
    text_tower_options: {width: 32, num_layers: 1, num_heads: 2}
    image_pretrained: false
    text_pretrained: false
    embedding_dim: 16
    learning_rate: 1e-3
    optimizer: {warmup_steps: 2}
    evaluation: {grid_queries: 0}
data:
  class_path: RetrievalDataModule
  init_args: {root: ROOT, batch_size: 16, num_workers: 0}
trainer:
  accelerator: cpu
  precision: 32-true
  max_epochs: 2
  log_every_n_steps: 1
  enable_model_summary: false
"""
