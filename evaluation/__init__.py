"""Measures of forecasts: pure functions of tensors ``(n, steps, C, H, W)``, on the device of their input.

Three groups of modules; nothing that trains imports the last. No torch here: flags are read before it is imported.

- measures: rmse, spectrum, equivariance, and measures of other benchmarks
- what a run needs: flags, runs (its folder), score, baselines, price, relaxation, breaking, predict, compiled, export,
  ablation (nets with one part changed)
- programs: report (with claims, paired, summary) and figures (with convection, style) over finished runs; speed, card
  and rotation over nets
"""
