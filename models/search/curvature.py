"""How sharp the validation loss is around alpha: the dominant eigenvalue of its Hessian.

Zela et al. (RobustDARTS, arXiv 1909.09656, section 3) found that it rises before a search falls apart, and that
architectures found at a sharp point lose most at discretization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.events import Listener, Measuring, silent

Loss = Callable[
    [Mapping[str, Tensor]], Tensor
]  # architecture parameters by cell type -> a twice differentiable scalar


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue and what is left of it: some eigenvalue lies within ``residual`` of ``value``."""

    value: float
    residual: float  # ||H v - value v||, absolute
    iterations: int


def dominant_eigenvalue(
    loss: Loss,
    alphas: Mapping[str, Tensor],
    *,
    tolerance: float = 0.01,
    max_iterations: int = 50,
    on_event: Listener = silent,
) -> Eigenvalue:
    """The eigenvalue of largest magnitude, sign kept, of the Hessian of ``loss`` with respect to all ``alphas`` together.

    Power iteration on Hessian-vector products, from the same random vector each time; the Hessian itself is never made. Stops
    when ||H v - lambda v|| <= tolerance |lambda|, where lambda = v'Hv: for a symmetric matrix, an eigenvalue is then no
    further from lambda than that, and usually as near as its square. Two eigenvalues of nearly the same magnitude and
    opposite sign do not settle; ``residual`` tells. One product costs about two backward passes.
    """
    points = [alpha.detach().requires_grad_() for alpha in alphas.values()]
    gradients = torch.autograd.grad(
        loss(dict(zip(alphas, points, strict=True))), points, create_graph=True, materialize_grads=True
    )
    flat = torch.cat([gradient.flatten() for gradient in gradients])

    def product(vector: Tensor) -> Tensor:
        if not flat.requires_grad:  # a loss linear in alpha
            return torch.zeros_like(vector)
        parts = torch.autograd.grad(flat, points, vector, retain_graph=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    start = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0), dtype=flat.dtype)
    vector = start.to(flat.device)
    value = residual = 0.0
    for iteration in range(1, max_iterations + 1):
        vector = vector / vector.norm()
        image = product(vector)
        on_event(Measuring("Hessian eigenvalue, product", iteration, max_iterations))
        value = float(vector @ image)
        residual = float((image - value * vector).norm())
        if residual <= tolerance * abs(value):
            return Eigenvalue(value, residual, iteration)
        vector = image
    return Eigenvalue(value, residual, max_iterations)
