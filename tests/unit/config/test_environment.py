"""The environment's settings refuse what makes no sense."""

import pytest
from pydantic import ValidationError

from phaseb.config.data import EnvironmentConfig, ValuationConfig


def test_defaults():
    config = EnvironmentConfig()
    assert (config.id, config.max_steps, config.observation) == ("workcell", 60, "both")
    prices = ValuationConfig()
    assert (prices.price_per_unit, prices.cost_per_error, prices.price_per_kwh) == (1, 1, 0.15)


@pytest.mark.parametrize("values", [{"id": ""}, {"max_steps": 0}, {"observation": "smell"}])
def test_a_strange_environment_is_refused(values):
    with pytest.raises(ValidationError):
        EnvironmentConfig(**values)


def test_every_setting_is_described():
    for section in (EnvironmentConfig, ValuationConfig):
        for name, field in section.model_fields.items():
            assert field.description, name
