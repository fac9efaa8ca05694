"""Which pairs are held out, and in which order the others are trained: known up front, from the seed alone."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.spec import AlignmentJob

_SPLIT, _ORDER, _SAMPLE = 0, 1, 2  # separate random streams


class TrainingOrder:
    """Positions of examples for each optimizer step; epochs are permutations laid end to end.

    A step holds `batch_size` examples, the last one possibly fewer. What came from one row of the file, as the two
    answers of a pair do for losses of single answers, is held out together or not at all. Rows of a validation file,
    whose numbers are negative, are held out all, and then no others.
    """

    def __init__(self, job: AlignmentJob, rows: ArrayLike) -> None:
        """rows: of each example, the number of its row in the file."""
        self._seed = job.training.seed
        self._batch_size = job.training.batch_size
        numbers, row = np.unique(np.asarray(rows), return_inverse=True)
        is_held_out = numbers[row] < 0 if job.data.validation else self._drawn_out(job, numbers, row)
        self.held_out: NDArray[np.int64] = np.flatnonzero(is_held_out)
        self._train = np.flatnonzero(~is_held_out)
        self._drawn: tuple[int, NDArray[np.int64]] = (-1, self._train)  # the last epoch asked for
        self._num_visits = max(1, round(len(self._train) * job.training.epochs))
        steps = -(-self._num_visits // self._batch_size)
        self.num_steps = min(steps, job.training.max_steps or steps)
        self._evaluate_every = job.evaluation.every or self.num_steps

    def _drawn_out(self, job: AlignmentJob, numbers: NDArray[np.int64], row: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Of each example, whether its row is one of those that the seed takes out of training."""
        count = len(row)
        shuffled = row[np.random.default_rng([self._seed, _SPLIT]).permutation(count)]
        drawn = shuffled[np.sort(np.unique(shuffled, return_index=True)[1])]  # every row once
        most = min(int(count * job.evaluation.held_out_fraction), job.evaluation.held_out_max, count - 1)
        fits = np.cumsum(np.bincount(row, minlength=len(numbers))[drawn]) <= most
        return np.isin(row, drawn[fits])

    def step(self, step: int) -> NDArray[np.int64]:
        """Positions of the pairs of step 0, 1, ... num_steps - 1."""
        start = step * self._batch_size
        stop = min(start + self._batch_size, self._num_visits)
        parts = []
        while start < stop:
            epoch, offset = divmod(start, len(self._train))
            end = min(stop - start + offset, len(self._train))
            parts.append(self._epoch(epoch)[offset:end])
            start += end - offset
        return np.concatenate(parts)

    def epoch_at(self, step: int) -> float:
        """Passes over the data when `step` steps are done."""
        return min(step * self._batch_size, self._num_visits) / len(self._train)

    def first_visits(self) -> NDArray[np.int64]:
        """Every row the job needs, once, in the order of first need; held-out ones where they are first measured."""
        steps = [self.step(step) for step in range(self.num_steps)]
        measured = min(self._evaluate_every, self.num_steps)
        visits = np.concatenate([*steps[:measured], self.held_out, *steps[measured:]])
        _, first = np.unique(visits, return_index=True)
        ordered: NDArray[np.int64] = visits[np.sort(first)]
        return ordered

    def sample_trained(self, most: int) -> tuple[int, list[int]]:
        """How many examples the job trains on, and `most` of them at most, drawn by the seed; in order of the file."""
        trained = np.setdiff1d(self.first_visits(), self.held_out)
        if len(trained) <= most:
            return len(trained), trained.tolist()
        drawn = np.random.default_rng([self._seed, _SAMPLE]).choice(trained, most, replace=False)
        return len(trained), np.sort(drawn).tolist()

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if self._drawn[0] != epoch:
            self._drawn = (epoch, np.random.default_rng([self._seed, _ORDER, epoch]).permutation(self._train))
        order: NDArray[np.int64] = self._drawn[1]
        return order
