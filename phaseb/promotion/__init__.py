"""Do no harm, as a decision: a paired test with a budget, and the arm that is shipped."""

from phaseb.promotion.decision import Estimate, decide, decide_by_estimate, decide_without_candidate

__all__ = ["Estimate", "decide", "decide_by_estimate", "decide_without_candidate"]
