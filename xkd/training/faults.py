"""Steps whose losses or gradients are not finite: they change nothing, are counted, and end a run with too many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xkd.errors import UserError
from xkd.progress import say
from xkd.training.learner import Learner
from xkd.training.step import FAULTY, SKIPPED, Step

if TYPE_CHECKING:
    from xkd.data.loader import Batch

Logged = dict[str, Tensor]


class Faults:
    """Counts the steps without an update. A GPU tells its last step's outcome one step late, so that it never idles.

    Args:
        learner, update: what is trained, and the step that trains it.
        budget: faulty steps that a run may have.

    Attributes:
        skipped: steps without an update.
        faulty: those of them that float16 does not explain.
    """

    def __init__(self, learner: Learner, update: Step, budget: int) -> None:
        self.learner, self.update, self.budget = learner, update, budget
        self.skipped = self.faulty = 0
        self._late = 1 if learner.device.type == "cuda" else 0
        self._unread: deque[tuple[int, Batch, Logged, Callable[[], list[bool]]]] = deque()

    def add(self, step: int, batch: Batch, logged: Logged) -> None:
        """Takes a step's flags out of what it logged, and reads those of the step before.

        Raises:
            UserError: more faulty steps than the budget; it names the clips.
        """
        flags = torch.stack([logged.pop(SKIPPED), logged.pop(FAULTY)])
        self._unread.append((step, batch, logged, fetched(flags)))
        self.settle(self._late)

    def settle(self, unread: int = 0) -> None:
        """Reads the flags of all but the last `unread` steps; raises as `add` does."""
        while len(self._unread) > unread:
            step, batch, logged, flags = self._unread.popleft()
            skipped, faulty = flags()
            self.skipped, self.faulty = self.skipped + skipped, self.faulty + faulty
            if faulty:
                self._report(step, batch, logged)

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "faulty": self.faulty}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes up what `state_dict` gave."""
        self.skipped, self.faulty = state["skipped"], state["faulty"]

    def _report(self, step: int, batch: Batch, logged: Logged) -> None:
        learner, group = self.learner, self.learner.group
        what = "gradient" if logged["loss"].isfinite() else "loss"
        terms = ", ".join(f"{name} {value.item():g}" for name, value in logged.items() if name != "gradient_norm")
        words = f"step {step}: the {what} is not finite ({terms}); nothing was updated"
        clips = self._clips(step, batch)
        if self.faulty <= self.budget:
            if group.first:
                say(f"{words}; {self.faulty} of at most {self.budget} such steps. {clips}")
            return
        with group.together():
            raise UserError(
                f"{words}, and the last checkpoint is as it was. {learner.place}.skip_budget allows {self.budget} such "
                f"steps of this run; with a higher one the same command goes on{learner.advice}. {clips}"
            )

    def _clips(self, step: int, batch: Batch) -> str:
        """Names the clips that are at fault, or all of the batch."""
        group = self.learner.group
        parts = self.learner.inputs(batch, step).parts(self.update.accumulate)
        with self.update.autocast():
            rows = torch.cat([self.learner.faulty_clips(part) for part in parts]).tolist()
        found = [name for name, faulty in zip(batch.ids, rows, strict=True) if faulty]
        own, everyones = group.gather(found), group.gather(batch.ids)
        names = ", ".join(name for of in (own if any(own) else everyones) for name in of)
        return f"{'Clips' if any(own) else 'All clips of the batch'}: {names}"


def fetched(values: Tensor) -> Callable[[], list[bool]]:
    """Starts to copy values to the host; the function that it returns waits for the copy."""
    if values.device.type != "cuda":
        return values.tolist
    copy, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()

    def wait() -> list[bool]:
        arrived.synchronize()
        return list(copy.tolist())

    return wait
