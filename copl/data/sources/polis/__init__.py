"""Source ``polis``: votes of a Polis conversation, from its published export, as comparisons of statements.

A participant who agreed with one statement and disagreed with another prefers the first. Two such comparisons of one
participant that share a statement share a vote, so splits are made on votes before pairs are drawn: no two splits of a
participant share a statement, and the cold statements are never trained on.
"""

from copl.data.sources.polis.source import COMPONENTS

__all__ = ["COMPONENTS"]
