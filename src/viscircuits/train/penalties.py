"""Penalties that empty whole kernels while a network trains.

Formulas over the weights of convolutions; the training loop adds their value to its loss. Setting small kernels to
exactly zero afterwards is `viscircuits.train.shapesnet`'s business.
"""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

EPS = 1e-8
"""Added under the square root of eq. 14."""


def hierarchical(weight: Float[Tensor, "out in kh kw"], eps: float = EPS) -> Float[Tensor, ""]:
    r"""Returns the hierarchical squared group l1/2 penalty of one layer, which empties kernels.

    .. math:: R_{1/2}(W) = \sum_j \Bigl( \sum_i \sqrt{\textstyle\sum_{h,w} |w_{ijhw}|} \Bigr)^2

    Args:
        weight: Weights of a convolution; ``i`` runs over output channels, ``j`` over input channels of the group.
        eps: Added under the root (at least 0; with 0 the gradient of an empty kernel is not finite).

    Source: Hamblin et al., "Pruning for feature-preserving circuits in CNNs", section 8.8, eq. 14, after Mitsuno et
        al., "Hierarchical group sparse regularization for deep convolutional neural networks".
    Differs:
        1. The root is sqrt(s + eps) - sqrt(eps): still 0 for an empty kernel, but with a finite gradient there, which
           times the zero subgradient of \|w\| is 0. An empty kernel therefore stays empty under this term alone.
    """
    # the root falls steeply near zero, which is what empties a kernel rather than making all of them smaller
    size = weight.abs().sum(dim=(2, 3))  # [out, in]
    root = (size + eps).sqrt() - eps**0.5
    return root.sum(dim=0).square().sum()


def l1(weight: Float[Tensor, "out in kh kw"]) -> Float[Tensor, ""]:
    """Returns the sum of the absolute weights of one layer (the same section's R_1)."""
    return weight.abs().sum()


def penalty(
    weights: Iterable[Float[Tensor, "..."]], *, lambda_1: float = 0.002, lambda_2: float = 0.6
) -> Float[Tensor, ""]:
    r"""Returns what eq. 15 adds to the cross-entropy.

    .. math:: \lambda_2 \sum_l \lambda_1 R_{1/2}(W^l) + (1 - \lambda_2) \sum_l \lambda_1 R_1(W^l)

    Args:
        weights: Weights of the convolutions, at least one.
        lambda_1: Strength of both terms, at least 0.
        lambda_2: Balance in [0, 1]: 1 is all group penalty, 0 is all L1.

    Source: the same paper, section 8.8, eq. 15; the defaults are the paper's, for fine-tuning AlexNet on ImageNet.
    """
    layers = list(weights)
    assert layers, "a penalty needs at least one layer"
    group = sum((hierarchical(w) for w in layers), start=layers[0].new_zeros(()))
    plain = sum((l1(w) for w in layers), start=layers[0].new_zeros(()))
    return lambda_2 * lambda_1 * group + (1 - lambda_2) * lambda_1 * plain


def conv_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weight of every 2-D convolution by dotted layer name, in registration order."""
    return {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
