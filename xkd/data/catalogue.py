"""The data sets that params.yaml names."""

from __future__ import annotations

from xkd.errors import UserError
from xkd.params import suggest
from xkd.settings import Dataset, Params


def entry(params: Params, name: str) -> Dataset:
    """The settings of a data set.

    Raises:
        UserError: there is none of that name.
    """
    if name in params.datasets:
        return params.datasets[name]
    raise UserError(f"datasets: no data set '{name}'{suggest(name, params.datasets)}")
