"""Measures of forecasts: pure functions of tensors ``(n, steps, C, H, W)``, on the device of their input.

Three groups of modules; nothing that trains imports the last.

- measures: rmse, spectrum, equivariance, and measures of other benchmarks
- what a run needs: runs (its folder), score, baselines, price, relaxation, breaking, predict, export, ablation (nets
  with one part changed)
- programs: report (with claims, paired, summary) and figures (with convection, style) over finished runs; speed, card
  and rotation over nets
"""

from evaluation.equivariance import equivariance_error
from evaluation.measures import correlation, vrmse
from evaluation.rmse import fill_land, rmse, squared_error
from evaluation.spectrum import energy_spectrum, energy_spectrum_error, log_spectrum, spectrum_error

__all__ = [
    "correlation",
    "energy_spectrum",
    "energy_spectrum_error",
    "equivariance_error",
    "fill_land",
    "log_spectrum",
    "rmse",
    "spectrum_error",
    "squared_error",
    "vrmse",
]
