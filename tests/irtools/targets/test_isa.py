from __future__ import annotations

import pytest

from irtools.errors import OptionError, UnknownNameError
from irtools.targets import Isa, find_target, isa


def _detect(monkeypatch: pytest.MonkeyPatch, machine: str, flags: str) -> Isa:
    monkeypatch.setattr(isa.platform, "machine", lambda: machine)
    monkeypatch.setattr(isa.platform, "system", lambda: "Linux")
    monkeypatch.setattr(isa, "_cpu_flags", lambda: frozenset(flags.split()))
    return isa._detect.__wrapped__()


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "sse4_1", Isa.SSE),
        ("x86_64", "avx2", Isa.AVX2),
        ("x86_64", "avx2 avx_vnni", Isa.VNNI),
        ("x86_64", "avx2 avx512bw", Isa.AVX512),
        ("x86_64", "avx2 avx512bw avx512_vnni", Isa.VNNI),
        ("x86_64", "avx2 avx512bw avx512_vnni amx_int8", Isa.AMX),
        ("aarch64", "asimd", Isa.ARM),
        ("aarch64", "asimd asimddp", Isa.ARM_DOT),
    ],
)
def test_detection(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, expected: Isa
) -> None:
    assert _detect(monkeypatch, machine, flags) is expected


def test_only_x86_without_vnni_saturates() -> None:
    saturating = {i for i in Isa if i.is_x86 and not i.has_int8_dot}
    assert saturating == {Isa.SSE, Isa.AVX2, Isa.AVX512}


def test_bf16() -> None:
    assert Isa.AMX.has_bf16
    assert not Isa.AVX512.has_bf16
    assert not Isa.ARM_DOT.has_bf16


def test_targets_for_another_machine() -> None:
    assert find_target("ort-cpu:isa=avx2").isa is Isa.AVX2
    assert find_target("ort-cpu").isa is Isa.detect()
    with pytest.raises(OptionError, match="isa is 'sse9', expected one of native, sse"):
        find_target("ort-cpu:isa=sse9")
    with pytest.raises(OptionError, match="no option 'is'; did you mean 'isa'"):
        find_target("ort-cpu:is=avx2")
    with pytest.raises(UnknownNameError, match="did you mean 'ort-cpu'"):
        find_target("ort-cpy")
