"""What scoring will ask for, read while the adapters are at hand: the texts of the data for the users who are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from copl.interfaces import Progress
from copl.records import PreferenceData
from copl.reward.readings import ExpertSettings, Readings
from copl.reward.training.setup import TrainingSetup
from copl.reward.training.user_vectors import UserVectors

if TYPE_CHECKING:
    from copl.records import IntArray

_WORTH_READING_ALL = 2.0
_MANY = 200_000


def read_ahead(
    setup: TrainingSetup,
    readings: Readings,
    data: PreferenceData,
    users: UserVectors | None,
    progress: Progress,
) -> Readings | None:
    """Read what an evaluation of the data will ask for and return it as the head sees it.

    Where few settings of the experts are in use, that is every text under each of them, so that newcomers find their
    texts read as well; else the texts of each seen user's own comparisons. No label is looked at.

    Args:
        setup: the model, trained.
        readings: what is known of it; may be nothing.
        data: all its splits are used.
        users: the seen users as they have become; None for a model that takes no notice of users.
        progress: where to show progress.

    Returns:
        the readings; None where the adapters are zero, so that the frozen features say all.
    """
    if readings.zero:
        return None
    model = setup.model
    codes = readings.encoded(model.head.encode)
    vectors = model.user_centre.unsqueeze(0) if users is None else users.values.float()
    settings = ExpertSettings.of_users(model, vectors)
    rows, user = _asked_for(data, users)
    asked = len(np.unique(rows * len(settings) + settings.of[user]))
    num_texts = len(data.responses)
    if num_texts * len(settings) <= _WORTH_READING_ALL * max(asked, num_texts):
        _, one_of_each = np.unique(settings.of, return_index=True)
        rows, user = np.repeat(np.arange(num_texts), len(settings)), np.tile(one_of_each, num_texts)
    if asked <= _MANY:
        codes.of(data.responses, rows, settings, user, progress)
    return codes


def _asked_for(data: PreferenceData, users: UserVectors | None) -> tuple[IntArray, IntArray]:
    """The text and the user of each side of each comparison of a seen user."""
    known = {user: row for row, user in enumerate(() if users is None else users.ids)}
    own = np.array([0 if users is None else known.get(user, -1) for user in data.users.ids], dtype=np.int64)
    pairs = [split for split in data.splits.values() if len(split)]
    rows = np.concatenate([np.concatenate([part.chosen, part.rejected]) for part in pairs])
    user = np.concatenate([np.tile(own[part.user], 2) for part in pairs])
    return rows[user >= 0], user[user >= 0]
