"""The statistics of a rate: Wilson, Newcombe, weights (Kish), clusters (ratio estimator, design effect)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; give a number between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(numerator: Any, denominator: Any, *, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """Give the Wilson interval of a rate, for numbers or arrays: lower and upper limit, 0 to 1.

    The denominator may be an effective number of trials, with a numerator to match. Without trials both limits
    are missing (NaN).

    >>> "{:.4%} {:.4%}".format(*wilson(1, 10))
    '1.7876% 40.4150%'
    """
    import numpy as np

    x, n = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    n = np.where(n > 0, n, np.nan)
    z = _z(confidence)
    rate = x / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    spread = np.sqrt(np.maximum(rate * (1 - rate), 0) / n + z * z / (4 * n * n))
    half = z * spread / (1 + z * z / n)
    low = np.where(rate <= 0, rate, np.clip(centre - half, 0, 1))  # exact at the ends, whatever the rounding
    high = np.where(rate >= 1, rate, np.clip(centre + half, 0, 1))
    return low[()], high[()]


def newcombe(
    first: tuple[float, float], second: tuple[float, float], *, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Give the difference of two independent rates, first minus second, with Newcombe's interval.

    Parameters
    ----------
    first, second
        Numerator and denominator of each. The same domains scanned twice are not independent: see
        `rtls_analysis.analysis.snapshots.paired_changes`.

    Returns
    -------
    tuple
        Difference, lower and upper limit, as shares (0.01 is a percentage point).

    Examples
    --------
    >>> "{:.4%} {:.4%} {:.4%}".format(*newcombe((74_256, 90_938), (62_885, 94_037)))
    '14.7830% 14.3906% 15.1748%'
    """
    limits = [wilson(*pair, confidence=confidence) for pair in (first, second)]
    (low1, high1), (low2, high2) = limits
    gap, low, high = difference(first[0] / first[1], low1, high1, second[0] / second[1], low2, high2)
    return float(gap), float(low), float(high)


def difference(p1: Any, low1: Any, high1: Any, p2: Any, low2: Any, high2: Any) -> tuple[Any, Any, Any]:
    """Give the difference of two independent rates from their own intervals (Newcombe 1998, method 10)."""
    gap = p1 - p2
    below = ((p1 - low1) ** 2 + (high2 - p2) ** 2) ** 0.5
    above = ((high1 - p1) ** 2 + (p2 - low2) ** 2) ** 0.5
    return gap, gap - below, gap + above


def kish(weights: Any) -> float:
    """Give the number of equally weighted trials that tell as much, (Σw)²/Σw²; 0 without any weight.

    >>> round(kish([1000, 400, 100, 50, 20, 10, 5, 5, 5, 5]), 2)
    2.18
    """
    import numpy as np

    w = np.asarray(weights, dtype=float)
    squares = float((w * w).sum())
    return float(w.sum()) ** 2 / squares if squares else 0.0


@dataclass(frozen=True, slots=True)
class ClusterRate:
    """A rate over clusters, such as the domains of providers, which are not independent.

    `standard_error` and `design_effect` are missing (NaN) with fewer than two clusters, the effect also where all
    trials agree. `effective_trials` are those on which an interval may stand.
    """

    rate: float
    standard_error: float
    design_effect: float
    clusters: int
    effective_trials: float


def cluster_rate(successes: Any, trials: Any) -> ClusterRate:
    """Estimate a rate over clusters by the ratio estimator, R = Σy/Σm.

    Parameters
    ----------
    successes, trials
        y and m of each cluster.

    Notes
    -----
    The variance is k/(k-1) Σ(y - R m)²/(Σm)², the design effect its ratio to R(1-R)/Σm, and the trials divided by
    it are the effective ones; a design effect below one is not taken for more trials than there were. Where it
    cannot be had, because all trials agree or one cluster is alone, each cluster counts as one decision: the
    effective trials are Kish's number of the cluster sizes.

    Examples
    --------
    >>> m, y = [1000, 400, 100, 50, 20, 10, 5, 5, 5, 5], [1000, 0, 90, 50, 10, 10, 0, 5, 5, 0]
    >>> found = cluster_rate(y, m)
    >>> round(found.rate, 5), round(found.standard_error, 4), round(found.design_effect, 1)
    (0.73125, 0.2621, 559.4)
    """
    import numpy as np

    y, m = np.asarray(successes, dtype=float), np.asarray(trials, dtype=float)
    y, m = y[m > 0], m[m > 0]
    total, clusters = m.sum(), len(m)
    if not clusters:
        return ClusterRate(float("nan"), float("nan"), float("nan"), 0, 0.0)
    rate = y.sum() / total
    error, effect, effective = cluster_spread(
        rate, ((y - rate * m) ** 2).sum(), total, total, clusters, kish(m)
    )
    return ClusterRate(float(rate), float(error), float(effect), clusters, float(effective))


def cluster_spread(
    rate: Any, squares: Any, total: Any, trials: Any, clusters: Any, decisions: Any
) -> tuple[Any, Any, Any]:
    """Give standard error, design effect and effective trials, for numbers or arrays.

    `squares` is Σ(y - R m)², `total` Σm, which is weighted where `trials` is not; `decisions` is Kish's number of
    the cluster sizes.
    """
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.where(np.greater(clusters, 1), clusters / np.subtract(clusters, 1.0), np.nan)
        variance = variance * squares / np.square(total)
        naive = rate * (1 - rate) / trials
        effect = np.where(naive > 0, variance / naive, np.nan)
        effective = np.where(np.isnan(effect), decisions, trials / np.maximum(effect, 1))
    return np.sqrt(variance), effect, effective
