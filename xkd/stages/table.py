"""Stage `table`: all metrics to results/table.csv, table.md, report.html and figures."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from xkd.report import bars, curves, page, pictures, style
from xkd.report.collect import Results, collect
from xkd.report.dataset import DataFacts, facts
from xkd.report.table import table
from xkd.settings import Params


def run(params: Params, out: Path) -> None:
    """Reads runs/ and evals/ below the working folder and writes the report of the settings' data set into `out`.

    Which runs the table needs follows from `params` alone. All files are made before the first is replaced.

    Raises:
        UserError: a run is missing or unreadable, or runs were made from different data. Earlier results stay.
    """
    results = collect(params)
    data = facts(Path("data") / params.dataset, results.manifest)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".table-", dir=out) as name:
        made = Path(name)
        _draw(results, data, made / "figures")
        shown = page.context(results, data)
        table(results).to_csv(made / "table.csv", index=False, lineterminator="\n")
        (made / "table.md").write_text(page.markdown(shown))
        (made / "report.html").write_text(page.html(shown, made / "figures"))
        (out / "figures").mkdir(exist_ok=True)
        for path in sorted(path for path in made.rglob("*") if path.is_file()):
            os.replace(path, out / path.relative_to(made))


def _draw(results: Results, data: DataFacts | None, folder: Path) -> None:
    figures = {
        "ablations": bars.ablation_bars(results, data.chance if data else None),
        "losses": curves.loss_curves(results),
        "diagnostics": curves.diagnostic_curves(results),
        "reconstructions": pictures.reconstructions(results),
        "refinement": pictures.refinement(results),
    }
    for name, figure in figures.items():
        style.save(figure, folder / f"{name}.png")
