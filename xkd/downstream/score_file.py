"""The scores behind an evaluation's figures, as a Parquet file that pandas reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xkd.data.labels import classes_of
from xkd.downstream.scores import Judged, Scores


def write_scores(path: Path, folds: Sequence[Judged]) -> None:
    """Writes one row per classifier, fold and test clip.

    Columns: method, fold (of official folds), id, label, and `score.<class>` (float32) for every class that training or
    test clips have, empty where training never showed the class. Retrieval has `rank` instead, the place of the first
    relevant clip.
    """
    known = [one.classes for judged in folds for one in judged.scores if isinstance(one, Scores)]
    names = {str(name) for part in [*known, *(classes_of(judged.test.labels) for judged in folds)] for name in part}
    texts = ["method", *(["fold"] if folds[0].fold is not None else []), "id", "label"]
    numbers = {f"score.{name}": pa.float32() for name in sorted(names)} if known else {"rank": pa.int64()}
    schema = pa.schema([*((name, pa.string()) for name in texts), *numbers.items()])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for judged in folds:
            ids = judged.test.ids.tolist()
            for one in judged.scores:
                values = one.of(np.array(sorted(names))).T if isinstance(one, Scores) else one.ranks[None]
                words = {"method": [str(one.column)] * len(ids), "fold": [judged.fold] * len(ids)}
                words |= {"id": ids, "label": judged.test.labels.tolist()}
                columns = [*(words[name] for name in texts), *values]
                arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
