"""What a good unit, an error and a kilowatt-hour are worth."""

from pydantic import Field

from phaseb.config.section import Section


class ValuationConfig(Section):
    """Prices, in $: they turn measured economics into net value an hour."""

    price_per_unit: float = Field(1.0, ge=0, description="$ earned by a good unit")
    cost_per_error: float = Field(1.0, ge=0, description="$ lost by an error")
    price_per_kwh: float = Field(0.15, ge=0, description="$ paid for a kilowatt-hour of energy")
