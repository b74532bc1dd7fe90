"""`copl export`: one user's reward model for use elsewhere, or the whole run as something to keep or send."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copl.commands.parts.arguments import JSON_OPTION, RUN_ARGUMENT, USERS_OPTION
from copl.commands.parts.display import say, show_json

if TYPE_CHECKING:
    from copl.model import Model
    from copl.records import AdaptedUsers


def export(
    run_directory: RUN_ARGUMENT,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            help="Write this user's reward model as a plain PEFT classifier that needs no copl; without it, the whole"
            " run: what scoring and adapting need, with a card.",
        ),
    ] = None,
    users: USERS_OPTION = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the user's adapter into the backbone and write the whole model.")
    ] = False,
    policy: Annotated[
        bool,
        typer.Option(
            "--policy",
            help="Write this user's voice instead: a plain LoRA of a language model, cut out of the policy for"
            " everybody that `copl align --aligner mixture-dpo` has trained last.",
        ),
    ] = False,
    as_json: JSON_OPTION = False,
) -> None:
    """Write one user's reward model or policy, or a whole run, for use elsewhere."""
    from copl.errors import OptionsError
    from copl.model import Model

    if user is None:
        if merge or users or policy:
            raise OptionsError("--merge, --users and --policy are for one user; name the user with --user")
    elif policy and merge:
        raise OptionsError("--merge is for a reward model; a policy is merged by PEFT's merge_and_unload")
    model = Model.open(run_directory)
    if user is None:
        model.save_pretrained(out)
        facts: Mapping[str, object] = {"directory": str(out)}
        said = f"wrote {out}; Model.from_pretrained opens it"
    else:
        adapted = model.load_adapted(users) if users else None
        if policy:
            facts = _write_policy(model, user, out, adapted)
            said = f"wrote {out} (rank {facts['rank']}, a LoRA of {facts['base']})"
        else:
            facts = model.export(user, out, adapted=adapted, merge=merge)
            what = f"rank {facts['rank']}, {facts['task']}, reward: {facts['reward']}"
            said = f"wrote {out} ({what}); see {out / 'README.md'}"
    if as_json:
        show_json(facts)
    else:
        say(said)


def _write_policy(model: Model, user: str, out: Path, adapted: AdaptedUsers | None) -> dict[str, object]:
    """Cut one user's plain LoRA out of the policy for everybody that the run has, and say what it is."""
    from copl.align.aligners.mixture_dpo import embeds_users
    from copl.align.policies.keeping import is_kept
    from copl.align.policies.mixture import MixturePolicy
    from copl.data.requests import user_named
    from copl.errors import OptionsError, RunError, quoted, suggest
    from copl.records import UserTable
    from copl.runs.policy import kept_policies
    from copl.system.files import is_free

    name = user_named(user)
    known = [*model.method.seen_users(), *(adapted.user_ids if adapted else ())]
    if name not in known:
        raise OptionsError(
            f"user {quoted(name)} is neither trained nor adapted{suggest(name, known)}; adapt them first"
        )
    if not is_free(out):
        raise OptionsError(f"{out}: already there; choose another --out")
    policies = kept_policies(model.run, "mixture-dpo")
    if not policies:
        raise RunError(f"{model.run.root}: has no policy for everybody; `copl align --aligner mixture-dpo` trains one")
    is_kept(policies[-1])  # or it says what is wrong with it
    trained = MixturePolicy.load(policies[-1])
    vector = embeds_users(model.method).user_vectors(UserTable.ungrouped([name]), adapted)[0]
    rank = trained.export(vector, out)
    return {"user": name, "directory": str(out), "rank": rank, "base": str(trained.writer.directory)}
