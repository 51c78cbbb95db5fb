"""Measures of forecasts: pure functions of tensors ``(n, steps, C, H, W)``, on the device of their input.

The other modules are programs over finished runs (report, figures) and over the nets (speed, card, rotation); nothing
that trains imports them.
"""

from evaluation.equivariance import equivariance_error
from evaluation.rmse import fill_land, rmse, squared_error
from evaluation.spectrum import energy_spectrum, energy_spectrum_error, log_spectrum, spectrum_error

__all__ = [
    "energy_spectrum",
    "energy_spectrum_error",
    "equivariance_error",
    "fill_land",
    "log_spectrum",
    "rmse",
    "spectrum_error",
    "squared_error",
]
