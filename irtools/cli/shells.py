"""What a shell is given for completing `irc`."""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

__all__ = ["SHELLS", "VARIABLE", "register"]

VARIABLE = "_IRC_COMPLETE"
"""Set by the scripts: `irc` then prints completions and does nothing else."""

# readline divides words at : and =, which pipeline text is full of. The line itself is handed to
# irc, which returns the part that readline replaces.
_BASH = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            open) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS=${COMP_LINE:0:COMP_POINT} COMP_WORDBREAKS=$COMP_WORDBREAKS \\
        %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
# As click's, but a completion may have commas in it.
_FISH = """\
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
        COMP_CWORD=(commandline -t) %(prog_name)s)
    for completion in $response
        set -l parts (string split -m 1 "," $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""
_MARK = "\x01"


class _Bash(BashComplete):
    """Completes words with `:` and `=` in them, and leaves a pipeline open for more."""

    source_template = _BASH
    _word = ""

    def source(self) -> str:
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        # The mark makes the last word one that is never empty and never finished.
        *words, last = split_arg_string(os.environ["COMP_WORDS"] + _MARK)
        self._word = last.replace(_MARK, "")
        return words[1:], self._word

    def format_completion(self, item: CompletionItem[Any]) -> str:
        if item.type != "plain":
            return f"{item.type},"
        kind = "open" if item.unfinished else "plain"
        return f"{kind},{item.value.removeprefix(self._kept())}"

    def _kept(self) -> str:
        """Return the beginning of the word that readline leaves as it is."""
        word = self._word
        if word.startswith("-"):
            word = word.partition("=")[2]
        breaks = [word.rfind(c) for c in ":=" if c in os.environ.get("COMP_WORDBREAKS", "")]
        return word[: max(breaks, default=-1) + 1]


class _Fish(FishComplete):
    source_template = _FISH


_HOW = {
    "bash": "# To install, once:\n"
    "#   irc completion bash > ~/.local/share/bash-completion/completions/irc\n"
    '# or add to ~/.bashrc: eval "$(irc completion bash)"\n',
    "zsh": "# To install, once, into a folder of $fpath:\n"
    '#   irc completion zsh > "${fpath[1]}/_irc"\n'
    '# or add to ~/.zshrc, after compinit: eval "$(irc completion zsh)"\n',
    "fish": "# To install, once:\n#   irc completion fish > ~/.config/fish/completions/irc.fish\n",
}
SHELLS = tuple(_HOW)


def register() -> None:
    """Let `irc` answer the scripts that `script` returns."""
    add_completion_class(_Bash)


def script(shell: str) -> str:
    """Return the script of a shell, with how to install it at its head."""
    kind = {"bash": _Bash, "zsh": ZshComplete, "fish": _Fish}[shell]
    # No command is needed for the text of a script.
    text = kind(None, {}, "irc", VARIABLE).source()  # type: ignore[arg-type]
    first, rest = text.split("\n", 1)
    if first.startswith("#compdef"):  # zsh reads it on the first line only.
        return f"{first}\n{_HOW[shell]}{rest}"
    return f"{_HOW[shell]}{text}"
