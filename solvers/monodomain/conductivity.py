"""From measured conductivities to the diffusion coefficients of the monodomain equation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Membrane:
    """Membrane area per tissue volume (1/mm) and capacitance per membrane area (uF/mm^2)."""

    surface_to_volume_per_mm: float = 140.0
    capacitance_uF_mm2: float = 0.01

    @property
    def capacitance_uF_mm3(self) -> float:
        """Capacitance per tissue volume: divides uA/mm^3 to give mV/ms, and mS/mm to give mm^2/ms."""
        return self.surface_to_volume_per_mm * self.capacitance_uF_mm2


def monodomain_s_m(intracellular_s_m: float, extracellular_s_m: float) -> float:
    """Half the harmonic mean, gi ge / (gi + ge): both domains in series, S/m (which is mS/mm)."""
    total = intracellular_s_m + extracellular_s_m
    return intracellular_s_m * extracellular_s_m / total if total > 0 else 0.0


def diffusion_mm2_ms(intracellular_s_m: float, extracellular_s_m: float, membrane: Membrane) -> float:
    """Diffusion coefficient sigma / (chi Cm), mm^2/ms."""
    return monodomain_s_m(intracellular_s_m, extracellular_s_m) / membrane.capacitance_uF_mm3
