"""Images from texts by rectified flow: a diffusers network, conditioned on the sequence of any zoo text tower."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, mse_loss

from zoo.core.inputs import as_texts
from zoo.core.options import options_of
from zoo.data.images import to_images, to_pixels
from zoo.errors import UserError, invalid
from zoo.registry import IMAGE_TOKENIZERS, TEXT_TOWERS
from zoo.tasks.text_to_image.contracts import TextImageBatch
from zoo.tasks.text_to_image.generators.flow import check_sampling, draw_times, mix, path_velocity, solve, start_time
from zoo.tasks.text_to_image.generators.sampling import guide, prompts_of, seeded_noise

PREDICTIONS = ("velocity", "image")
LEAST_TIME = 0.05  # nearer to the image, the velocity to it is not taken: an error would count 400 times


@dataclass(frozen=True)
class Sampling:
    """How images are sampled.

    Args:
        solver: ``euler`` or ``heun``.
        steps: Of the solver, from noise to image.
        guidance: How far to go from what any image would be to what the text asks for; 1: no guidance.
        guidance_until: The time, 1 noise and 0 the image, from which on there is guidance; before it there is none
            (Kynkäänniemi et al., 2024, arXiv:2404.07724), and a step takes half as long.

    Raises:
        UserError: A number is out of its range, or there is no such solver.
    """

    solver: str = "euler"
    steps: int = 25
    guidance: float = 4.0
    guidance_until: float = 0.7

    def __post_init__(self) -> None:
        check_sampling(solver=self.solver, steps=self.steps)
        if not 1 <= self.guidance < math.inf:
            raise invalid("guidance", self.guidance, "give 1 (none) or more")
        if not 0 <= self.guidance_until <= 1:
            raise invalid("guidance_until", self.guidance_until, "give a time from 0 (never) to 1 (always)")

    def idle(self) -> dict[str, str]:
        """Name the fields that have no effect beside the others, and say why."""
        if self.guidance == 1:
            return {"guidance_until": "guidance is 1, which is none"}
        return {"guidance": "guidance_until is 0, which is never"} if self.guidance_until == 0 else {}


class RectifiedFlow(nn.Module):
    """A generator that learns the velocity of straight paths from images to noise, and walks them back.

    It learns v = ε − x₀ at logit-normal times with equal weight, and without text on a share of the images, which
    guidance needs. A network of large patches cannot pass noise on as it came: it gives the image x₀ instead, and the
    velocity is what leads there (Li and He, "Back to Basics: Let Denoising Generative Models Denoise", 2025,
    arXiv:2511.13720). An image is a function of its text and its seed, equal within a grey level in whatever batch (in
    fp32).

    Args:
        network: Gives the velocity, or the image, of states ``[B, C, h, w]``, pixels or latents, at times ``[B]``,
            given a text tower's sequence ``[B, N, W]`` and its mask.
        text_tower: Its sequence is what the network sees of a text.
        image_tokenizer: Between images and the latents that the network sees, frozen; None: it sees pixels.
        image_size: Side of the square images in pixels.
        freeze_text: Whether the text tower stays as it is.
        time_shift: How far the times of training and sampling are moved towards noise, where what an image shows is
            decided; 1: not at all. Larger images need more (Esser et al., 2024, arXiv:2403.03206, section 5.3.2).
        prediction: What the network gives: ``velocity`` or ``image``.
        sampling: How images are sampled.
    """

    text_drop = 0.1  # share of the images that are learnt without their text, which guidance needs

    def __init__(
        self,
        network: nn.Module,
        text_tower: Any,
        *,
        image_size: int,
        image_tokenizer: Any = None,
        freeze_text: bool = False,
        time_shift: float = 1.0,
        prediction: str = "velocity",
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.text_tower = text_tower
        self.image_tokenizer = image_tokenizer
        self.image_size = image_size
        self.time_shift, self.prediction = time_shift, prediction
        self.options = sampling or Sampling()
        self.no_text = nn.Parameter(0.02 * torch.randn(text_tower.width))  # stands for a text that is not there
        self._freeze_text = freeze_text
        if freeze_text:
            text_tower.requires_grad_(False)
        self.state_shape = (3, image_size, image_size)
        if image_tokenizer is not None:
            image_tokenizer.requires_grad_(False)
            side = image_size // image_tokenizer.factor
            self.state_shape = (image_tokenizer.channels, side, side)
            self.latent_mean: Tensor
            self.latent_std: Tensor
            self.register_buffer("latent_mean", torch.zeros(image_tokenizer.channels))  # measured: see take_statistics
            self.register_buffer("latent_std", torch.ones(image_tokenizer.channels))

    def train(self, mode: bool = True) -> "RectifiedFlow":
        """What is frozen never drops anything out."""
        super().train(mode)
        if self._freeze_text:
            self.text_tower.eval()
        if self.image_tokenizer is not None:
            self.image_tokenizer.eval()
        return self

    def take_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Bring latents to mean 0 and deviation 1 from now on: those measured of each channel."""
        self.latent_mean.copy_(torch.tensor(mean))
        self.latent_std.copy_(torch.tensor(std))

    # --- training ----------------------------------------------------------------------------------------------

    def loss(self, batch: TextImageBatch) -> dict[str, Tensor]:
        """The mean squared error of the velocity, ``loss``; draws noise, times and which texts are dropped."""
        data = self._standard(batch["latent"]) if "latent" in batch else self._from_images(batch["image"])
        noise, time = torch.randn_like(data), draw_times(len(data), shift=self.time_shift, device=data.device)
        text, mask = self._read(batch["text"])
        if self.training:
            text, mask = self._without_text(text, mask, torch.rand(len(data), device=data.device) < self.text_drop)
        foretold = self._velocity(mix(data, noise, time), time, text, mask)
        return {"loss": mse_loss(foretold, path_velocity(data, noise))}

    # --- sampling ----------------------------------------------------------------------------------------------

    @property
    def sampling(self) -> dict[str, Any]:
        """How images are sampled, for protocols."""
        return asdict(self.options)

    @torch.no_grad()
    def generate(self, texts: list[str], *, seeds: Sequence[int], **sampling: Any) -> Tensor:
        """Generate an image of each of B texts.

        Args:
            texts: B prompts.
            seeds: B seeds.
            **sampling: What is to differ from the generator's own ``Sampling``: ``guidance=6, steps=50``.

        Returns:
            ``[B, 3, S, S] uint8``.
        """
        noise = self._noise(texts, seeds)
        return self._to_images(self._walk(noise, texts, self._options(sampling)))

    @torch.no_grad()
    def image_to_image(
        self, images: Tensor, texts: list[str], *, seeds: Sequence[int], strength: float = 0.6, **sampling: Any
    ) -> Tensor:
        """Generate B images anew in the sense of their texts (Meng et al., SDEdit, 2021, arXiv:2108.01073).

        Args:
            images: ``[B, 3, S, S] uint8``.
            texts: B prompts.
            seeds: B seeds.
            strength: How far towards noise each is brought first, above 0 (hardly) to 1 (nothing is left of it).
            **sampling: As for ``generate``.

        Returns:
            ``[B, 3, S, S] uint8``.
        """
        options = self._options(sampling)
        time = start_time(solver=options.solver, steps=options.steps, strength=strength, shift=self.time_shift)
        noise = self._noise(texts, seeds)
        start = mix(self._from_images(self._checked(images, texts)), noise, time.to(noise.device))
        return self._to_images(self._walk(start, texts, options, strength=strength))

    @torch.no_grad()
    def inpaint(
        self, images: Tensor, masks: Tensor, texts: list[str], *, seeds: Sequence[int], **sampling: Any
    ) -> Tensor:
        """Generate the masked parts of B images; the rest stays as it is, to the pixel.

        What is known follows its own straight path from the noise while the rest is generated around it.

        Args:
            images: ``[B, 3, S, S] uint8``.
            masks: ``[B, S, S] bool``: true where something is to be drawn.
            texts: B prompts of the whole images.
            seeds: B seeds.
            **sampling: As for ``generate``.

        Returns:
            ``[B, 3, S, S] uint8``.
        """
        images = self._checked(images, texts)
        if masks.dtype != torch.bool or masks.shape != (len(images), *images.shape[2:]):
            raise UserError(
                f"masks: {masks.dtype} {list(masks.shape)} came; for these images they are bool"
                f" {[len(images), *images.shape[2:]]}, true where something is to be drawn"
            )
        drawn = masks.to(images.device)[:, None]  # [B, 1, S, S]
        noise = self._noise(texts, seeds)
        known = path_velocity(self._from_images(images), noise)
        drawn_states = max_pool2d(drawn.float(), self.image_size // self.state_shape[1]) > 0  # in part is drawn anew
        state = self._walk(noise, texts, self._options(sampling), known=known, drawn=drawn_states)
        return torch.where(drawn, self._to_images(state), images)

    def _walk(
        self,
        start: Tensor,
        texts: list[str],
        options: Sampling,
        *,
        strength: float = 1.0,
        known: Tensor | None = None,
        drawn: Tensor | None = None,
    ) -> Tensor:
        """From noise to data, guided inside the interval; where nothing is ``drawn``, along the ``known`` velocity."""
        text, mask = self._read(texts)
        no_text, no_mask = self._without_text(text, mask, torch.ones(len(texts), dtype=torch.bool, device=text.device))
        both, both_masks = torch.cat([text, no_text]), torch.cat([mask, no_mask])

        def velocity(state: Tensor, time: Tensor) -> Tensor:
            if options.guidance == 1 or time > options.guidance_until + 1e-6:  # the times are rounded
                foretold = self._velocity(state, state.new_full((len(state),), time.item()), text, mask)
            else:
                times = state.new_full((2 * len(state),), time.item())
                conditional, unconditional = self._velocity(torch.cat([state, state]), times, both, both_masks).chunk(2)
                foretold = guide(conditional, unconditional, options.guidance)
            return foretold if known is None else torch.where(drawn, foretold, known)  # type: ignore[arg-type]

        return solve(
            velocity,
            start,
            solver=options.solver,
            steps=options.steps,
            strength=strength,
            shift=self.time_shift,
        )

    def _velocity(self, state: Tensor, time: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """The velocity ``[B, C, h, w] float32`` of states at times ``[B]``, whatever the network gives."""
        foretold = self.network(state, time, text, mask).float()
        if self.prediction == "velocity":
            return foretold
        return (state - foretold) / time.clamp(min=LEAST_TIME)[:, None, None, None]

    def _options(self, changed: dict[str, Any]) -> Sampling:
        return options_of(Sampling, {**asdict(self.options), **changed}, what="sampling") if changed else self.options

    def _checked(self, images: Tensor, texts: list[str]) -> Tensor:
        wanted = (len(texts), 3, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or images.shape != wanted:
            raise UserError(
                f"images: {images.dtype} {list(images.shape)} came; for {len(texts)} texts this generator takes"
                f" torch.uint8 {list(wanted)} (zoo.data.images.resize_batch makes them so)"
            )
        return images.to(self.no_text.device)

    # --- what the network sees ---------------------------------------------------------------------------------

    def _noise(self, texts: list[str], seeds: Sequence[int]) -> Tensor:
        prompts_of(texts, seeds)
        return seeded_noise(seeds, self.state_shape, device=self.no_text.device)

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """What the text tower makes of B texts: ``[B, N, W]`` and their mask ``[B, N] bool``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._freeze_text):
            return self.text_tower.sequence(as_texts(texts))

    def _without_text(self, text: Tensor, mask: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Put one learnt vector where texts are ``dropped [B] bool``, whatever they were."""
        first = torch.zeros_like(mask)
        first[:, 0] = True
        no_text = self.no_text.to(text.dtype).expand_as(text)
        return torch.where(dropped[:, None, None], no_text, text), torch.where(dropped[:, None], first, mask)

    def _standard(self, latents: Tensor) -> Tensor:
        return (latents - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def _from_images(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S] uint8`` as pixels from -1 to 1, or as standardised latents: ``[B, C, h, w] float32``."""
        if self.image_tokenizer is None:
            return to_pixels(images)
        with torch.no_grad():
            return self._standard(self.image_tokenizer.encode(images))

    def _to_images(self, data: Tensor) -> Tensor:
        if self.image_tokenizer is None:
            return to_images(data)
        return self.image_tokenizer.decode(data * self.latent_std[:, None, None] + self.latent_mean[:, None, None])


def assemble(
    network: Callable[..., nn.Module],
    *,
    image_size: int,
    multiple: int,
    image_tokenizer: str | None,
    text_tower: str,
    text_tower_options: dict[str, Any] | None,
    freeze_text: bool,
    time_shift: float,
    prediction: str,
    sampling: dict[str, Any] | None,
) -> RectifiedFlow:
    """Put a generator together: what all its builders share.

    Args:
        network: Builds the network, told ``channels`` and ``side`` of the states and ``text_width``.
        image_size: Side of the square images in pixels.
        multiple: What the side of the states must be a multiple of.
        image_tokenizer: A registered image tokenizer, or None for pixels.
        text_tower: A registered text tower.
        text_tower_options: Options of its builder.
        freeze_text: As ``RectifiedFlow``'s.
        time_shift: As ``RectifiedFlow``'s.
        prediction: As ``RectifiedFlow``'s.
        sampling: As ``Sampling``'s arguments.

    Raises:
        UserError: An option is out of its range, or there is no such tower or image tokenizer.
    """
    tokenizer = None if image_tokenizer is None else IMAGE_TOKENIZERS.build(image_tokenizer)
    if tokenizer is not None and tokenizer.num_codes is not None:
        raise invalid(
            "image_tokenizer", image_tokenizer, "it gives codes, and diffusion learns latents: diffusers:FOLDER"
        )
    channels, factor = (3, 1) if tokenizer is None else (tokenizer.channels, tokenizer.factor)
    if multiple < 1:
        raise UserError("patch_size: give 1 or more")
    if image_size < 1 or image_size % (factor * multiple):
        raise invalid("image_size", image_size, f"this network takes multiples of {factor * multiple} pixels")
    if not 1 <= time_shift < math.inf:
        raise invalid("time_shift", time_shift, "give 1 (not at all) or more, such as 3")
    if prediction not in PREDICTIONS:
        raise invalid("prediction", prediction, f"give {' or '.join(PREDICTIONS)}")
    options = options_of(Sampling, sampling, what="sampling")
    tower = TEXT_TOWERS.build_or_take("text_tower", text_tower, text_tower_options)
    return RectifiedFlow(
        network(channels=channels, side=image_size // factor, text_width=tower.width),
        tower,
        image_size=image_size,
        image_tokenizer=tokenizer,
        freeze_text=freeze_text,
        time_shift=time_shift,
        prediction=prediction,
        sampling=options,
    )
