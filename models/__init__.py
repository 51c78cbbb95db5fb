"""Forecasting nets, one file per symmetry.

Conventions, kept everywhere:

* A flow is ``(..., C, H, W)``, C the components of its fields (``models.fields``): a velocity ``("vector",)`` has
  C = 2, a temperature ``("scalar",)`` C = 1, both ``("vector", "scalar")`` C = 3. Of a velocity, the first component u
  is along x = increasing column, the second v along y = increasing row. Row 0 is the south or the bottom (plots use
  ``origin="lower"``).
* A model maps ``(n, input_length, C, H, W)`` to the next frame ``(n, C, H, W)``. Lifting and stacking of frames happen
  inside.
* Hidden features are ``(n, channels, [group,] H, W)``: channels are always axis 1.
* ``SYMMETRIES[name]`` knows its group: ``sample(n, generator)`` draws elements, ``act(g, frames)`` applies them, to a
  velocity or, after ``.on(fields)``, to data of other fields. What each action does to a vector and to a scalar beside
  it, or alone:

  ===== ================================================ ============================== ===============================
  name  velocity w                                       scalar s beside a velocity     scalar alone
  ===== ================================================ ============================== ===============================
  None  w(x - c)                                         s(x - c)                       s(x - c)
  UM    w + c                                            s                              s + c
  Mag   lambda w                                         lambda_s s                     lambda s
  Rot   R w(R^-1 x)                                      s(R^-1 x)                      s(R^-1 x)
  Scale lambda w(lambda x, lambda^2 t)                   s(lambda x, lambda^2 t)        s(lambda x, lambda^2 t)
  ===== ================================================ ============================== ===============================
"""

from models.options import FRAMES, match

__all__ = ["ARCHITECTURES", "FRAMES", "SKELETONS", "SYMMETRIES", "build_model", "match"]


def __getattr__(name):
    """The nets are imported, and torch with them, when first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models import registry

    return getattr(registry, name)
