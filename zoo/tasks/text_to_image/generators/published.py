"""Published pipelines of diffusers as generators: sampled as they are, fine-tuned whole or by adapters."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from zoo.core.options import options_of
from zoo.core.weights import load_strictly
from zoo.errors import UserError, invalid
from zoo.models.autoencoder import KLAutoencoder
from zoo.models.lora import add_lora, beside_adapters, check_lora, merged
from zoo.models.pipelines import quiet_diffusers, read_part, read_parts
from zoo.tasks.text_to_image.contracts import TextImageBatch
from zoo.tasks.text_to_image.generators.embedded_texts import TextCache
from zoo.tasks.text_to_image.generators.families import FAMILIES, Embedded, Family, time_shift
from zoo.tasks.text_to_image.generators.flow import draw_times, mix, path_velocity
from zoo.tasks.text_to_image.generators.sampling import prompts_of, seeded_generators
from zoo.tasks.text_to_image.registry import GENERATORS

PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class PipelineSampling:
    """How a pipeline's own scheduler samples.

    Args:
        steps: Of the scheduler, from noise to image.
        guidance: How far to go from what any image would be to what the text asks for; 1: no guidance.

    Raises:
        UserError: A number is out of its range.
    """

    steps: int = 50
    guidance: float = 7.5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise invalid("steps", self.steps, "give 1 or more")
        if not 1 <= self.guidance < math.inf:
            raise invalid("guidance", self.guidance, "give 1 (none) or more")


class PublishedPipeline(nn.Module):
    """A generator made of a pipeline of diffusers, with its own scheduler, text encoders and autoencoder.

    It learns what it was trained by: the noise, or DDPM's velocity, at times drawn evenly (Ho et al., 2020,
    arXiv:2006.11239; Salimans and Ho, 2022, arXiv:2202.00512); or a flow's velocity at times moved as its scheduler
    moves them. A share of the images is learnt without text, as guidance needs. Latents are the means of what the
    autoencoder says. Text encoders and autoencoder are frozen.

    An image is a function of its text and its seed, equal within a grey level in whatever batch (in fp32), and what
    the pipeline makes with a generator of that seed. Safety checkers are not run.

    Args:
        kind: The pipeline's class.
        parts: The parts of the pipeline by their names.
        published: Hub name or folder of its weights.
        image_size: Side of the square images in pixels; None: what it was made for.
        sampling: As ``PipelineSampling``'s arguments.
        lora_rank: Rank of the adapters beside the projections of the denoiser's attention; 0: it is trained whole.
        lora_alpha: Scale of the adapters, over the rank.
        lora_dropout: Dropout probability before the adapters.
        text_cache: Most mebibytes of the host's memory for embedded texts.
    """

    text_drop = 0.1  # share of the images that are learnt without their text

    def __init__(
        self,
        kind: str,
        parts: Mapping[str, Any],
        *,
        published: str,
        image_size: int | None,
        sampling: Mapping[str, Any] | None,
        lora_rank: int,
        lora_alpha: float,
        lora_dropout: float,
        text_cache: int,
    ) -> None:
        super().__init__()
        self.kind, self.published = kind, published
        self.family: Family = FAMILIES[kind]
        self.denoiser: Any = parts[self.family.denoiser]
        self.text_encoders = nn.ModuleDict({n: part for n, part in parts.items() if n.startswith("text_encoder")})
        self.image_tokenizer = KLAutoencoder(parts["vae"], published=published)
        self.others = {name: part for name, part in parts.items() if not isinstance(part, nn.Module)}
        self.options = options_of(PipelineSampling, {**self.family.defaults, **(sampling or {})}, what="sampling")
        own_size, multiple = self.family.sizes(self.denoiser, self.image_tokenizer.factor)
        self.image_size = own_size if image_size is None else image_size
        if self.image_size < 1 or self.image_size % multiple:
            raise invalid("image_size", image_size, f"this pipeline takes multiples of {multiple} pixels")
        side = self.image_size // self.image_tokenizer.factor
        self.state_shape = (self.image_tokenizer.channels, side, side)
        if self.family.flows:
            self.time_shift = time_shift(self.others["scheduler"], side**2 // 4)
        else:
            self.noising = _noising(self.others["scheduler"], published)
        self.text_cache = TextCache(text_cache)
        self.register_load_state_dict_post_hook(_forget)
        self.text_encoders.requires_grad_(False)
        self.image_tokenizer.requires_grad_(False)
        self.lora_rank, self.lora_alpha = lora_rank, lora_alpha
        if lora_rank:
            add_lora(self.denoiser, _attentions(self.denoiser), rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout)

    def train(self, mode: bool = True) -> "PublishedPipeline":
        """What is frozen never drops anything out."""
        super().train(mode)
        self.text_encoders.eval()
        self.image_tokenizer.eval()
        return self

    # --- weights -----------------------------------------------------------------------------------------------

    def load_published(self, source: str) -> None:
        """Load the weights of all networks of a pipeline: all of them, or none.

        Args:
            source: A folder that ``save_pretrained`` wrote, or a hub name.

        Raises:
            UnavailableError: They cannot be had.
            UserError: They cannot be read, or do not fit.
        """
        load_strictly(self, beside_adapters(self, self.read_published(source)), source)

    def read_published(self, source: str) -> dict[str, Tensor]:
        """Read what ``load_published`` loads, under this generator's names as they are without adapters.

        Raises:
            UnavailableError: They cannot be had.
            UserError: They cannot be read.
        """
        places = {self.family.denoiser: "denoiser", "vae": "image_tokenizer.model"}
        places |= {name: f"text_encoders.{name}" for name in self.text_encoders}
        return {
            f"{place}.{name}": value
            for part, place in places.items()
            for name, value in read_part(self.get_submodule(place), source, part).items()
        }

    def adapt_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit the weights of such a generator without adapters to this one; those with adapters stay as they are."""
        return dict(state) if any(".lora_" in name for name in state) else beside_adapters(self, state)

    def plain_denoiser(self, *, with_adapters: bool = True) -> Any:
        """Make a copy of the denoiser without adapters, which are added to the weights that they adapt, or left out."""
        alpha = self.lora_alpha if with_adapters else 0.0
        plain = type(self.denoiser).from_config(self.denoiser.config)
        plain.load_state_dict(merged(self.denoiser.state_dict(), rank=max(self.lora_rank, 1), alpha=alpha))
        return plain.to(self.denoiser.device).eval()

    # --- training ----------------------------------------------------------------------------------------------

    def loss(self, batch: TextImageBatch) -> dict[str, Tensor]:
        """The mean squared error of what the denoiser foretells, ``loss``; draws noise, times and dropped texts."""
        data = self._latents(batch)
        noise = torch.randn_like(data)
        if self.family.flows:
            times = draw_times(len(data), shift=self.time_shift, device=data.device)
            states, target = mix(data, noise, times), path_velocity(data, noise)
        else:
            times = torch.randint(self.noising.config.num_train_timesteps, (len(data),), device=data.device)
            states = self.noising.add_noise(data, noise, times)
            predicts_noise = self.noising.config.prediction_type == "epsilon"
            target = noise if predicts_noise else self.noising.get_velocity(data, noise, times)
        texts = batch["text"]
        if self.training:
            dropped = (torch.rand(len(data), device=data.device) < self.text_drop).tolist()
            texts = ["" if drop else text for text, drop in zip(texts, dropped, strict=True)]
        foretold = self.family.foretell(self.denoiser, states, times, self.embed(texts))
        return {"loss": mse_loss(foretold.float(), target)}

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """Give what the denoiser is told of each of B texts.

        Each is encoded alone, so that it is a function of the text, whatever is in the cache: a resumed run repeats an
        uninterrupted one.
        """
        device = self.denoiser.device
        missing = {text: None for text in texts if text not in self.text_cache.kept}
        with quiet_diffusers():
            pipeline = self.pipeline() if missing else None
            fresh = {text: self.family.embed(pipeline, text) for text in missing}
        for text, embedded in fresh.items():
            self.text_cache.keep(text, embedded)
        found = [fresh.get(text) or self.text_cache.kept[text] for text in texts]
        return [tuple(each.to(device) for each in embedded) for embedded in found]

    @torch.no_grad()
    def _latents(self, batch: TextImageBatch) -> Tensor:
        """The latents as the pipeline scales them: ``[B, C, h, w] float32``."""
        latents = batch["latent"] if "latent" in batch else self.image_tokenizer.encode(batch["image"])
        config = self.image_tokenizer.model.config
        return (latents - (config.shift_factor or 0.0)) * config.scaling_factor

    # --- sampling ----------------------------------------------------------------------------------------------

    @property
    def sampling(self) -> dict[str, Any]:
        """How images are sampled, for protocols."""
        return {"scheduler": type(self.others["scheduler"]).__name__, **asdict(self.options)}

    @torch.no_grad()
    def generate(self, texts: list[str], *, seeds: Sequence[int], **sampling: Any) -> Tensor:
        """Generate an image of each of B texts.

        Args:
            texts: B prompts.
            seeds: B seeds.
            **sampling: What is to differ from the generator's own ``PipelineSampling``: ``guidance=6, steps=30``.

        Returns:
            ``[B, 3, S, S] uint8``.
        """
        config = self.image_tokenizer.model.config
        latents = self.sample_latents(texts, seeds=seeds, **sampling)
        return self.image_tokenizer.decode(latents / config.scaling_factor + (config.shift_factor or 0.0))

    def sample_latents(self, texts: list[str], *, seeds: Sequence[int], **sampling: Any) -> Tensor:
        """Sample what ``generate`` decodes, as the pipeline scales it: ``[B, C, h, w] float32``."""
        return self.call(self.pipeline(), texts, seeds, **sampling)

    def call(
        self, pipeline: Any, texts: list[str], seeds: Sequence[int], *, output_type: str = "latent", **sampling: Any
    ) -> Any:
        """Call a pipeline such as this for an image of each of B texts.

        Args:
            pipeline: As ``pipeline`` makes it.
            texts: B prompts.
            seeds: B seeds.
            output_type: As the pipeline takes it.
            **sampling: As for ``generate``.
        """
        texts = prompts_of(texts, seeds)
        options = options_of(PipelineSampling, {**asdict(self.options), **sampling}, what="sampling")
        config = self.others["scheduler"].config
        most = config.num_train_timesteps - config.get("steps_offset", 0)
        if options.steps > most:
            raise invalid("steps", options.steps, f"give 1 to {most}, which is what its scheduler has")
        noise = {"generator": seeded_generators(seeds), "output_type": output_type}
        with quiet_diffusers():  # a pipeline may write into its list
            return pipeline(prompt=[*texts], **self.call_options(options), **noise).images

    def call_options(self, options: PipelineSampling) -> dict[str, Any]:
        """Give what the pipeline is called with beside prompts and noise."""
        return {
            "height": self.image_size,
            "width": self.image_size,
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance - 1 + self.family.no_guidance,
            **self.family.call_options,
        }

    def pipeline(self, denoiser: nn.Module | None = None) -> Any:
        """Make diffusers' pipeline of the parts; it keeps nothing, for its scheduler is a new one.

        Args:
            denoiser: What takes the place of the denoiser.
        """
        import diffusers

        kind: Any = getattr(diffusers, self.kind)
        scheduler = self.others["scheduler"]
        parts = {**self.others, **self.text_encoders, "vae": self.image_tokenizer.model}
        parts |= {self.family.denoiser: denoiser or self.denoiser}
        parts |= {"scheduler": type(scheduler).from_config(scheduler.config)}
        if "safety_checker" in kind._optional_components:
            parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        with quiet_diffusers():
            pipeline = kind(**parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _forget(generator: Any, *_: Any) -> None:
    """Empty the cache, for the text encoders may have become others."""
    generator.text_cache.empty()


def _noising(scheduler: Any, name: str) -> Any:
    """The noise that the denoiser was trained at, whichever scheduler samples."""
    from diffusers import DDPMScheduler

    if scheduler.config.prediction_type not in PREDICTIONS:
        raise UserError(
            f"'diffusers:{name}': its scheduler has prediction_type {scheduler.config.prediction_type}; generators have"
            f" {' or '.join(PREDICTIONS)}"
        )
    return DDPMScheduler.from_config(copy.deepcopy(dict(scheduler.config)))


def _attentions(denoiser: nn.Module) -> list[nn.Module]:
    from diffusers.models.attention_processor import Attention

    return [module for module in denoiser.modules() if isinstance(module, Attention)]


@GENERATORS.register_prefix("diffusers:")
def published_pipeline(
    name: str,
    *,
    image_size: int | None = None,
    sampling: dict[str, Any] | None = None,
    lora_rank: int = 0,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.0,
    text_cache: int = 2048,
) -> PublishedPipeline:
    """Build a published pipeline of diffusers: Stable Diffusion, HunyuanDiT or Z-Image.

    Its configuration and tokenizers are read from a folder, the cache or the hub; ``model.generator_pretrained`` says
    where its weights come from.

    Args:
        name: A folder that a pipeline's ``save_pretrained`` wrote, or a hub name (``Tongyi-MAI/Z-Image-Turbo``).
        image_size: Side of the square images in pixels; by default what the pipeline was made for.
        sampling: How its scheduler samples: ``steps``, at least 1, and ``guidance``, 1 (none) or more.
        lora_rank: Rank of the adapters beside the projections of the denoiser's attention (extra ``lora``), at least
            1; the rest is frozen then. 0: the denoiser is trained whole.
        lora_alpha: Scale of the adapters, over the rank, above 0.
        lora_dropout: Dropout probability before the adapters, in [0, 1).
        text_cache: Most mebibytes of the host's memory in which each process keeps embedded texts; 0: none.

    Raises:
        UserError: The configuration cannot be had, or is of another pipeline; a number is out of its range.
    """
    if text_cache < 0:
        raise invalid("text_cache", text_cache, "give mebibytes, or 0 for none")
    check_lora(rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout)
    kind, parts = read_parts(name, {kind: family.classes for kind, family in FAMILIES.items()})
    return PublishedPipeline(
        kind,
        parts,
        published=name,
        image_size=image_size,
        sampling=sampling,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        text_cache=text_cache,
    )
