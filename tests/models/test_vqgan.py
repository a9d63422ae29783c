"""VQGANs: which code a latent becomes, what the codebook learns, pictures to codes and back."""

import pytest
import torch
from torch.nn.functional import normalize

from zoo.core.contracts import ImageTokenizer
from zoo.data.images import to_images, to_pixels
from zoo.errors import UserError
from zoo.models.vqgan import ROWS, GumbelQuantizer, Quantizer
from zoo.registry import IMAGE_TOKENIZERS

CODES, DIM = 37, 5
both = pytest.mark.parametrize("unit_length", [True, False])


def quantizer(unit_length, **options):
    torch.manual_seed(0)
    book = Quantizer(num_codes=CODES, code_dim=DIM, unit_length=unit_length, **options)
    torch.nn.init.normal_(book.embedding.weight)
    return book


def latents(batch=2, side=3, seed=1):
    return torch.randn(batch, DIM, side, side, generator=torch.Generator().manual_seed(seed))


def comparable(vectors, unit_length):
    return normalize(vectors, dim=-1) if unit_length else vectors


@pytest.fixture(scope="module")
def vqgan():
    torch.manual_seed(0)
    return IMAGE_TOKENIZERS.build("vqgan_tiny", num_codes=32, width=32, multipliers=(1, 2), patch_size=1).eval()


def pictures(count=4, size=16, seed=2):
    """Random pictures, coarse enough to differ in their codes."""
    coarse = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return coarse.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3)


# --- the codebook ----------------------------------------------------------------------------------------------


@both
def test_a_latent_becomes_the_nearest_code(unit_length):
    book = quantizer(unit_length)
    many = latents(batch=3, side=38)  # more than are compared at a time
    assert ROWS < 3 * 38**2
    found = book.codes(many)
    assert found.dtype == torch.int64
    rows = comparable(many.permute(0, 2, 3, 1), unit_length).double()[..., None, :]
    distances = (rows - comparable(book.embedding.weight, unit_length).double()).square().sum(dim=-1)
    assert torch.equal(found, distances.argmin(dim=-1))
    assert torch.equal(book(many)[1], found)


@both
def test_codes_stand_in_the_latents_place(unit_length):
    book = quantizer(unit_length)
    quantized, codes, _ = book(latents())
    expected = comparable(book.embedding.weight[codes], unit_length).permute(0, 3, 1, 2)
    torch.testing.assert_close(quantized, expected, atol=1e-6, rtol=0)
    assert torch.equal(book.look_up(codes), expected)


@both
def test_what_a_code_stands_for_is_that_code(unit_length):
    book = quantizer(unit_length)
    codes = torch.arange(CODES)[None, None]
    assert torch.equal(book.codes(book.look_up(codes)), codes)


def test_lengths_do_not_matter_to_a_book_of_unit_length():
    book = quantizer(unit_length=True)
    scales = torch.rand(2, 1, 3, 3) * 10 + 0.1
    assert torch.equal(book.codes(latents() * scales), book.codes(latents()))
    assert not torch.equal(quantizer(False).codes(latents() * 10), quantizer(False).codes(latents()))
    torch.testing.assert_close(book(latents())[0].norm(dim=1), torch.ones(2, 3, 3))


def test_gradients_pass_through_the_codes_unchanged():
    book = quantizer(unit_length=False)
    given = latents().requires_grad_()
    upstream = latents(seed=3)
    quantized, _, _ = book(given)
    quantized.backward(upstream)
    assert torch.equal(given.grad, upstream)
    assert book.embedding.weight.grad is None


def test_a_gradient_through_codes_of_unit_length_turns_and_does_not_stretch():
    book = quantizer(unit_length=True)
    given = latents().requires_grad_()
    book(given)[0].backward(latents(seed=3))
    inner = (given.grad * given).sum(dim=1)
    torch.testing.assert_close(inner, torch.zeros_like(inner), atol=1e-5, rtol=0)  # a sum of products of order 1
    assert given.grad.abs().max() > 0.1


