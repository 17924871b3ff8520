"""The machine that a plan is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

ALIKE = 0.05  # a peak this close to a known GPU's is taken for it
UTILISATION = 0.4  # an assumption, where nothing was measured


class Gpu(NamedTuple):
    """A known GPU, by its data sheet: dense TFLOP/s in bfloat16 and in float32 without TF32, and memory in GB.

    Attributes:
        utilisation: share of the peak in bfloat16 that training achieves.
    """

    half: float
    full: float
    memory_gb: float
    utilisation: float = UTILISATION


GPUS = {
    "RTX 3090": Gpu(71, 35.6, 24),
    "A10": Gpu(125, 31.2, 24),
    "RTX 4090": Gpu(165, 82.6, 24),
    "A100": Gpu(312, 19.5, 80),
    "L40S": Gpu(362, 91.6, 48),
    "H100": Gpu(989, 67, 80, utilisation=0.2),  # ViT-B, 32 clips (docs/performance.md)
}


@dataclass(frozen=True)
class Hardware:
    """GPUs, and how well they are used.

    Attributes:
        gpus: that share pretraining, in place of those that the settings ask for.
        peak: FLOP/s of one GPU in half precision.
        utilisation: share of the peak that is achieved; by default that of the known GPU.
        full_peak: the same in float32; by default that of the known GPU with this peak, or else the same.
        memory: bytes of one GPU; by default that of the known GPU; None where it is unknown.
        loader_rate: clips per second that one core prepares for pretraining; None: as `xkd.plan.loading` estimates.
    """

    gpus: int | None
    peak: float
    utilisation: float
    full_peak: float
    memory: float | None
    loader_rate: float | None = None

    @classmethod
    def of(
        cls,
        peak: float,
        utilisation: float | None = None,
        gpus: int | None = None,
        memory_gb: float | None = None,
        full_peak: float | None = None,
        loader_rate: float | None = None,
    ) -> Hardware:
        """Returns the hardware with this peak in FLOP/s; what is not given is that of the known GPU."""
        known = next((gpu for gpu in GPUS.values() if abs(gpu.half * 1e12 - peak) <= ALIKE * peak), None)
        if memory_gb is None and known:
            memory_gb = known.memory_gb
        if utilisation is None:
            utilisation = known.utilisation if known else UTILISATION
        full = full_peak or (known.full * 1e12 if known else peak)
        return cls(gpus, peak, utilisation, full, memory_gb * 1e9 if memory_gb else None, loader_rate)

    def speed(self, gpus: int, precision: str) -> float:
        """Returns the FLOP/s that so many GPUs (or one processor, where there is none) achieve."""
        return max(gpus, 1) * self.utilisation * (self.full_peak if precision == "float32" else self.peak)
