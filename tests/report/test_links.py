"""Runs that were not in MLflow yet when they ended are linked all the same."""

from run_folders import seal

from xkd import tracking
from xkd.report.collect import collect
from xkd.report.csv_table import ablation_table
from xkd.stages.table import with_links


def test_a_run_without_an_id_gets_the_one_that_mlflow_knows_now(project, monkeypatch):
    for seed in (0, 1):
        (project.run_folder("ae", seed) / "mlflow.json").write_text('{"run_id": null, "experiment_id": null}')
        seal(project.run_folder("ae", seed))
    known = {f"pretrain/digits/{name}/seed1": ("found", "7") for name in ("ae", "xkd")}
    monkeypatch.setattr(tracking, "run_ids", lambda experiment: known if experiment == tracking.PRETRAINING else {})
    results = with_links(collect(project.params))
    assert results.runs["ae"][1].record.tracking.experiment_id == "7"
    table = ablation_table(results).set_index("ablation")
    assert table.loc["ae", "mlflow_runs"] == ";found;ae-2"
    assert table.loc["xkd", "mlflow_runs"] == "xkd-0;xkd-1;xkd-2", "a run knows its own id best"