@pytest.mark.parametrize("beta", [0.25, 2.0])
def test_beta_weighs_the_latents_side_of_the_loss(beta):
    """van den Oord's: codes follow latents with weight 1, latents follow codes with beta; taming's is the reverse."""
    book = quantizer(unit_length=False, beta=beta)
    given = latents().requires_grad_()
    _, codes, loss = book(given)
    loss.backward()
    rows, chosen = given.detach().permute(0, 2, 3, 1), book.embedding.weight.detach()[codes]
    expected = beta * 2 * (rows - chosen) / rows.numel()
    torch.testing.assert_close(given.grad, expected.permute(0, 3, 1, 2), atol=1e-6, rtol=1e-5)
    of_codes = torch.zeros(CODES, DIM).index_add_(
        0, codes.flatten(), (2 * (chosen - rows) / rows.numel()).view(-1, DIM)
    )
    torch.testing.assert_close(book.embedding.weight.grad, of_codes, atol=1e-6, rtol=1e-5)
    assert loss.item() == pytest.approx((1 + beta) * (rows - chosen).square().mean().item(), rel=1e-5)


@both
def test_a_replaced_code_is_where_its_latent_was(unit_length):
    book = quantizer(unit_length)
    before = book.embedding.weight.detach().clone()
    rows = latents().permute(0, 2, 3, 1).reshape(-1, DIM)[:3]
    chosen = torch.zeros(CODES, dtype=torch.bool)
    chosen[[4, 7, 30]] = True
    wanted = before.clone()  # what is not chosen is left alone
    wanted[chosen] = rows
    book.replace(chosen, wanted)
    others = [code for code in range(CODES) if code not in (4, 7, 30)]
    assert torch.equal(book.embedding.weight[others], before[others])
    assert book.codes(rows.T[None, :, None])[0, 0].tolist() == [4, 7, 30]


