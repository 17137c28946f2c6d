"""Channel groups: which units of a model belong together, and where their numbers are.

`ChannelGroups.of(model)` follows the channels of every product with a constant weight. A
`ChannelGroup` has a name, the constants that hold its units (`Member`: written by a root, read by
a sink, or carried along), and what else writes their number down (edits). Where the units lie along
an axis is an `IndexMap`. How channels pass an operator is a rule of the table `CHANNELS`.
"""

from __future__ import annotations

from irtools.analysis.channels.groups import (
    NO_RULE,
    AttributeEdit,
    BlockedGroup,
    BlockedReason,
    ChannelGroup,
    GroupAxis,
    Member,
    ShapeEdit,
    TakeEdit,
    removed_parameters,
)
from irtools.analysis.channels.index_map import IndexMap
from irtools.analysis.channels.rules import CHANNELS
from irtools.analysis.channels.trace import ChannelGroups

__all__ = [
    "CHANNELS",
    "NO_RULE",
    "AttributeEdit",
    "BlockedGroup",
    "BlockedReason",
    "ChannelGroup",
    "ChannelGroups",
    "GroupAxis",
    "IndexMap",
    "Member",
    "ShapeEdit",
    "TakeEdit",
    "removed_parameters",
]
