"""Raw files -> frames (``Source``) -> ``data/<name>/`` -> windows.

``arrays`` reads tensors and arrays; ``ocean`` reads currents, with ``currents``, ``netcdf`` and ``classic``. ``splits``
cuts a record into windows; ``store`` writes ``data/<name>/`` and reads what describes it; ``windows`` reads batches.
"""
