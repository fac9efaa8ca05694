"""The end of measuring pairs: the file, and the event that says what is in it."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from service.spec.pairs import PairsAbout
from service.spec.reports import EventReport
from service.spec.stages import Stage
from workers.data.example_file import ExampleFile
from workers.data.tokenizer import load_tokenizer
from workers.pairs.measure import PairMeasure
from workers.pairs.pieces import Pieces
from workers.pairs.write import MeasuredPair, write_pairs
from workers.reference.store import Score


def leave_pairs(
    target: Path,
    measure: PairMeasure,
    reference: Mapping[int, Score] | None,
    examples: ExampleFile,
    tokenizer: Path,
    *,
    steps: int,
    seed: int,
) -> EventReport:
    """Write the file on the first worker. A disk that cannot take it costs the file and not the job: the event says so.

    reference: scores under the job's reference, by position; None where it has none that stays.
    """
    before = measure.before if reference is None else reference
    pairs = [MeasuredPair(examples[i], before[i], measure.after[i]) for i in measure.positions]
    measures = [pair.measures() for pair in pairs]
    about = PairsAbout(
        before="start" if reference is None else "reference",
        scored=len(pairs),
        trained=measure.num_trained,
        seed=seed,
        steps=steps,
        seconds=round(measure.seconds, 3),
        preferred_before=sum(one["margin_before"] > 0 for one in measures),
        preferred_after=sum(one["margin_after"] > 0 for one in measures),
    )
    try:
        write_pairs(target, pairs, about, Pieces(load_tokenizer(tokenizer)))
    except (OSError, sqlite3.Error) as error:
        return EventReport(
            type="pairs.failed",
            stage=Stage.EVALUATE,
            message=f"The pairs were measured, but their file could not be written: {error}. The job goes on without.",
        )
    of = f"a sample of {about.scored} of {about.trained}" if about.scored < about.trained else f"all {about.scored}"
    return EventReport(
        type="pairs.measured",
        stage=Stage.EVALUATE,
        message=f"Log-probs of {of} training pairs: the chosen answer is likelier in {about.preferred_after}, "
        f"before in {about.preferred_before}",
        data=about.model_dump(mode="json"),
    )
