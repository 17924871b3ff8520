"""From an empty clone to results/table.csv: download, prepare, pretrain, evaluate, table.

Settings come from params.yaml, or from the file that the environment variable XKD_PARAMS names. The engine orders the
stages; what they do is in xkd/, one command line verb each.
"""

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        # All of them: one that a new version adds has no record yet, and for lack of it the rule would not run again.
        rules.table.output,
