"""``bench data``: the training loader against cn-clip's, and the indexing of a TSV."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.core.bench.harness import Row, interleave, protocol, rate, report, require, run_bench, torch_threads
from zoo.core.bench.samples import SIZE, product_jpeg, queries, temporary_folder

BATCH_SIZE = 128
CONTEXT = 52  # cn-clip's tokens of a text
CROP_SCALE = (0.9, 1.0)
KINDS: dict[str, dict[str, Any]] = {  # row → options of our data module
    "plain": {"crop_scale": (1.0, 1.0)},
    "crop + flip": {"crop_scale": CROP_SCALE, "flip": 0.5},
    "crop + flip + AutoAugment": {"crop_scale": CROP_SCALE, "flip": 0.5, "auto_augment": True},
}
WANTED = {"plain": 4.0, "crop + flip": 4.0, "crop + flip + AutoAugment": 1.5}
WANTED_FLOAT = 1.5


def main(argv: list[str]) -> int:
    """Run ``bench data``."""
    return run_bench("data", measure, argv)


def measure(*, images: int = 1024, index_megabytes: int = 1024, blocks: int = 5, output: str | None = None) -> None:
    """Measure the pairs a second that the training loader hands over, against cn-clip's.

    On one core: what our loader hands over, tokens included, and what cn-clip's LMDB loader does, from the same JPEGs
    of 224 px in MUGE's TSV, in batches of 128, one process, one thread. Then the indexing of a TSV. About three
    minutes.

    Args:
        images: Images, each with one query: the pairs of a block.
        index_megabytes: Size of the TSV to index, 10^6 bytes.
        blocks: Blocks of each contender.
        output: JSON file that rows and protocol are also written to.
    """
    require({"cn_clip": "cn-clip", "lmdb": "cn-clip"}, bench="bench data")
    with temporary_folder() as folder, torch_threads(1):
        print(f"bench data: making {images} images", file=sys.stderr, flush=True)
        made = [product_jpeg(seed) for seed in range(images)]
        write_muge(folder, made)
        build_lmdb(folder)
        rows = [row for kind in KINDS for row in loader_rows(kind, folder, blocks)]
        rows.append(index_row(folder, index_megabytes, blocks))
    sizes = sorted(4 * ((len(image) + 2) // 3) for image in made)
    metadata = protocol(
        packages=("cn-clip", "lmdb", "timm", "torchvision", "pillow", "simplejpeg", "pybase64"),
        images=f"{images} generated JPEGs of {SIZE} px, {sizes[0]:,}–{sizes[-1]:,} bytes of base64, median "
        f"{sizes[len(sizes) // 2]:,}; texts of 8–15 tokens",
        loaders=f"one process, one thread, batches of {BATCH_SIZE}, shuffled, from page cache",
        ours="uint8 pixels, flip and tokens counted; as float: normalised by the tower on the same core too",
        peer="cn-clip's LMDBDataset, normalised float and tokens; crop + flip without AutoAugment: torchvision, on PIL",
        blocks=f"{blocks} of one epoch each; of the index, one pass each",
    )
    report("data", rows, metadata, output=output)


# --- data ------------------------------------------------------------------------------------------------------------


def write_muge(folder: Path, images: list[bytes]) -> None:
    """Write the images and a query each, as MUGE's training split."""
    from zoo.data.formats import Query, write_image_tsv, write_queries

    root = folder / "Multimodal_Retrieval"
    write_image_tsv(root / "MR_train_imgs.tsv", enumerate(images))
    for split in ("train", "valid"):
        entries = [Query(index, text, (index,)) for index, text in enumerate(queries(len(images)))]
        write_queries(root / f"MR_{split}_queries.jsonl", entries if split == "train" else entries[:1])
    write_image_tsv(root / "MR_valid_imgs.tsv", enumerate(images[:1]))


def build_lmdb(folder: Path) -> None:
    """Write the same data into the two LMDB environments that cn-clip's own builder would make of them."""
    import lmdb

    from zoo.data.formats import read_queries
    from zoo.data.images import encode_base64
    from zoo.data.tsv import ImageTsv

    root = folder / "Multimodal_Retrieval"
    tsv = ImageTsv(root / "MR_train_imgs.tsv")
    images = {str(image_id): encode_base64(tsv[row]) for row, image_id in enumerate(tsv.ids)}
    texts = [(query.item_ids[0], query.query_id, query.text) for query in read_queries(root / "MR_train_queries.jsonl")]
    pairs = {str(index): pickle.dumps(pair) for index, pair in enumerate(texts)}
    for name, count_key, entries in (("imgs", "num_images", images), ("pairs", "num_samples", pairs)):
        path = folder / "lmdb" / name
        path.mkdir(parents=True)
        with lmdb.open(str(path), map_size=1 << 36) as environment, environment.begin(write=True) as transaction:
            for key, value in {**entries, count_key: str(len(entries)).encode()}.items():
                transaction.put(key.encode(), value)


