"""Mean and covariance of features that stream by, and the Frechet distance of two such summaries.

    d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)

With S_1 = F F^T, the matrix S_1 S_2 has the eigenvalues of F^T S_2 F, which is symmetric and positive semidefinite:
no square root of a general matrix is needed, and a singular S_1 makes F narrower instead of failing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor


class SingularWarning(UserWarning):
    """Too few samples for a covariance of full rank."""


@dataclass
class Moments:
    """Count, mean (d,) and scatter sum (x - mean)(x - mean)^T (d, d) of samples, in float64."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def zero(cls, dim: int, device: torch.device | str = "cpu") -> Moments:
        mean = torch.zeros(dim, dtype=torch.float64, device=device)
        return cls(0, mean, torch.outer(mean, mean))

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Of features (n, d)."""
        x = features.double()
        mean = x.mean(0) if len(x) else x.new_zeros(x.shape[1])
        x = x - mean
        return cls(len(x), mean, x.T @ x)

    def add(self, other: Moments) -> None:
        """Take in the samples of another summary (Chan, Golub and LeVeque's update): the order hardly matters."""
        count = self.count + other.count
        if count == 0:
            return
        shift = other.mean - self.mean
        self.scatter += other.scatter + torch.outer(shift, shift) * (self.count * other.count / count)
        self.mean += shift * (other.count / count)
        self.count = count

    @property
    def statistics(self) -> Statistics:
        """Mean and unbiased covariance."""
        return Statistics(self.mean.cpu(), (self.scatter / max(1, self.count - 1)).cpu(), self.count)


@dataclass(frozen=True)
class Statistics:
    """A Gaussian: mu (d,) and sigma (d, d), float64; of `count` samples, 0 if that is not known."""

    mu: Tensor
    sigma: Tensor
    count: int = 0

    @property
    def dim(self) -> int:
        return len(self.mu)

    @property
    def singular(self) -> bool:
        """Whether there were too few samples for a covariance of full rank."""
        return 0 < self.count <= self.dim


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared Frechet distance of two Gaussians of the same dimension (FID's formula).

    Warns (SingularWarning) where one of them comes from no more samples than it has dimensions.
    """
    for side in (a, b):
        if side.singular:
            warnings.warn(
                f"{side.count} samples for {side.dim} features: the covariance is singular and the distance too large; "
                "use more samples, or a feature space with fewer features",
                SingularWarning,
                stacklevel=2,
            )
    spread = a.sigma.trace() + b.sigma.trace() - 2 * trace_of_root(a.sigma, b.sigma)
    return float((a.mu - b.mu).square().sum() + spread)


def trace_of_root(a: Tensor, b: Tensor) -> Tensor:
    """tr (a b)^(1/2) of positive semidefinite a and b, (d, d) float64."""
    f = factor(a)
    product = f.T @ b @ f
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    return values[values > resolution(values)].sqrt().sum()


def factor(matrix: Tensor) -> Tensor:
    """F (d, r) with F F^T = matrix, r its numerical rank."""
    f, failed = torch.linalg.cholesky_ex(matrix)
    if not failed and f.diagonal().square().min() > resolution(matrix.diagonal()):
        return f
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > resolution(values)
    return vectors[:, kept] * values[kept].sqrt()


def resolution(values: Tensor) -> float:
    """Below this, float64 cannot tell an eigenvalue from zero."""
    return len(values) * torch.finfo(values.dtype).eps * float(values.abs().max()) if len(values) else 0.0
