"""GPUs and what their makers say of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    name: str
    memory: float
    """GiB (what datasheets call GB)."""
    bfloat16: float
    """Dense peak of the tensor cores with float32 sums, TFLOP/s."""
    float32: float
    """Peak of plain float32 arithmetic, TFLOP/s: PyTorch uses no TF32 by default."""
    interconnect: float
    """GB/s to the other GPUs of its machine, in one direction: half of what datasheets state for both."""
    network: float
    """GB/s from its machine to others, per GPU and in one direction."""
    source: str

    @property
    def tf32(self) -> float:
        """Dense peak with TF32 products, TFLOP/s: half of bfloat16's, within 1.1 %, in every datasheet below."""
        return self.bfloat16 / 2


# Share of the dense peak that the counted arithmetic of a training step takes: what one H100 reached, compiled, with 64
# samples of cat-b2 (24 %) and 32 of cat-h2 (25 %), see docs/performance.md.
UTILISATION = 0.25

HOPPER_NETWORK = "network: DGX H100, 400 Gb/s per GPU"
AMPERE_NETWORK = "network: DGX A100, 200 Gb/s per GPU"
NO_NETWORK = "network: 100 Gb/s per GPU assumed"

GPUS = {
    g.name: g
    for g in (
        GPU("h100", 80, 989.4, 67.0, 450, 50, f"NVIDIA H100 datasheet, SXM; {HOPPER_NETWORK}"),
        GPU("h200", 141, 989.4, 67.0, 450, 50, f"NVIDIA H200 datasheet, SXM; {HOPPER_NETWORK}"),
        GPU("a100-80", 80, 312.0, 19.5, 300, 25, f"NVIDIA A100 datasheet, SXM 80 GB; {AMPERE_NETWORK}"),
        GPU("a100-40", 40, 312.0, 19.5, 300, 25, f"NVIDIA A100 datasheet, SXM 40 GB; {AMPERE_NETWORK}"),
        GPU("l40s", 48, 362.05, 91.6, 32, 12.5, f"NVIDIA L40S datasheet, PCIe 4.0 x16; {NO_NETWORK}"),
        GPU("rtx4090", 24, 165.2, 82.6, 32, 12.5, f"NVIDIA Ada whitepaper, PCIe 4.0 x16; {NO_NETWORK}"),
    )
}


def datasheet_peak(device: str, precision: str) -> float:
    """TFLOP/s of the GPU of that full name ("NVIDIA H100 80GB HBM3"), dense; 0 for one that is not in the table."""
    words = device.lower().replace("-", " ").split()
    for name, gpu in GPUS.items():
        model, _, memory = name.partition("-")
        if (model in words or model in "".join(words)) and memory in device:
            return gpu.bfloat16 if precision == "bfloat16" else gpu.float32
    return 0.0
