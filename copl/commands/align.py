"""``copl align``: what each user is shown in answer to prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import typer
from attrs import frozen

from copl.commands.parts.arguments import (
    COLUMNS_OPTION,
    QUALITY_OPTION,
    QUALITY_WEIGHT_OPTION,
    RUN_ARGUMENT,
    SEED_OPTION,
    SET_OPTION,
    USERS_OPTION,
    column_names,
)
from copl.commands.parts.components import choose_components
from copl.commands.parts.display import open_progress, say
from copl.commands.parts.flags import takes_records
from copl.commands.parts.interrupts import interruptible
from copl.commands.parts.quality import quality_reward

if TYPE_CHECKING:
    from copl.align.conduct import Assignment
    from copl.align.context import RunContext
    from copl.model import Model
    from copl.records import AdaptedUsers, ComparisonSet
    from copl.records.answers import AnswerRequests
    from copl.reward.quality import QualityReward
    from copl.runs.recipe import Choice


@final
@frozen(kw_only=True)
class _Request:
    """What is answered, for whom and by which components."""

    run_directory: RUN_ARGUMENT
    prompts_file: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS",
            help="JSONL, CSV or Parquet rows with a prompt (text or messages), or lines of text.",
        ),
    ]
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write: one JSON line an answer.")] = None
    aligner: Annotated[str, typer.Option("--aligner", help="Who decides what a user sees.")] = "best-of-n"
    generator: Annotated[str, typer.Option("--generator", help="Who writes the candidates.")] = "local"
    user: Annotated[list[str] | None, typer.Option("--user", metavar="ID", help="Id of a user; may be repeated.")] = (
        None
    )
    users: USERS_OPTION = None
    support: Annotated[
        Path | None,
        typer.Option("--support", help="Newcomers' comparisons, as for `copl adapt`; they are adapted on the spot."),
    ] = None
    columns: COLUMNS_OPTION = None
    everybody: Annotated[bool, typer.Option("--everybody", help="All users of the training.")] = False
    num: Annotated[int, typer.Option("--num", "-n", help="Candidates for each prompt.")] = 8
    quality: QUALITY_OPTION = None
    quality_weight: QUALITY_WEIGHT_OPTION = None
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows",
            help="File to write: the candidates ranked by each user's reward, as rows of prompt, chosen and rejected"
            " that TRL trains policies on; with the aligners dpo and mixture-dpo, whose options say which.",
        ),
    ] = None
    assignments: SET_OPTION = None
    seed: SEED_OPTION = None

    def checked(self) -> dict[str, Choice]:
        """Return the components that were chosen, by kind.

        Raises:
            CoplError: all faults of what was asked.
        """
        from copl.data.targets import check_target
        from copl.errors import OptionsError

        out, rows = self.out, self.rows
        names = {"aligner": self.aligner, "generator": self.generator}
        for target in (path for path in (out, rows) if path):
            check_target(target, self.prompts_file, *(path for path in (self.users, self.support) if path))
        faults = [f"--num {self.num}: at least one candidate"] if self.num < 1 else []
        if out and rows and out.resolve() == rows.resolve():
            faults.append(f"--out and --rows: both name {out}; name a file for each")
        if out is None and rows is None:
            faults.append("nothing to write: name a file for answers by --out, or one for rows by --rows")
        if self.users and self.support:
            faults.append("--users and --support: give one of them")
        chosen = choose_components(names, self.assignments or (), faults)
        if rows is not None and "aligner" in chosen:
            _check_rows(rows, self.num, chosen["aligner"], faults)
        if faults:
            raise OptionsError(faults)
        return chosen

    def fulfil(self, chosen: Mapping[str, Choice]) -> None:
        """Write the rows and the answers of those who are named, of newcomers or of everybody."""
        from copl.align.choosing import candidates_of
        from copl.align.conduct import Assignment
        from copl.align.context import RunContext
        from copl.align.prompts import read_prompts
        from copl.data.requests import read_support
        from copl.model import Model
        from copl.records.answers import AnswerRequests
        from copl.runs.policy import policy_directory

        prompts = read_prompts(self.prompts_file, say)
        names = column_names(self.columns, self.support)
        said = read_support(self.support, say, names) if self.support else None
        writer = chosen["generator"].build()
        key = {name: choice.key() for name, choice in chosen.items()} | {"writer": writer.fingerprint()}
        model = Model.open(self.run_directory)
        seed = model.run.recipe.seed if self.seed is None else self.seed
        adapted = model.load_adapted(self.users) if self.users else model.adapt(said) if said is not None else None
        user_ids = _user_ids(model, self.user or (), adapted, everybody=self.everybody)
        general = quality_reward(model, self.quality, self.quality_weight)
        beside = "" if general is None else general.fingerprint
        key |= {"run": model.fingerprint, "adapted": _fingerprint(adapted), "support": _fingerprint_of_support(said)}
        key |= {"quality": beside} if beside else {}
        with interruptible(self._what_is_kept), open_progress(None) as progress:
            directory = policy_directory(model.run, chosen["aligner"], beside)
            context = RunContext(fitted_run(model, general), writer, directory, progress, seed, adapted, said)
            if self.rows is not None:
                candidates = candidates_of(writer, prompts, num=self.num, seed=seed, progress=progress)
                _say_if_short(sum(len(texts) < self.num for texts in candidates), self.num, chosen["generator"])
                _write_rows(
                    self.rows, AnswerRequests(user_ids, prompts, candidates), context, chosen, model.fingerprint
                )
            if self.out is not None:
                _write_answers(self.out, Assignment(user_ids, prompts, self.num, key), context, chosen)

    def _what_is_kept(self) -> str:
        if self.out is None:
            return "nothing was written"
        return f"what is answered is kept beside {self.out}, and the same command goes on from there"


@takes_records
def align(request: _Request) -> None:
    """Choose, or write, the answer that each user likes best, and say how sure that is.

    A user nothing is known of gets the unpersonalised answer, and the line says so. Interrupted, the same command goes
    on where it was.
    """
    request.fulfil(request.checked())


def _write_answers(out: Path, assignment: Assignment, context: RunContext, chosen: Mapping[str, Choice]) -> None:
    from copl.align.conduct import write_answers

    summary = write_answers(chosen["aligner"].build(), assignment, context, out)
    _say_if_short(summary.num_short, assignment.num_candidates, chosen["generator"])
    kept = f", {summary.num_kept} of them from before; of the new ones" if summary.num_kept else ";"
    differ = f"{summary.num_own} differ from the unpersonalised answer, {summary.num_unknown} are to users nobody knows"
    say(f"wrote {summary.num_answers} answers to {out}{kept} {differ}")


def _say_if_short(num_short: int, num: int, generator: Choice) -> None:
    if num_short:
        prompts = "one prompt" if num_short == 1 else f"{num_short} prompts"
        say(f"generator {generator.name!r} has fewer than the {num} candidates of --num for {prompts}; all are taken")


def _check_rows(rows: Path, num: int, aligner: Choice, faults: list[str]) -> None:
    from copl.align.policies.rows import RowOptions, check_rows_target
    from copl.errors import DataError

    if not isinstance(aligner.options, RowOptions):
        faults.append(f"--rows: aligner {aligner.name!r} makes no rows; take --aligner dpo or mixture-dpo")
    if num < 2:
        faults.append(f"--num {num}: a row of --rows has two candidates; take at least --num 2")
    try:
        check_rows_target(rows)
    except DataError as error:
        faults += error.faults


def _write_rows(
    path: Path, requests: AnswerRequests, context: RunContext, chosen: Mapping[str, Choice], run: str
) -> None:
    from copl.align.policies.rows import preference_rows, write_rows

    about = {"kind": "ranked", "run": run, "generator": chosen["generator"].name, "seed": context.seed}
    known = [context.knows(user) for user in requests.user_ids]
    collected = preference_rows(requests, context.rewards(requests), known, chosen["aligner"].options, about)
    write_rows(path, collected.rows)
    left = {
        "near-ties": collected.num_near,
        "with a text used before": collected.num_repeated,
        "for balance": collected.num_unbalanced,
        "users nobody knows": collected.num_unknown,
    }
    said = ", ".join(f"{count} {name}" for name, count in left.items() if count)
    say(f"wrote {len(collected.rows)} rows to {path}" + (f"; left out: {said}" if said else ""))


def _user_ids(model: Model, named: Sequence[str], adapted: AdaptedUsers | None, *, everybody: bool) -> tuple[str, ...]:
    """Return who is answered, each once: those named, else newcomers, and everybody where that is asked for.

    Raises:
        OptionsError: nobody is.
    """
    from copl.data.requests import user_named
    from copl.errors import OptionsError, quoted, suggest

    seen = model.method.seen_users()
    newcomers = adapted.user_ids if adapted else ()
    ids = [user_named(name) for name in named] or list(newcomers)
    if everybody:
        ids += sorted(seen)
    if everybody and not seen:
        raise OptionsError("--everybody: the run's method knows no users; name some by --user, for the average answer")
    if not ids:
        raise OptionsError("nobody to answer: name users by --user, newcomers by --users or --support, or --everybody")
    known = {*seen, *newcomers}
    for name in dict.fromkeys(ids):
        if known and name not in known:
            say(f"user {quoted(name)} is unknown{suggest(name, known)} and gets the unpersonalised answer")
    return tuple(dict.fromkeys(ids))


def fitted_run(model: Model, quality: QualityReward | None = None) -> Any:
    """Return an opened run as aligners need it (`copl.align.context.FittedRun`), with a quality beside its rewards."""
    from functools import cache, partial

    from copl.align.context import FittedRun
    from copl.runs.pipeline import load_data

    run, scores = model.run, partial(model.scores, quality=quality)
    return FittedRun(run.root, model.method, run.recipe.stages, cache(lambda: load_data(run)[0]), scores)


def _fingerprint(adapted: AdaptedUsers | None) -> str:
    import hashlib

    if adapted is None:
        return ""
    digest = hashlib.sha256("\x00".join(adapted.user_ids).encode("utf-8", "surrogatepass"))
    digest.update(adapted.embeddings.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _fingerprint_of_support(support: ComparisonSet | None) -> str:
    from copl.records import PreferenceData

    if support is None:
        return ""
    given, judged = {"support": support.given}, {"support": support.judgements}
    return PreferenceData("", support.users, support.responses, given, {}, judged).digest("support")
