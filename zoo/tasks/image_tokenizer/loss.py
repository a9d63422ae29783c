"""What a VQGAN is trained by: the similarity of a reconstruction, and a discriminator's opinion of it."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, relu


def laplacian_loss(reconstruction: Tensor, pixels: Tensor, *, levels: int = 3) -> Tensor:
    """The mean absolute difference of two Laplacian pyramids: edges of all sizes, where pixels alone blur them.

    Bojanowski et al., "Optimizing the Latent Space of Generative Networks" (2017), arXiv:1707.05776, whose weights of
    the levels' sums make their means count alike.

    Args:
        reconstruction: ``[B, 3, S, S]``, -1 to 1.
        pixels: ``[B, 3, S, S]``, -1 to 1.
        levels: Sizes of edges, each twice the one before; images that cannot be halved so often have fewer.
    """
    rest = reconstruction.float() - pixels.float()  # pyramids are linear
    loss = rest.new_zeros(())
    for _ in range(levels):
        if rest.shape[-1] % 2:
            break
        smaller = avg_pool2d(rest, 2)
        loss = loss + (rest - interpolate(smaller, scale_factor=2, mode="bilinear")).abs().mean()
        rest = smaller
    return loss + rest.abs().mean()


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator lowers: its logits of true images to above 1, of reconstructions to below -1.

    Lim and Ye, "Geometric GAN" (2017), arXiv:1705.02894.
    """
    return 0.5 * (relu(1 - real.float()).mean() + relu(1 + fake.float()).mean())


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """How much the discriminator's opinion counts: so that both losses pull equally at the decoder's last layer.

    Esser et al. (2020), arXiv:2012.09841, equation 7.

    Args:
        reconstruction_gradient: Of the similarity, with respect to the last layer's weights.
        adversarial_gradient: Of the discriminator's opinion, likewise.

    Returns:
        A scalar, 0 to 10,000, without gradient.
    """
    ratio = reconstruction_gradient.norm() / (adversarial_gradient.norm() + 1e-4)
    return torch.clamp(ratio, 0, 1e4).detach()
