"""What answers are truly worth to the simulated users of the embedded corpus, where a run's data come from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

from copl.data.reading.faults import Faults
from copl.data.sources.facets import FacetsOptions, generate
from copl.data.sources.facets.corpus import FACETS
from copl.data.sources.facets.reading import Facets, read_facets
from copl.errors import CoplError, DataError, quoted
from copl.options import parse_options
from copl.records.answers import AnswerRequests

if TYPE_CHECKING:
    from copl.records import FloatArray, PreferenceData


def require_simulated(data: PreferenceData) -> None:
    """Refuse data whose users are real.

    Raises:
        DataError: they are.
    """
    if data.provenance.get("source") != "facets":
        raise DataError(
            f"data set {quoted(data.name)}: what answers are truly worth to its users is not known; it is where the"
            " data are simulated: copl data make facets"
        )


@final
@frozen(eq=False)
class KnownTruth:
    """What each simulated user values.

    Attributes:
        weights: weights of the style facets by user id [5].
    """

    weights: Mapping[str, FloatArray]

    @classmethod
    def of(cls, data: PreferenceData) -> KnownTruth:
        """Return the truth behind a data set, by generating it again.

        Raises:
            DataError: the data are not of the source `facets`, or not as this version of it generates them.
        """
        require_simulated(data)
        about = data.provenance
        try:
            options = parse_options(FacetsOptions, about.get("options", {}), where="facets")
            again, truth = generate(options, int(about.get("seed", 0)))
        except (CoplError, TypeError, ValueError) as error:
            raise DataError(
                f"data set {quoted(data.name)}: its provenance is damaged ({error}); make it anew"
            ) from None
        if again.users.ids != data.users.ids or again.responses.keys != data.responses.keys:
            raise DataError(f"data set {quoted(data.name)}: of another version of the embedded corpus; make it anew")
        return cls(dict(zip(again.users.ids, truth.user_weights, strict=True)))

    def utilities(self, requests: AnswerRequests) -> tuple[FloatArray, ...]:
        """Return what the candidates are worth to each user, weights times facets [P][U, n].

        Raises:
            DataError: a user is not of the data, or the facets of a text cannot be read; one fault each.
        """
        faults = Faults("truth")
        for user in requests.user_ids:
            if user not in self.weights:
                faults.add(f"user {quoted(user)} is none of the simulated users")
        facets: list[list[Facets]] = []
        for prompt, texts in zip(requests.prompts, requests.candidates, strict=True):
            facets.append([])
            for text in texts:
                read = read_facets(prompt, text)
                if read is None:
                    faults.add(f"the style of {quoted(text)} cannot be read; the grammar did not write it")
                facets[-1].append(read or (0,) * len(FACETS))
        faults.raise_any()
        weights = np.array([self.weights[user] for user in requests.user_ids]).reshape(-1, len(FACETS))
        return tuple(weights @ np.array(rows, dtype=np.float64).T for rows in facets)