def test_codes_are_compared_in_float32_under_autocast():
    book = quantizer(unit_length=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = book.codes(latents(side=20))
    assert torch.equal(found, book.codes(latents(side=20)))


def test_a_gumbel_codebooks_codes_are_the_likeliest():
    torch.manual_seed(0)
    book = GumbelQuantizer(num_codes=CODES, code_dim=DIM)
    found = book.codes(latents())
    likelihood = torch.einsum("bdhw,kd->bhwk", latents(), book.proj.weight[:, :, 0, 0]) + book.proj.bias
    assert torch.equal(found, likelihood.argmax(dim=-1))
    assert torch.equal(book.codes(latents()), found)
    assert torch.equal(book.look_up(found)[1, :, 2, 0], book.embed.weight[found[1, 2, 0]])


# --- pictures ↔ codes ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_picture_has_the_same_codes_in_any_batch(vqgan):
    many = pictures(7)
    together = vqgan.encode(many)
    assert together.dtype == torch.int64
    assert together.shape == (7, 8, 8)
    assert torch.equal(torch.cat([vqgan.encode(each[None]) for each in many]), together)
    assert torch.equal(vqgan.encode(many[2:5].flip(0)), together[2:5].flip(0))
    assert len(together.unique()) > 3


@torch.no_grad()
def test_codes_become_a_picture(vqgan):
    codes = vqgan.encode(pictures())
    decoded = vqgan.decode(codes)
    assert decoded.dtype == torch.uint8
    assert decoded.shape == (4, 3, 16, 16)
    apart = torch.cat([vqgan.decode(each[None]) for each in codes])
    assert (decoded.int() - apart.int()).abs().max() <= 1
    assert not torch.equal(vqgan.decode((codes + 1) % 32), decoded)


@torch.no_grad()
def test_under_autocast_codes_are_codes_and_pictures_pictures(vqgan):
    with torch.autocast("cpu", torch.bfloat16):
        codes = vqgan.encode(pictures())
        decoded = vqgan.decode(codes)
    assert codes.dtype == torch.int64
    assert codes.shape == (4, 8, 8)
    assert decoded.dtype == torch.uint8
    assert (decoded.float() - vqgan.decode(codes).float()).abs().mean() < 4


@torch.no_grad()
def test_training_reconstructs_what_encode_and_decode_do(vqgan):
    images = pictures()
    reconstruction, codes, _, before = vqgan(to_pixels(images))
    assert torch.equal(codes, vqgan.encode(images))
    assert torch.equal(vqgan.quantize.codes(before), codes)
    assert (to_images(reconstruction).int() - vqgan.decode(codes).int()).abs().max() <= 1


def test_a_gradient_reaches_every_parameter(vqgan):
    torch.manual_seed(0)
    reconstruction, _, loss, before = vqgan(to_pixels(pictures()))
    (reconstruction.square().mean() + loss).backward()
    without = [name for name, parameter in vqgan.named_parameters() if parameter.grad is None]
    vqgan.zero_grad()
    assert without == []
    assert not before.requires_grad


def test_pixels_and_images_are_each_others_inverse():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_images(to_pixels(levels)), levels)
    assert (to_pixels(levels).min(), to_pixels(levels).max()) == (-1, 1)
    assert to_images(torch.tensor([-3.0, 3.0, 0.001])).tolist() == [0, 255, 128]


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "side"),
    [
        ({"multipliers": (1, 2), "patch_size": 2}, 4),
        ({"multipliers": (1,), "patch_size": 4}, 4),
        ({"multipliers": (1, 1, 2), "patch_size": 1}, 4),
        ({"multipliers": (1,), "patch_size": 1}, 16),
    ],
)
def test_patches_and_halvings_make_the_grid(options, side):
    torch.manual_seed(0)
    tokenizer = IMAGE_TOKENIZERS.build("vqgan_tiny", num_codes=8, width=32, **options).eval()
    assert tokenizer.factor == 16 // side
    codes = tokenizer.encode(pictures(2))
    assert codes.shape == (2, side, side)
    assert tokenizer.decode(codes).shape == (2, 3, 16, 16)


# --- builders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 48}, "width is 48"),
        ({"width": 0}, "width is 0"),
        ({"multipliers": ()}, "multipliers []: give a multiple of 32, and 1 or more each"),
        ({"multipliers": (1, 0)}, "multipliers [1, 0]"),
        ({"num_codes": 1}, "num_codes is 1"),
        ({"code_dim": 0}, "code_dim 0"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"codes": 8}, "image tokenizer 'vqgan_tiny' has no option 'codes'. Did you mean"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(UserError) as error:
        IMAGE_TOKENIZERS.build("vqgan_tiny", **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "factor", "num_codes", "code_dim"),
    [
        ("vqgan_tiny", 4, 512, 8),
        ("vqgan_f16", 16, 16384, 8),
        ("taming_vqgan_f16", 16, 16384, 256),
        ("taming_vqgan_f8_gumbel", 8, 8192, 256),
    ],
)
def test_every_vqgan_is_built(name, factor, num_codes, code_dim):
    with torch.device("meta"):
        tokenizer = IMAGE_TOKENIZERS.build(name)
    assert isinstance(tokenizer, ImageTokenizer)
    assert (tokenizer.factor, tokenizer.num_codes) == (factor, num_codes)
    assert tokenizer.codebook.weight.shape == (num_codes, code_dim)
    assert tokenizer.last_layer is tokenizer.decoder.conv_out.weight
    assert IMAGE_TOKENIZERS.describe(name).startswith("Build ")


def test_every_registered_image_tokenizer_is_tested():
    assert IMAGE_TOKENIZERS.names() == ["taming_vqgan_f16", "taming_vqgan_f8_gumbel", "vqgan_f16", "vqgan_tiny"]
