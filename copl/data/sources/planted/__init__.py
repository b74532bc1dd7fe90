"""The simulated preference graphs `planted`: groups of users, pairs of responses, known truth.

**Pairs.** A pair is two responses to a prompt of its own. All groups give a common pair one random label; a
controversial pair has a random label for each group, both labels present. A user chooses as its group labels, with
`label_noise` the other way. The texts only number the responses: they tell nothing of who prefers what.

**Splits.** A share of the pairs (`cold_share`, a tenth) is never trained on. ``train``, ``validation`` and ``test`` of
seen users, ``support`` and ``heldout`` of unseen users are on the other pairs, each user's on different ones; ``cold``
of seen users is on the pairs kept out. So ``test`` asks a user about pairs that others have judged: majority and
mixture of groups can know them, and how much of what they can know an encoder finds is the share of headroom recovered,
(accuracy - consensus) / (limit - consensus). Nothing can be known of a cold pair.

**Popularity.** Pair of rank k is compared in proportion to k^-`popularity`.
"""

from copl.data.sources.planted.source import COMPONENTS, PlantedOptions, generate
from copl.data.sources.planted.world import PlantedTruth

__all__ = ["COMPONENTS", "PlantedOptions", "PlantedTruth", "generate"]
