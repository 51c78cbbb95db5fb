"""Raw files -> frames (``Source``) -> ``data/<name>/`` -> windows.

``arrays`` reads tensors and arrays; ``convection`` and ``plumes`` simulate; ``ocean`` reads currents, with
``currents``, ``geostrophy``, ``netcdf`` and ``classic``; ``gridded`` other fields of NetCDF files; ``piv`` measured
velocities; ``hdf5`` other people's trajectories, whose files ``layouts`` knows. ``splits`` says which windows make up a
split; ``store`` writes ``data/<name>/`` and reads what describes it; ``windows`` reads batches. ``arguments`` and
``download`` serve the command line.
"""
