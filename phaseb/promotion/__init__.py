"""Do no harm, as a decision: paired tests with a budget, and the arm that is shipped."""

from phaseb.promotion.contest import Contest
from phaseb.promotion.decision import decide, decide_by_estimate

__all__ = ["Contest", "decide", "decide_by_estimate"]
