"""What a package with passes or targets of its own tests them with; needs nothing but `irtools`.

from irtools.testing import check_pass, run_on_text

def test_contract() -> None:
    check_pass(DropDropout())

def test_one_case() -> None:
    assert "Dropout" not in run_on_text(DropDropout(), SOURCE)
"""

from irtools.testing.contract import CHECKS, Check, ContractError, check_pass
from irtools.testing.models import TINY_MODELS, read_model
from irtools.testing.running import apply_pass, run_on_text
from irtools.testing.starter import write_starter
from irtools.testing.targets import check_target

__all__ = [
    "CHECKS",
    "Check",
    "ContractError",
    "TINY_MODELS",
    "apply_pass",
    "check_pass",
    "check_target",
    "read_model",
    "run_on_text",
    "write_starter",
]
