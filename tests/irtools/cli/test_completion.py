"""What a shell completes, asked as bash asks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.cli.pass_words import pipeline_words

# What readline does to call a completion function, for one line after the other.
_BASH = """
irc() {{ {python} -P -m irtools.cli.main "$@"; }}
{script}
compopt() {{ how="{{$2}}"; }}
while IFS= read -r line; do
    COMP_LINE=$line; COMP_POINT=${{#line}}; COMP_WORDBREAKS={breaks}
    how=
    _irc_completion irc
    printf '%s%s\\n' "$how" "${{COMPREPLY[*]}}"
done
"""


def _complete(irc: Callable, *lines: str, breaks: str = "$' \\t\\n=:'") -> list[str]:
    """Return for each line the words that bash would offer, after how it would offer them."""
    script = irc("completion", "bash").out
    done = subprocess.run(
        ["bash", "--norc", "-c", _BASH.format(python=sys.executable, script=script, breaks=breaks)],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_words_of_a_command_line(irc: Callable) -> None:
    found = _complete(
        irc,
        "irc opt",
        "irc optimize --no-",
        "irc optimize m.onnx -t openvino-",
        "irc optimize m.onnx -t ort-cpu:isa=av",
        "irc optimize m.onnx --metric f1",
        "irc passes fuse-g",
        "irc optimize m.onnx --passes fp",
        "irc optimize m.onnx --passes cleanup,int8:cal",
        "irc optimize m.onnx --passes=cleanup,int8:calibrator=m",
    )
    assert found == [
        "optimize",
        "--no-bench --no-check --no-cache",
        "openvino-cpu openvino-gpu",
        "avx2 avx512",
        "f1-macro f1-micro",
        "fuse-gelu",
        "{nospace}fp16",
        "{nospace}calibrator=",
        "{nospace}minmax mse moving-average",
    ]


def test_file_names_go_on_completing(irc: Callable) -> None:
    found = _complete(
        irc,
        "irc optimize mod",
        "irc optimize model.onnx --calibrate d",
        "irc bench model.onnx m",
        "irc optimize model.onnx --dump-ir d",
        "irc nonsense zz",
    )
    assert found == ["{default}", "{default}", "{default}", "{dirnames}", ""]


def test_a_shell_whose_words_end_at_spaces_gets_whole_words(irc: Callable) -> None:
    [found] = _complete(irc, "irc plan m.onnx -p int8:calibrator=ms", breaks="' '")
    assert found == "{nospace}int8:calibrator=mse"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_say_how_to_install_them(irc: Callable, shell: str) -> None:
    found = irc("completion", shell)
    assert found.code == 0 and found.err == ""
    assert f"irc completion {shell} > " in found.out
    assert f"_IRC_COMPLETE={shell}_complete" in found.out


def test_commas_stay_in_what_fish_offers(
    irc: Callable, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert 'string split -m 1 ","' in irc("completion", "fish").out
    text = "cleanup,int8:calibrator=ms"
    monkeypatch.setenv("_IRC_COMPLETE", "fish_complete")
    monkeypatch.setenv("COMP_WORDS", f"irc plan m.onnx -p {text}")
    monkeypatch.setenv("COMP_CWORD", text)
    with pytest.raises(SystemExit):
        irc()
    assert capfd.readouterr().out == "plain,cleanup,int8:calibrator=mse\n"


def test_another_shell_is_refused(irc: Callable) -> None:
    found = irc("completion", "tcsh")
    assert found.code == 2 and "'tcsh'" in found.err


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("int", {"int4", "int8"}),
        ("cleanup,O", {"cleanup,O1", "cleanup,O2", "cleanup,O3"}),
        ("cleanup:", {"cleanup:exact="}),
        ("cleanup:exact=", {"cleanup:exact=true", "cleanup:exact=false"}),
        ("cleanup:exact=true:", set()),
        (
            "int8:calibrator=m",
            {f"int8:calibrator={name}" for name in ("minmax", "mse", "moving-average")},
        ),
        ("nothing:", set()),
    ],
)
def test_pipeline_text(text: str, offered: set[str]) -> None:
    found = {word for word, _, _ in pipeline_words(text) if word.startswith(text)}
    assert found == offered


def test_completion_imports_nothing_heavy(irc: Callable, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "os.environ.update(COMP_WORDS='irc optimize m.onnx --passes int8:', "
        "_IRC_COMPLETE='bash_complete')\n"
        "from irtools.cli.main import run\n"
        "try:\n    run([])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('numpy', 'onnx', 'onnx_ir', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "open,int8:calibrator=" in done.stdout
