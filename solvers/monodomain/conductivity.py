"""From measured conductivities to the diffusion coefficients of the monodomain equation."""

from __future__ import annotations

from dataclasses import dataclass

from twin.params import Param

SURFACE_TO_VOLUME = Param(140.0, "1/mm", 50.0, 300.0, "Niederer et al., Phil Trans R Soc A 369:4331 (2011), table 1")
CAPACITANCE = Param(0.01, "uF/mm^2", 0.005, 0.02, "Niederer et al., Phil Trans R Soc A 369:4331 (2011), table 1: 1 uF/cm^2")


@dataclass(frozen=True)
class Membrane:
    """Membrane area per tissue volume (1/mm) and capacitance per membrane area (uF/mm^2)."""

    surface_to_volume_per_mm: float = SURFACE_TO_VOLUME.value
    capacitance_uF_mm2: float = CAPACITANCE.value

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
