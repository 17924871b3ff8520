"""From an empty clone to results/table.csv: download, prepare, pretrain, evaluate, table.

Settings come from params.yaml, or from the file that the environment variable XKD_PARAMS names. The engine orders the
stages; the stages themselves are in xkd/, one verb of the command line each.
"""

from snakemake.utils import min_version

from xkd import forkserver

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/tasks.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        # All outputs: Snakemake has no record of an output that a new version adds, and would not rerun the rule for its sake.
        rules.table.output,


onstart:
    # Jobs of a cluster start on other machines; of few jobs none would start sooner.
    if (
        workflow.local_exec
        and sum(
            job.rule.name in forkserver.VERBS for job in workflow.dag.needrun_jobs()
        )
        >= 4
    ):
        forkserver.start()
