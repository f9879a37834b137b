"""An optimiser for networks so small that each layer can have a matrix of its own."""

import torch


class FullMatrixAdam(torch.optim.Optimizer):
    """Adam with a matrix for each parameter tensor where Adam has one number for each weight.

    Adam divides a weight's mean gradient by the root of its mean square. Here the root is that of the matrix of mean
    products of all pairs of weights of a tensor, so that steps are evened out in every direction and not only along
    the axes. Their length is set afterwards: in each step the weights of a tensor move by ``lr``, root mean square.
    Adam moves them as far while its gradients agree, and about a quarter as far where they are mostly noise.

    ``momentum`` and ``decay`` are what Adam calls betas; ``damping``, a share of the largest eigenvalue, is added to
    all of them; the roots are taken anew every ``every`` steps, and at first after 1, 2, 4, ... of them.

    A tensor of ``n`` weights costs ``2 n**2`` numbers of memory and, for the root, time growing as ``n**3``. Raises
    `ValueError` for a tensor of more than ``limit`` weights.

    Sources: J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods" (2011), for the full matrix; D. Kingma and
    J. Ba, "Adam" (2015), for decaying means; Y. You, I. Gitman and B. Ginsburg, "Large batch training of convolutional
    networks" (2017), for a length of its own for each layer's step.
    """

    def __init__(self, params, lr=0.01, momentum=0.9, decay=0.99, damping=1e-5, every=20, limit=2_500):
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay, "damping": damping, "every": every})
        sizes = [p.numel() for group in self.param_groups for p in group["params"]]
        if max(sizes) > limit:
            raise ValueError(f"a tensor has {max(sizes):,} weights, and its matrix would have {max(sizes)**2:,} "
                             f"numbers: use another optimiser, or raise limit, which is {limit:,}")

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step(p, p.grad.flatten(), self.state[p], **group)
        return loss

    def _step(self, p, gradient, state, *, lr, momentum, decay, damping, every, **unused):
        if not state:
            n = len(gradient)
            state |= {"step": 0, "mean": torch.zeros_like(gradient), "products": gradient.new_zeros(n, n),
                      "root": torch.eye(n, dtype=gradient.dtype, device=gradient.device)}
        state["step"] += 1
        step = state["step"]
        state["mean"].lerp_(gradient, 1 - momentum)
        state["products"].mul_(decay).addr_(gradient, gradient, alpha=1 - decay)
        anew = step % every == 0 or step & (step - 1) == 0  # the second: a power of two
        if anew and state["products"].isfinite().all():  # or it is for the loop to say that the loss is not
            values, vectors = eigenvectors(state["products"])
            values = values.clamp_min(0) + damping * values.max().clamp_min(1e-30)
            state["root"] = vectors / values.sqrt() @ vectors.T  # its inverse
        update = state["root"] @ state["mean"]
        p -= lr * (update * len(update) ** 0.5 / update.norm().clamp_min(1e-30)).view_as(p)


def eigenvectors(matrix):
    """`torch.linalg.eigh`; on the CPU where the matrix is on Apple's GPU, for which older versions do not have it."""
    if matrix.device.type == "mps":
        return tuple(part.to(matrix.device) for part in torch.linalg.eigh(matrix.cpu()))
    return torch.linalg.eigh(matrix)
