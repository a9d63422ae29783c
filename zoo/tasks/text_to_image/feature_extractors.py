"""The networks that extract features of generated images: Inception, a matcher of images and texts, any image tower."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.core.checkpoint import load
from zoo.core.collected import CollectedRows
from zoo.core.precision import full_float32
from zoo.core.weights import load_pretrained, read_torch, weights_hash
from zoo.data.images import resize_batch
from zoo.errors import UserError
from zoo.io import atomic_write, cache_folder
from zoo.registry import IMAGE_TOWERS
from zoo.tasks.text_to_image.contracts import GenerationData, GenerationTargets
from zoo.tasks.text_to_image.corruptions import Corrupt
from zoo.tasks.text_to_image.inception import NoInceptionError, load_inception

STAGES = "stages"


@dataclass(frozen=True)
class FeatureExtractor:
    """One network and what is asked of it."""

    name: str  # of its features in the names of numbers: ``inception``, ``clip``, a tower's name
    width: int  # of its features
    hash: str  # of its weights
    resize: str  # what is done to an image before
    network: Any


class FeatureExtractors:
    """The networks that are there, asked together.

    Args:
        inception: torch-fidelity's Inception, which FID, KID and IS are of: ``auto`` takes its weights from the cache
            or a download and otherwise does without; ``none`` does without; or their file.
        matcher: A retrieval checkpoint, a run's folder, an experiment's (its newest run), a CN-CLIP file or a hub name:
            R-precision, and the ``clip`` features. None does without.
        features: Registered image towers, or ``timm:NAME``, with published weights.
        device: Where they work.

    Raises:
        UserError: A network or its weights cannot be had, or none is left.
    """

    def __init__(
        self,
        *,
        inception: str = "auto",
        matcher: str | None = None,
        features: Sequence[str] = (),
        device: str | torch.device = "cpu",
    ) -> None:
        self.by_name: dict[str, FeatureExtractor] = {}
        self.lacking: str | None = None  # why there is no Inception
        self.matcher: Any = None
        if inception != "none":
            self._add_inception(inception)
        if matcher is not None:
            self._add_matcher(matcher)
        for name in [features] if isinstance(features, str) else features:
            self._add_tower(name)
        if not self.by_name:
            raise UserError(
                "there is no feature extractor for the images: "
                + (f"{self.lacking} Or give" if self.lacking else "give Inception's weights,")
                + " a matcher (a retrieval checkpoint) or features (an image tower)"
            )
        self.to(device)

    def to(self, device: str | torch.device) -> "FeatureExtractors":
        """Move all networks."""
        self.device = torch.device(device)
        for extractor in self.by_name.values():
            extractor.network.to(device)
        return self

    @torch.no_grad()
    def extract_features(self, images: Tensor, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Give the features of ``[B, 3, S, S] uint8``, fp32, whatever the precision around.

        Args:
            images: The images, on the networks' device.
            names: The extractors that are asked, and ``stages``: what the stages of the matcher's image tower hold; by
                default all extractors.

        Returns:
            ``[B, width]`` by name, and ``logits [B, 1008]`` where Inception is one.
        """
        found = {}
        with full_float32(images.device):
            for name in self.by_name if names is None else names:
                network = self.extractor(name).network
                if name == STAGES:
                    found[name] = network.image_tower.stages(resize_batch(images, network.image_size)).float()
                elif name == "inception":
                    found["inception"], found["logits"] = network(images)
                elif name == "clip":
                    found["clip"] = network.encode_image(resize_batch(images, network.image_size))
                else:
                    found[name] = network(resize_batch(images, network.image_size)).float()
        return found

    @torch.no_grad()
    def read(self, texts: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Give the matcher's unit vectors of N texts: ``[N, D]``."""
        with full_float32(self.matcher.device):
            batches = [list(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
            return torch.cat([self.matcher.encode_text(batch) for batch in batches])

    def refuse(self, reranker: str | None) -> None:
        """See that the matcher did not choose the images that it is to score.

        Args:
            reranker: The hash of the weights that chose, if any did.

        Raises:
            UserError: It is the matcher's.
        """
        if reranker is not None and self.matcher is not None and self.by_name["clip"].hash == reranker:
            raise UserError(
                f"the matcher (weights {reranker}) is the model that re-ranked these images: it would score its own"
                " choice. Score with another one"
            )

    def extractor(self, name: str) -> FeatureExtractor:
        """The extractor that gives these features."""
        return self.by_name["clip" if name == STAGES else name]

    @property
    def probed(self) -> str:
        """The features that tell best what an image shows: ``stages`` where the matcher's image tower has them."""
        return STAGES if hasattr(getattr(self.matcher, "image_tower", None), "stages") else self.first

    def names_for(self, targets: GenerationTargets) -> list[str]:
        """Name the features that scores of these targets need: where they say what images show, those too that tell."""
        return list(dict.fromkeys([*self.by_name, *([self.probed] if targets.shown is not None else [])]))

    def keys_for(self, targets: GenerationTargets) -> list[str]:
        """Name what ``extract_features`` gives of an image that is asked for ``names_for`` these targets."""
        return [*self.names_for(targets), *(["logits"] if "inception" in self.by_name else [])]

    @property
    def first(self) -> str:
        """The extractor whose features tell one image from another: the matcher, or else the first that there is."""
        return "clip" if self.matcher is not None else next(iter(self.by_name))

    @property
    def protocol(self) -> dict[str, str]:
        """Name who extracts features: by extractor its width, hash and resizing."""
        return {
            name: f"{extractor.width} features, weights {extractor.hash}, {extractor.resize}"
            for name, extractor in self.by_name.items()
        }

    def _add_inception(self, source: str) -> None:
        try:
            network = load_inception(source)
        except NoInceptionError as error:
            self.lacking = str(error)
            return
        except UserError as error:
            raise UserError(f"inception {error}") from None
        resize = "TF1 bilinear to 299 px inside" + ("" if network.published else ", NOT THE PUBLISHED WEIGHTS: no FID")
        self.by_name["inception"] = FeatureExtractor("inception", network.width, network.hash, resize, network)

    def _add_matcher(self, source: str) -> None:
        try:
            self.matcher = load(source)
            if not hasattr(self.matcher, "encode_text"):
                raise UserError(f"{source}: it is of no retrieval task, so it cannot match images with texts")
        except UserError as error:
            raise UserError(f"matcher {error}") from None
        width, size = self.matcher.image_projection.out_features, self.matcher.image_size
        digest = weights_hash(self.matcher)
        self.by_name["clip"] = FeatureExtractor("clip", width, digest, f"bicubic to {size} px", self.matcher)

    def _add_tower(self, name: str) -> None:
        try:
            tower = IMAGE_TOWERS.build(name)
            source = load_pretrained(tower)
        except UserError as error:
            raise UserError(f"features {name}: {error}") from None
        if not source.found:
            raise UserError(
                f"features {name}: a Fréchet distance needs features that were trained, and these are {source.text}."
                " Fetch the weights while there is a network, or leave it out"
            )
        tower.eval().requires_grad_(False)
        short = name.rpartition(":")[2].replace(".", "_")
        resize = f"bicubic to {tower.image_size} px"
        self.by_name[short] = FeatureExtractor(short, tower.width, weights_hash(tower), resize, tower)


def true_features(
    extractors: FeatureExtractors,
    data: GenerationData,
    split: str,
    *,
    names: Sequence[str] | None = None,
    corrupt: Corrupt | None = None,
    agree: Callable[[bool], bool] = bool,
    write: bool = True,
) -> dict[str, Tensor]:
    """Give the features of all true images of a split, in file order, from the cache where they were seen before.

    Args:
        extractors: Who looks.
        data: Whose images; each process reads its share of them.
        split: Of the data.
        names: As of ``extract_features``.
        corrupt: What is done to the images before; None: nothing.
        agree: Whether all processes say yes; by default there is only this one.
        write: Whether this process writes the cache.

    Returns:
        ``[N, width] float32`` on the CPU, by name.
    """
    targets = data.targets(split)
    count = len(targets.image_ids)
    paths = {}
    for name in extractors.by_name if names is None else names:
        extractor = extractors.extractor(name)
        place = [
            targets.source,
            split,
            str(count),
            str(data.image_size),
            extractor.hash,
            extractor.resize,
            *([name] if name == STAGES else []),
            *([corrupt.__name__] if corrupt else []),
        ]
        paths[name] = cache_folder() / "features" / f"{hashlib.sha256(json.dumps(place).encode()).hexdigest()[:24]}.pt"
    missing = [name for name, path in paths.items() if not agree(path.is_file())]
    if missing:
        metric = CollectedRows(range(count), names=missing)
        metric.to(extractors.device)
        for batch in data.images_loader(split):
            images = batch["image"] if corrupt is None else corrupt(batch["image"], batch["row"])
            seen = extractors.extract_features(images.to(extractors.device), missing)
            metric.update(batch["row"], **{name: seen[name] for name in missing})
        _, values = metric.gathered()
        features = {name: value.cpu() for name, value in values.items()}
        for name in missing if write else ():
            with atomic_write(paths[name]) as temporary:
                torch.save(features[name], temporary)
    else:
        features = {}
    return {name: features[name] if name in features else read_torch(path) for name, path in paths.items()}