# --- contenders ------------------------------------------------------------------------------------------------------


def loader_rows(kind: str, folder: Path, blocks: int) -> list[Row]:
    """Measure the two rows of one kind of augmentation: as handed over, and with normalisation counted."""
    rates = interleave(
        {
            "ours": rate(our_epoch(kind, folder, as_float=False)),
            "cn-clip": rate(peer_epoch(kind, folder)),
            "ours as float": rate(our_epoch(kind, folder, as_float=True)),
        },
        blocks=blocks,
        what=f"bench data: {kind}",
    )
    return [
        Row(kind, "pairs/s", rates, "ours", "cn-clip", WANTED[kind]),
        Row(kind, "pairs/s", rates, "ours as float", "cn-clip", WANTED_FLOAT),
    ]


def our_epoch(kind: str, folder: Path, *, as_float: bool) -> Callable[[], int]:
    """Build one epoch of our loader, the device's flip and the tokenizer's work included; it returns its pairs."""
    import torch

    from zoo.models.tokenizer import BertChineseTokenizer
    from zoo.registry import IMAGE_TOWERS
    from zoo.tasks.retrieval.data import RetrievalDataModule

    data = RetrievalDataModule(
        str(folder), image_size=SIZE, batch_size=_batch_size(folder), num_workers=0, seed=0, **KINDS[kind]
    )
    data.setup("fit")
    loader = data.train_dataloader()
    tokenizer = BertChineseTokenizer()
    with torch.device("meta"):  # for its mean and deviation only
        tower = IMAGE_TOWERS.build("vit_base_patch16_clip_quickgelu_224")

    def epoch() -> int:
        done = 0
        for handed_over in loader:
            batch = data.on_after_batch_transfer(handed_over, 0)
            tokenizer(batch["text"], context_length=CONTEXT)
            if as_float:
                tower.normalise(batch["image"])
            done += len(batch["text"])
        return done

    return epoch


def peer_epoch(kind: str, folder: Path) -> Callable[[], int]:
    """Build one epoch of cn-clip's data set behind a PyTorch loader; it returns its pairs."""
    from cn_clip.training.data import LMDBDataset
    from torch.utils.data import DataLoader

    augmented = kind.endswith("AutoAugment")
    dataset = LMDBDataset(
        str(folder / "lmdb"), split="train", max_txt_length=CONTEXT, use_augment=augmented, resolution=SIZE
    )
    if kind == "crop + flip":
        dataset.transform = crop_and_flip(dataset.transform)
    loader = DataLoader(dataset, batch_size=_batch_size(folder), shuffle=True, num_workers=0, drop_last=True)
    return lambda: sum(len(images) for images, _, _ in loader)


def crop_and_flip(plain: Any) -> Any:
    """Build cn-clip's plain transform with torchvision's crop and flip instead of its resize."""
    from torchvision.transforms import Compose, InterpolationMode, RandomHorizontalFlip, RandomResizedCrop

    crop = RandomResizedCrop(SIZE, scale=CROP_SCALE, interpolation=InterpolationMode.BICUBIC)
    return Compose([crop, RandomHorizontalFlip(), *plain.transforms[1:]])


def _batch_size(folder: Path) -> int:
    lines = (folder / "Multimodal_Retrieval" / "MR_train_queries.jsonl").read_bytes().count(b"\n")
    return min(BATCH_SIZE, lines)


def index_row(folder: Path, megabytes: int, blocks: int) -> Row:
    """Measure the gigabytes of TSV indexed a second, from page cache."""
    from zoo.data.tsv import build_index

    source = (folder / "Multimodal_Retrieval" / "MR_train_imgs.tsv").read_bytes().splitlines()
    payloads = [line.partition(b"\t")[2] for line in source]
    path = folder / "large.tsv"
    lines = megabytes * 10**6 // (sum(map(len, payloads)) // len(payloads) + 10) + 1
    with path.open("wb") as file:
        file.writelines(b"%d\t%s\n" % (10_000_000 + line, payloads[line % len(payloads)]) for line in range(lines))

    def index() -> float:
        build_index(path, "int")
        return path.stat().st_size / 1e9

    rates = interleave({"ours": rate(index)}, blocks=blocks, what="bench data: index")
    return Row(f"index of a TSV of {megabytes} MB", "GB/s", rates, "ours", None, 1.0)
