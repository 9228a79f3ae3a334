"""How far apart are two predictions for the same examples?"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def symmetric_divergence(one: Tensor, other: Tensor, *, regression: bool) -> Tensor:
    """KL(p, q) + KL(q, p) of the predicted classes, averaged over the examples; gradients reach both.

    Args:
        one: logits, shape (examples, classes), or predicted values, shape (examples, 1).
        other: the same shape.
        regression: the outputs are values: twice the squared difference, which is the same divergence of two normal
            distributions of variance 1/2 around them.

    Returns:
        a scalar, >= 0.
    """
    one, other = one.float(), other.float()
    if regression:
        return 2 * functional.mse_loss(one, other)
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    forth = functional.kl_div(q, p, reduction="batchmean", log_target=True)
    back = functional.kl_div(p, q, reduction="batchmean", log_target=True)
    return forth + back
