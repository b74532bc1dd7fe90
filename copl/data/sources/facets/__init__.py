"""The embedded corpus `facets`: real text, simulated users, known truth.

**Texts.** Each of 300 prompts in ten topics has four responses, composed of hand-written advice on the prompt's
subject. A response has five style facets: brief or detailed, plain or technical, cautious or direct, prose or list,
without or with an example. Each facet holds for two of the four responses to a prompt, independently of the others.

**Users.** A user weighs the facets: as its group does, with a deviation of its own. Groups come in opposite pairs with
a little in common, so a model that knows no user is right on about 60 % of the comparisons, one that knows the groups
on about 89 %. User u prefers a to b with probability sigmoid(w_u . (f_a - f_b) / temperature), w_u the user's weights
and f the facets of the responses.

**Splits.** ``train``, ``validation`` and ``test`` of seen users, ``support`` and ``heldout`` of unseen users, all on
trained prompts and each user's on prompts of its own; ``cold`` of seen users on prompts nobody is trained on.

**Sharing.** ``own_wording`` is a dial from a corpus whose responses all users share to one, as logs of conversations
are, where no two comparisons have a response in common: the prompts of that share of the comparisons are put into
words of their own, and nothing else changes.
"""

from copl.data.sources.facets.source import COMPONENTS, FacetsOptions, generate
from copl.data.sources.facets.users import FacetsTruth

__all__ = ["COMPONENTS", "FacetsOptions", "FacetsTruth", "generate"]
