"""The Ray actor that scores on the reference pool. The driver imports it without the engine, the actor with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from service.spec import Precision
from workers.lean import without
from workers.sources import Weights

if TYPE_CHECKING:
    from workers.data.example_file import ExampleFile
    from workers.engine.models import CausalLM


@dataclass(frozen=True)
class ScorerConfig:
    weights: Weights
    examples: Path
    store_root: Path
    namespace: str
    precision: Precision
    batch_tokens: int
    compiled: bool = False
    attempt_id: str = ""  # for its log


class Scorer:
    """One worker of the reference pool. Each call scores one window of examples and commits it as one shard."""

    def __init__(self, config: ScorerConfig) -> None:
        with without("scipy", "boto3"):
            import workers.reference.scorer  # noqa: F401  # while it has its place, before it is asked for anything
        from workers.device import hide_other_gpus
        from workers.logs import configure
        from workers.reference.store import ReferenceStore

        configure(config.attempt_id)
        hide_other_gpus()
        self._config = config
        self._store = ReferenceStore(config.store_root, config.namespace)

    @cached_property
    def _lm(self) -> "CausalLM":
        from workers.reference.scorer import load

        return load(self._config.weights, self._config.precision, compiled=self._config.compiled)

    @cached_property
    def _examples(self) -> "ExampleFile":
        from workers.data.example_file import ExampleFile

        return ExampleFile(self._config.examples)  # may not be there yet when the actor starts

    def ready(self) -> str:
        """Loads the model; returns the ways through the engine that it takes. What is wrong with it is raised here: of
        what an actor raises while it is made, Ray tells no more than a text."""
        return self._lm.paths

    def score(self, positions: Sequence[int]) -> None:
        """Score and commit the examples at these positions."""
        from workers.reference.scorer import score

        examples = [self._examples[i] for i in positions]
        scores = score(self._lm, examples, self._config.precision, self._config.batch_tokens)
        self._store.commit((example.key, one) for example, one in zip(examples, scores, strict=True))
