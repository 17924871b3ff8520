"""The data sets that params.yaml names."""

from __future__ import annotations

import difflib

from xkd.errors import UserError
from xkd.settings import Dataset, Params


def entry(params: Params, name: str) -> Dataset:
    """The settings of a data set.

    Raises:
        UserError: there is none of that name.
    """
    if name in params.datasets:
        return params.datasets[name]
    near = difflib.get_close_matches(name, params.datasets, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(params.datasets)}"
    raise UserError(f"datasets: no data set '{name}'; {hint}")
