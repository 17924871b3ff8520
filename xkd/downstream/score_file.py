"""The scores behind an evaluation's figures, as a Parquet file that pandas reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xkd.downstream.features import Clips
from xkd.downstream.labels import classes_of
from xkd.downstream.metrics import Retrieved, Scores

Part = tuple[str | None, Clips, Sequence[Scores | Retrieved]]  # fold, its test clips and what was said of them


def write(path: Path, parts: Sequence[Part]) -> None:
    """Writes one row per classifier, fold and test clip.

    Columns: method, fold (of official folds), id, label, and `score.<class>` (float32) for every class that training or
    test clips have, empty where training never showed the class; of retrieval instead `rank`, of the first relevant clip.
    """
    everything = [one for _, _, scores in parts for one in scores]
    known = [one.classes for one in everything if isinstance(one, Scores)]
    classes = sorted(
        {str(name) for names in [*known, *(classes_of(clips.labels) for _, clips, _ in parts)] for name in names}
    )
    texts = ["method", *(["fold"] if parts[0][0] is not None else []), "id", "label"]
    numbers = {f"score.{name}": pa.float32() for name in classes} if known else {"rank": pa.int64()}
    schema = pa.schema([*((name, pa.string()) for name in texts), *numbers.items()])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for fold, clips, scores in parts:
            for one in scores:
                values = one.of(np.array(classes)).T if isinstance(one, Scores) else one.ranks[None]
                words = {"method": [one.name] * len(clips.ids), "fold": [fold] * len(clips.ids)}
                words |= {"id": clips.ids.tolist(), "label": clips.labels.tolist()}
                columns = [*(words[name] for name in texts), *values]
                arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
