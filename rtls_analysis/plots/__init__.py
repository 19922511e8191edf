"""Plots: Axes in and out, a colour per word everywhere, counts shown, what could not be told drawn too."""

from rtls_analysis.plots.readiness import readiness_funnel

__all__ = ["readiness_funnel"]
