"""Settings of the clusters of episodes and their economic profiles."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section


class BricksConfig(Section):
    """Semantic clusters of episodes in latent space."""

    num_bricks: int = Field(0, ge=0, le=1000, description="clusters; 0 chooses the number with the best silhouette")
    max_bricks: int = Field(8, ge=2, le=1000, description="most clusters that are tried where the number is chosen")
    features: tuple[Literal["mean", "std", "step", "range"], ...] = Field(
        ("std", "step"),
        min_length=1,
        description="what is pooled over an episode's latents, per dimension: mean, standard deviation, mean absolute "
        "step, range; without the mean, bricks tell how work was done rather than where",
    )
    num_components: int = Field(8, ge=1, le=1000, description="principal components of the features that are clustered")
    num_restarts: int = Field(10, ge=1, le=1000, description="k-means starts; the best one is kept")
    num_bootstrap: int = Field(1000, ge=10, le=100000, description="resamples of a brick's episodes for its intervals")
