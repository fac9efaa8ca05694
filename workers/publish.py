"""The publish stage: the exported model gets its card and is moved to where the job's result is looked for."""

import shutil
from pathlib import Path

from service.spec import AlignmentJob
from service.spec.data_report import DataReport
from service.spec.origin import Origin
from workers.durable import sync


def publish(
    exported: Path, target: Path, job_id: str, job: AlignmentJob, report: DataReport, curves: Path, data_sha256: str
) -> int:
    """Move the model into place by one rename; return its size in bytes. A second call finds it done.

    curves: a directory of TensorBoard files that goes with it, if it is there. data_sha256: of the training file.
    """
    if not target.exists():
        if curves.is_dir():
            shutil.copytree(curves, exported / "tensorboard", dirs_exist_ok=True)
        (exported / "README.md").write_text(model_card(job_id, job, report, data_sha256))
        sync(exported / "README.md")
        sync(Origin(job_id=job_id, model=job.model).write(exported))
        target.parent.mkdir(parents=True, exist_ok=True)
        exported.rename(target)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def model_card(job_id: str, job: AlignmentJob, report: DataReport, data_sha256: str) -> str:
    """Markdown in the Hugging Face form; everything needed to make the model again. What came after it, evaluations
    above all, is in the card that GET /v1/jobs/{job_id}/model-card gives."""
    base = f"base_model: {job.model.repository}\n" if job.model.repository is not None else ""
    losses = ", ".join(f"{loss.weight:g} x {loss.type}" for loss in job.losses)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{base}tags: [plumbline, {", ".join(loss.type for loss in job.losses)}]
---
# {job.name or job_id}

Aligned with Plumbline in job `{job_id}`, starting from `{job.model.source}`.

| | |
|---|---|
| losses | {losses} |
| rows | {report.used} used of {report.rows}, {report.truncated} truncated to {job.data.max_length} tokens |
| method | {job.training.method.type} |
| data | `{job.data.train}` |
| data, SHA-256 | `{data_sha256}` |
| batch size | {job.training.batch_size} rows |
| learning rate | {job.learning_rate:g}, {job.training.schedule} |
| epochs | {job.training.epochs:g} |
| precision | {job.training.precision} |
| seed | {job.training.seed} |

The complete specification:

```json
{job.model_dump_json(indent=2)}
```
"""
