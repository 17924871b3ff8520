"""Turns the settings in `resources` into the requests of jobs, and into the commands that start training.

Neither enters `params:`, so that an edit reruns nothing. The names of requests are those of Snakemake and its SLURM
plugin; `gpu` is the number on all nodes together.
"""


def request(stage: str) -> dict:
    """Returns the resources of a stage's jobs, where all of them ask for the same."""
    return wanted(getattr(SETTINGS.resources, stage))


def wanted(asked) -> dict:
    nodes = getattr(asked, "nodes", 1)
    found = {
        "nodes": nodes,
        "cpus_per_task": asked.cpus,
        "mem_mb": round(asked.memory_gb * 1000),
        "runtime": asked.runtime,
    }
    if getattr(asked, "gpus", 0):
        found["gpu"] = nodes * asked.gpus
    if nodes > 1:
        # One task per node. With `mpi`, the plugin lets the command of the job start the tasks.
        found |= {"tasks": nodes, "mpi": "srun"}
        if asked.gpus:
            found["gres"] = f"gpu:{asked.gpus}"
    return found


def row_request(wildcards):
    return pretrain_request(SETTINGS, wildcards.ablation)


def task_request(wildcards):
    return SETTINGS.resources.of_protocol(SETTINGS.tasks[wildcards.task].protocol)


def requests(asked, every: list) -> dict:
    """Returns the resources of jobs that ask for different ones: functions of the wildcards, as `asked` is.

    Args:
        every: all that is asked for; a job gets None of the kinds that only others ask for, which is no request.
    """
    kinds = dict.fromkeys(kind for one in every for kind in wanted(one))
    found = {
        kind: lambda wildcards, kind=kind: wanted(asked(wildcards)).get(kind)
        for kind in kinds
    }
    return found | {"launcher": lambda wildcards: launcher(asked(wildcards))}


def launcher(asked) -> str:
    """Returns the command that starts Python once, or with torchrun as often as a request says on each node.

    `exec` replaces the shell, which SIGTERM would end at once, and the job with it, before a checkpoint is written.
    """
    if asked.nodes == asked.processes_per_node == 1:
        return "exec python"
    each = f"--nproc-per-node {asked.processes_per_node}"
    threads = f"OMP_NUM_THREADS={max(1, asked.cpus // asked.processes_per_node)}"
    if asked.nodes == 1:
        return f"{threads} exec torchrun --standalone {each}"
    # The command runs on the first node, where the processes meet, on a port that differs from those of other jobs there.
    meet = '--rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$(hostname):$((20000 + SLURM_JOB_ID % 10000))"'
    tasks = f"--nodes {asked.nodes} --ntasks-per-node 1 --cpus-per-task {asked.cpus} --kill-on-bad-exit"
    return f"{threads} exec srun {tasks} torchrun --nnodes {asked.nodes} {each} {meet}"
