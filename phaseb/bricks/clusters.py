"""Episodes grouped by what their latents do: principal components of pooled features, k-means."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from phaseb.config.bricks import BricksConfig
from phaseb.episodes.resolution import is_constant
from phaseb.runtime.seeding import derive_seed

SAME = 1e-9  # standardised features that differ by less are of the same episode twice

SCORED_ROWS = 5000  # of more, a sample is scored: the silhouette compares every row with every other
SCORING_MB = 32  # of distances held at once meanwhile


@dataclass(frozen=True)
class Clusters:
    """Centres of groups in the space of the first C principal components of standardised features (F).

    Attributes:
        mean, scale: (F,) standardisation of the features.
        components: (C, F).
        centres: (K, C).
        silhouette: of the chosen grouping; NaN where there is one group only.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]
    centres: NDArray[np.float64]
    silhouette: float

    def project(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, F) to (N, C)."""
        return (features - self.mean) / self.scale @ self.components.T

    def assign(self, features: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) number of the nearest centre."""
        points = self.project(features)
        return np.square(points[:, None] - self.centres[None]).sum(-1).argmin(1)

    def reorder(self, order: NDArray[np.int64]) -> "Clusters":
        """The same groups numbered anew: group `order[i]` becomes i."""
        return Clusters(self.mean, self.scale, self.components, self.centres[order], self.silhouette)


def fit_clusters(config: BricksConfig, features: NDArray[np.float64], seed: int) -> Clusters:
    """Group (N, F) features; the number of groups is the config's, at most that of different episodes."""
    mean = features.mean(0)
    scale = np.where(is_constant(features.astype(np.float32)), 1.0, features.std(0))
    standardised = (features - mean) / scale
    distinct = len(np.unique(np.round(standardised / SAME), axis=0))
    if distinct == 1:
        return Clusters(mean, scale, np.eye(1, features.shape[1]), np.zeros((1, 1)), float("nan"))
    size = min(config.num_components, len(features) - 1, features.shape[1])
    components = _signed(PCA(size, svd_solver="full").fit(standardised).components_)
    points = standardised @ components.T
    wanted = [config.num_bricks] if config.num_bricks else range(2, config.max_bricks + 1)
    best: tuple[float, NDArray[np.float64]] | None = None
    for number in sorted({min(k, distinct) for k in wanted}):
        random_state = derive_seed(seed, "bricks", number) % 2**32
        groups = KMeans(number, n_init=config.num_restarts, random_state=random_state).fit(points)
        score = float("nan")
        if 1 < number < len(points):
            rows = None if len(points) <= SCORED_ROWS else SCORED_ROWS
            with config_context(working_memory=SCORING_MB):
                score = float(silhouette_score(points, groups.labels_, sample_size=rows, random_state=random_state))
        if best is None or score > best[0]:
            best = score, groups.cluster_centers_
    assert best is not None
    return Clusters(mean, scale, components, best[1], best[0])


def _signed(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each component with its largest entry positive, so that maps do not flip between machines."""
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], axis=1)
    return components * np.sign(largest)
