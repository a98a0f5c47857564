"""Cell models: written once as scalar functions, compiled for vectors.

>>> from solvers.ionic import Cells, ionic_model
>>> model = ionic_model("ten_tusscher_panfilov_2006", cell="epi", scale={"G_Na": 0.38})
"""

from solvers.ionic.cells import Cells
from solvers.ionic.model import IonicModel, cell_names, ionic_model, model_names
from solvers.ionic.pacing import apd_ms, pace

__all__ = ["Cells", "IonicModel", "apd_ms", "cell_names", "ionic_model", "model_names", "pace"]
