"""Makes a model of a checkpoint: `python -m workers.checkpoint_export`, a Ray job of its own.

The weights that the job started from, with what the checkpoint says of those that are trained, written as at the end of
training (workers.export): one process, in float32, so it takes the memory of the whole model. Only a whole model gets
its name, and the first one does: a try that was given up and ends after all changes nothing.
"""

import json
import logging
import os
import shutil
import sys
from pathlib import Path

from service.spec import Storage
from service.spec.export import ExportBrief, Refusal, refusal_path
from service.spec.origin import Origin
from service.spec.reports import Fault
from workers.errors import AttemptError

logger = logging.getLogger(__name__)

_CARD = """---
library_name: transformers
pipeline_tag: text-generation
---
# {job_id}@{step}

The checkpoint after step {step} of the Plumbline job `{job_id}`, which started from `{source}`.
"""


def main() -> int:
    logging.basicConfig(level=logging.INFO)
    brief = ExportBrief.model_validate_json(os.environ["PLUMBLINE_EXPORT"])
    try:
        export_checkpoint(brief)
    except AttemptError as error:
        logger.error("no model was made: %s", error)
        _refuse(brief, error.code, error.message, error.fault)
        return 1
    return 0


def export_checkpoint(brief: ExportBrief) -> None:
    """Raises AttemptError. A second call finds it done."""
    if brief.target.exists():
        return
    if not brief.checkpoint.is_dir():
        raise AttemptError(
            "checkpoint_missing", f"There is no checkpoint at {brief.checkpoint} as the cluster sees it."
        )
    # seconds, which a try that has nothing to do does without
    from workers.engine.adapters import adapt
    from workers.engine.checkpoint import load_parameters
    from workers.engine.models import load_model, trainable
    from workers.export import export
    from workers.hub import pinned
    from workers.sources import start_weights

    storage = Storage(Path(brief.storage))
    origin = pinned(brief.model, storage.run(brief.job_id))
    start = start_weights(origin, brief.method, storage)
    base = load_model(start.model, random_seed=brief.seed if brief.model.weights == "random" else None)
    model = adapt(base, brief.method, brief.seed, start.adapter)
    load_parameters(brief.checkpoint, trainable(model))
    ours = brief.target.with_name(f".{brief.target.name}.{brief.generation}")
    export(model, start.model, ours)
    (ours / "README.md").write_text(
        _CARD.format(job_id=brief.job_id, step=brief.step, source=json.dumps(origin.source)[1:-1])
    )
    Origin(job_id=brief.job_id, model=origin).write(ours)
    try:
        ours.rename(brief.target)
    except OSError:  # a name that is taken is told in several ways
        if not brief.target.is_dir():
            raise
        shutil.rmtree(ours)


def _refuse(brief: ExportBrief, code: str, message: str, fault: Fault) -> None:
    refusal = Refusal(generation=brief.generation, code=code, message=message, fault=fault)
    path = refusal_path(brief.checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{brief.generation}")
    temporary.write_text(refusal.model_dump_json())
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
