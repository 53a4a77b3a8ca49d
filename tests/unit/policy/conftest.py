"""Batch sources for tests: random rows, and a linear-quadratic task whose best policy is known."""

import numpy as np
import pytest

from phaseb.runtime.seeding import numpy_generator


class RandomSource:
    """Rows that follow from (the run's seed, step) alone."""

    def __init__(self, seeds, rows=32, z_size=5, action_size=2, synthetic_share=0.0, weight=1.0, part=slice(None)):
        self.seeds, self.rows, self.z_size, self.action_size = seeds, rows, z_size, action_size
        self.synthetic_share, self.weight, self.part = synthetic_share, weight, part
        self.asked = []

    def _rows(self, seed, step):
        g = numpy_generator(seed, "rows", step)
        n = self.rows
        z = g.standard_normal((n, self.z_size), np.float32)
        row = {
            "z": z,
            "action": np.tanh(g.standard_normal((n, self.action_size), np.float32)),
            "reward": g.standard_normal(n, np.float32),
            "next_z": z + 0.1 * g.standard_normal((n, self.z_size), np.float32),
            "discount": np.where(g.random(n) < 0.1, 0, 0.9).astype(np.float32),
            "is_synthetic": g.random(n) < self.synthetic_share,
        }
        weight = np.where(row["is_synthetic"], self.weight, 1.0).astype(np.float32)
        row |= {"weight": weight, "cut": g.random(n) < 0.3}
        return {name: column[self.part] for name, column in row.items()}

    def sample(self, step, num_batches):
        self.asked.append((step, num_batches))
        grid = [[self._rows(s, step + i) for s in self.seeds] for i in range(num_batches)]
        return {k: np.stack([np.stack([row[k] for row in rows]) for rows in grid]) for k in grid[0][0]}


class LinearQuadratic:
    """x' = A x + B u, reward -(x'Qx + 0.1 u'u), recorded under noise around a poor gain; u in [-1, 1].

    The best gain solves the discounted Riccati equation; constraints are not active near the origin.
    """

    A = np.array([[1.0, 0.2], [0.0, 0.95]])
    B = np.array([[0.0], [0.3]])
    discount = 0.95

    def __init__(self, num_runs, rows=128, count=20_000, seed=0):
        g = numpy_generator(seed, "lq")
        self.num_runs, self.rows = num_runs, rows
        self.z = g.uniform(-1, 1, (count, 2))
        self.u = np.clip(self.z @ [[-0.3], [-0.3]] + 0.4 * g.standard_normal((count, 1)), -1, 1)
        self.reward = -(self.z**2).sum(1) - 0.1 * (self.u**2).sum(1)
        self.next_z = self.z @ self.A.T + self.u @ self.B.T

    def sample(self, step, num_batches):
        index = np.stack(
            [
                np.stack(
                    [
                        numpy_generator(r, "lq rows", step + i).integers(len(self.z), size=self.rows)
                        for r in range(self.num_runs)
                    ]
                )
                for i in range(num_batches)
            ]
        )
        shape = index.shape
        f = np.float32
        return {
            "z": self.z[index].astype(f),
            "action": self.u[index].astype(f),
            "reward": self.reward[index].astype(f),
            "next_z": self.next_z[index].astype(f),
            "discount": np.full(shape, self.discount, f),
            "is_synthetic": np.zeros(shape, bool),
            "weight": np.ones(shape, f),
        }

    def best_gain(self):
        p, g = np.eye(2), self.discount
        for _ in range(2000):
            k = np.linalg.solve(0.1 * np.eye(1) + g * self.B.T @ p @ self.B, g * self.B.T @ p @ self.A)
            p = np.eye(2) + g * self.A.T @ p @ (self.A - self.B @ k)
        return k

    def cost(self, act, starts=256):
        """Mean discounted reward of 60 steps from random starts."""
        x = numpy_generator(7, "starts").uniform(-0.7, 0.7, (starts, 2))
        total, factor = 0.0, 1.0
        for _ in range(60):
            u = act(x.astype(np.float32)).astype(float)
            total += factor * (-(x**2).sum(1) - 0.1 * (u**2).sum(1)).mean()
            x, factor = x @ self.A.T + u @ self.B.T, factor * self.discount
        return total


@pytest.fixture
def random_source():
    return RandomSource


@pytest.fixture(scope="session")
def linear_quadratic():
    return LinearQuadratic
