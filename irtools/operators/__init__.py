"""What an operator is: one declaration each, and the rules that rooms keep for them.

`Op` declares facts. What the ONNX standard says (arity, attributes, types) is read from its schema.
A `RuleTable` answers one question by operator: the room that asks it keeps the table.
"""

from irtools.operators.catalog import all_ops, find_op
from irtools.operators.op import Fold, Kind, Op, Port, op_key
from irtools.operators.ports import bias_input, weight_port
from irtools.operators.rules import RuleTable
from irtools.operators.schema import OutputType, has_schema, output_type

__all__ = [
    "Fold",
    "Kind",
    "Op",
    "OutputType",
    "Port",
    "RuleTable",
    "all_ops",
    "bias_input",
    "find_op",
    "has_schema",
    "op_key",
    "output_type",
    "weight_port",
]
