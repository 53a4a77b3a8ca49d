"""Settings that take over trained parts of another run instead of training them anew."""

from pydantic import Field

from phaseb.config.section import Section


class ReuseConfig(Section):
    """Run directories whose frozen parts are taken over. Empty: trained here.

    Generators and gate were trained on its encoder's latents and on scaled actions: both must be this run's too.
    """

    encoder: str = Field("", description="run directory whose encoder encodes this run's episodes")
    dynamics: str = Field("", description="run directory whose generators are taken over; needs the same encoder")
    trust: str = Field("", description="run directory whose gate weighs this run's rollouts; needs the same encoder")
