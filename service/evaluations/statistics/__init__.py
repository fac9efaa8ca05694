"""What verdicts show, with how sure that is. Pure functions of numbers.

An outcome is 1 where the first of two models was preferred, 0 where the second was, and 0.5 for a tie. numpy is loaded
with this package, and by nothing else in the control plane: import it where something is computed.
"""

from service.evaluations.statistics.agreement import Agreement, cohen_kappa, krippendorff_alpha
from service.evaluations.statistics.bradley_terry import Rating, bradley_terry
from service.evaluations.statistics.length_control import LengthControlled, length_controlled
from service.evaluations.statistics.means import mean_interval
from service.evaluations.statistics.position import PositionBias, position_bias
from service.evaluations.statistics.sequential import Sequential, capital, sequential
from service.evaluations.statistics.win_rate import Interval, win_rate

__all__ = [
    "Agreement",
    "Interval",
    "LengthControlled",
    "PositionBias",
    "Rating",
    "Sequential",
    "bradley_terry",
    "capital",
    "cohen_kappa",
    "krippendorff_alpha",
    "length_controlled",
    "mean_interval",
    "position_bias",
    "sequential",
    "win_rate",
]
