"""Hardware that a run is planned for: what `theseum plan` needs to know of machines that need not be here."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import config

Above0 = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


@config
class ClusterConfig:
    """`nodes` machines with `devices` each, which serve one rank of a training job each.

    A device of `device_type` cpu is a machine's processor with its memory, which all ranks on it share.
    `memory_gib` is that of one device; `tflops_bf16` and `tflops_float32` are its peaks for dense matrix
    products in that precision, in 10^12 operations a second. `utilisation` is the share of the peak that
    training is expected to reach: an assumption, to be replaced by what your runs report as `mfu`.
    `link_gb_per_second` is how much one device sends to others of its machine, `network_gb_per_second` how
    much one machine sends to others.
    """

    device_type: Literal["cuda", "cpu"]
    memory_gib: Above0
    tflops_float32: Above0
    tflops_bf16: Above0
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.4
    nodes: Count = 1
    devices: Count = 1
    link_gb_per_second: Above0 | None = None
    network_gb_per_second: Above0 | None = None

    def peak_flops(self, precision: str) -> float:
        """Operations a second of one device in `precision` (float32, bf16 or fp16)."""
        return 1e12 * (self.tflops_float32 if precision == "float32" else self.tflops_bf16)

    def ranks_on_a_device(self, processes: int) -> int:
        """How many of `processes` ranks share one device, ranks spread evenly."""
        return -(-processes // (self.nodes * self.devices))

    def slowest_link(self, processes: int) -> float | None:
        """Bytes a second between neighbours of a ring through all ranks; None where that is not told."""
        if processes <= 1:
            return None
        told = self.link_gb_per_second
        if processes > self.devices and self.nodes > 1:
            told = self.network_gb_per_second
        return None if told is None else 1e9 * told
