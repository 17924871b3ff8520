"""Stage `table`: writes the table, verdicts, the comparison with the paper, the report and figures from all metrics."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from xkd import csv_files, made, tracking
from xkd.params import canonical
from xkd.progress import say, track
from xkd.report import (
    bars,
    beside,
    confusion,
    curves,
    differences,
    embedding_map,
    page,
    sample_figures,
    style,
    sweep_curves,
)
from xkd.report.collect import Results, collect
from xkd.report.csv_table import ablation_table
from xkd.report.dataset import DataFacts, data_facts
from xkd.report.hypotheses import judged, verdict_table
from xkd.report.previews import Previews, contact_sheet, previews_at_hand
from xkd.settings import Params

REPORT_FILES = (
    "table.csv",
    "verdicts.csv",
    "table.md",
    "paper-comparison.md",
    "report.html",
)


def run(params: Params, out: Path) -> list[str]:
    """Reads runs/ and evals/ below the working folder and writes the report of the settings' data set into `out`.

    Which runs the table needs follows from `params` alone. All files are made before the first is replaced, and only
    files that this stage wrote are.

    Returns:
        a line for each verdict that is not the one that the settings record.

    Raises:
        UserError: a run is missing or unreadable, or runs were made from different data. Earlier results stay.
    """
    results = collect(params)
    data = data_facts(Path("data") / params.dataset, results.manifest)
    targets = [out / name for name in (*REPORT_FILES, *(f"figures/{name}.png" for name in page.captions(params)))]
    with made.opened(out, "table") as files:
        files.check_free(*targets)
        with files.writing_folder(out) as folder:
            _make(params, results, data, folder)
        for name in page.SWEEPS if not params.sweeps else ():  # of earlier settings
            files.remove(out / "figures" / f"{name}.png")
    hypotheses = judged(results)
    say(f"{out / 'table.csv'} has {len(results.runs)} rows; open {out / 'report.html'}")
    verdicts = {f"verdict.{one.name}": one.verdict.word for one in hypotheses}
    _track(params, out, {"manifest": results.manifest, **verdicts}, [path for path in targets if path.is_file()])
    return [one.change for one in hypotheses if one.change]


def _make(params: Params, results: Results, data: DataFacts | None, folder: Path) -> None:
    """Writes all files into `folder`."""
    media = previews_at_hand(params, Path("data") / params.dataset) if data else None
    figures = page.Figures(folder / "figures", _draw(results, media, folder / "figures"))
    shown = page.context(results, data)
    csv_files.write_csv(folder / "table.csv", ablation_table(results))
    csv_files.write_csv(folder / "verdicts.csv", verdict_table(judged(results)))
    (folder / "table.md").write_text(page.markdown(shown))
    (folder / "paper-comparison.md").write_text(beside.paper_page(results.main))
    (folder / "report.html").write_text(page.html(shown, results, figures, media))


def _track(params: Params, out: Path, tags: dict[str, str], files: list[Path]) -> None:
    """Logs the table and the figures in MLflow, beside the runs that they are about; verdicts are tags."""
    settings = {"dataset": params.dataset, "seeds": params.seeds, "ablations": ", ".join(params.ablations)}
    digest = hashlib.sha256(f"{tags['manifest']}{canonical(params)}".encode()).hexdigest()[:16]
    with tracking.start(tracking.TABLE, f"table/{out}", f"{params.dataset} table", settings, tags, digest) as tracked:
        tracked.log_files(files)


def _draw(results: Results, media: Previews | None, folder: Path) -> dict[str, str]:
    """Writes the figures of the page; returns their alternative texts."""
    main = results.main
    figures = {
        "ablations": partial(bars.ablation_bars, main),
        "differences": partial(differences.difference_plot, main),
        "losses": partial(curves.loss_curves, main),
        "diagnostics": partial(curves.diagnostic_curves, main),
        "alignment": partial(curves.alignment_curves, main),
        "reconstructions": partial(sample_figures.reconstructions, main),
        "refinement": partial(sample_figures.refinement, main),
        "embeddings": partial(embedding_map.embedding_map, main),
        "confusion": partial(confusion.confusion_matrices, main),
    }
    if results.params.sweeps:
        figures["sweeps"] = partial(sweep_curves.sweep_curves, results)
    drawn = track(figures.items(), "figures", len(figures))
    words = {name: style.save_figure(draw(), folder / f"{name}.png") for name, draw in drawn}
    return words | {"contact-sheet": contact_sheet(media, folder / "contact-sheet.png")}
