"""State-variable interpolation: in elements that a front crosses, the ionic current comes from states and voltage between the nodes.

P. Pathmanathan, G. R. Mirams, J. Southern, J. P. Whiteley, "The significant effect of the choice of ionic current integration method in
cardiac electro-physiological simulations", Int J Numer Meth Biomed Engng 27 (2011) 1751. Elsewhere the current is the interpolated one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic import Cells
from twin.errors import InputError
from twin.params import Param

SPAN = Param(
    5.0, "mV", 0.1, 20.0, "elements that span less keep the interpolated current: P8 of the slab moves by 0.01 ms, design/monodomain.md"
)
_NEAR, _FAR = 0.5854101966249685, 0.1381966011250105
_SHAPE = np.full((4, 4), _FAR) + (_NEAR - _FAR) * np.eye(4)
"""Shape functions at the four points of the rule of degree 2: point q lies nearest to node q."""


class InterpolatedCurrent:
    """What state-variable interpolation adds to M I in the elements of a front.

    tets (m, 4): rows of the solver; volume (m,) mm^3; cells: of these rows. Raises InputError for cells that are not `Cells`.
    """

    def __init__(self, tets: NDArray[np.int32], volume: NDArray[np.float64], cells: object) -> None:
        if not isinstance(cells, Cells):
            remedy = 'use scheme = "explicit" or "reference" for tissue with fibrosis'
            raise InputError("monodomain", "scheme", "interpolates the states of cell models, and these have others", remedy)
        self.cells, self.volume = cells, volume
        model = cells.model_of_node()
        names = np.unique([m.name for m in cells.models], return_inverse=True)[1]
        # states of two models cannot be mixed: elements between them keep the interpolated current
        alike = (names[model[tets]] == names[model[tets[:, :1]]]).all(axis=1)
        self.tets, self.volume = np.ascontiguousarray(tets[alike]), volume[alike]
        self._region = model

    def excess(self, v: NDArray[Any]) -> NDArray[np.float64]:
        """Integral of N_a (I(interpolated states) - interpolated I) over all elements, (n,) mm^3 mV/ms; v (n,) mV."""
        at_nodes = v[self.tets]
        crossed = np.flatnonzero(at_nodes.max(axis=1) - at_nodes.min(axis=1) > SPAN.value)
        nothing = np.zeros(len(v))
        if not len(crossed):
            return nothing
        tets = self.tets[crossed]
        nodes, local = np.unique(tets, return_inverse=True)
        local = local.reshape(-1, 4)
        nodal = self.cells.current_at(nodes[:, None], np.ones((1, 1)), v)[:, 0]
        between = self.cells.current_at(tets, _SHAPE, v)
        weight = (0.25 * self.volume[crossed])[:, None] * ((between - nodal[local] @ _SHAPE.T) @ _SHAPE)
        added: NDArray[np.float64] = np.asarray(np.bincount(tets.ravel(), weight.ravel(), minlength=len(v)), np.float64)
        return added
