"""CPU features that decide how a model is quantized."""

from __future__ import annotations

import enum
import functools
import platform
from pathlib import Path

from irtools.errors import OptionError

__all__ = ["Isa"]


class Isa(enum.Enum):
    """Instruction set of a CPU, as far as int8 and bf16 arithmetic depend on it.

    Without VNNI, u8 x s8 products are added into saturating 16-bit lanes (vpmaddubsw), so
    8-bit weights can give wrong sums. Everything from VNNI on, and Arm's dot product, is exact.
    """

    SSE = "sse"
    AVX2 = "avx2"
    AVX512 = "avx512"
    VNNI = "vnni"
    AMX = "amx"
    ARM = "arm"
    ARM_DOT = "arm-dot"

    @property
    def has_int8_dot(self) -> bool:
        """Whether int8 products are summed exactly in 32 bits."""
        return self in (Isa.VNNI, Isa.AMX, Isa.ARM_DOT)

    @property
    def has_bf16(self) -> bool:
        """Whether bfloat16 GEMMs are faster than float32 ones.

        AMX includes them; before it only some CPUs with VNNI have AVX512_BF16, which is known
        of this machine alone.
        """
        return self is Isa.AMX or (
            self is Isa.VNNI and _detect() is Isa.VNNI and "avx512_bf16" in _cpu_flags()
        )

    @property
    def is_x86(self) -> bool:
        return self not in (Isa.ARM, Isa.ARM_DOT)

    @property
    def newness(self) -> int:
        """Place in the order of its family: each instruction set has all of those before it."""
        return next(family.index(self) for family in _families() if self in family)

    def runs_on(self, other: Isa) -> bool:
        """Whether a CPU with another instruction set has all of this one."""
        same = any(self in family and other in family for family in _families())
        return same and self.newness <= other.newness

    @classmethod
    def parse(cls, text: str) -> Isa:
        """Read `isa=` of a target; `native` is this machine's.

        Raises:
            OptionError: Not one of the known names.
        """
        if text == "native":
            return cls.detect()
        try:
            return cls(text)
        except ValueError as error:
            known = ", ".join(["native", *(isa.value for isa in cls)])
            raise OptionError(f"isa is {text!r}, expected one of {known}") from error

    @classmethod
    def detect(cls) -> Isa:
        """Return the instruction set of this machine."""
        return _detect()


def _families() -> tuple[tuple[Isa, ...], ...]:
    """Instruction sets by make of CPU, the oldest first."""
    x86 = tuple(isa for isa in Isa if isa.is_x86)
    return x86, tuple(isa for isa in Isa if not isa.is_x86)


@functools.cache
def _detect() -> Isa:
    flags = _cpu_flags()
    if platform.machine().lower() in ("arm64", "aarch64"):
        # Every Apple CPU has the dot product; macOS has no /proc/cpuinfo to say so.
        return Isa.ARM_DOT if "asimddp" in flags or platform.system() == "Darwin" else Isa.ARM
    for isa, wanted in (
        (Isa.AMX, "amx_int8"),
        (Isa.VNNI, "avx512_vnni"),
        (Isa.VNNI, "avx_vnni"),
        (Isa.AVX512, "avx512bw"),
        (Isa.AVX2, "avx2"),
    ):
        if wanted in flags:
            return isa
    return Isa.SSE


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
