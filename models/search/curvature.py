"""How sharp the validation loss is around alpha: the dominant eigenvalue of its Hessian.

Zela et al. (RobustDARTS, arXiv 1909.09656, section 3) found that it rises before a search falls apart, and
that architectures found at a sharp point lose most at discretization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.events import Listener, Measuring, silent

# Architecture parameters by cell type -> a twice differentiable scalar.
Loss = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Eigenvalue:
    """An estimate of an eigenvalue: some eigenvalue lies within ``residual`` of ``value``."""

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
    """The eigenvalue of largest magnitude, with its sign, of the Hessian of ``loss`` in all ``alphas``.

    Power iteration on Hessian-vector products, from the same random vector in every call; the Hessian itself
    is never formed. Stops when ||H v - lambda v|| <= tolerance |lambda|, where lambda = v'Hv. Because the
    Hessian is symmetric, some eigenvalue is then no further from lambda than ||H v - lambda v||, and usually
    much nearer. With two eigenvalues of nearly the same magnitude and opposite sign the iteration does not
    converge, and ``residual`` stays large. One product costs about two backward passes.
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
