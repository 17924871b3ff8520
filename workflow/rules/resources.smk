"""Turns the settings in `resources` into the requests of jobs, and into the commands that start training.

Neither enters `params:`, so that an edit reruns nothing. The names of requests are those of Snakemake and its SLURM
plugin; `gpu` is the number on all nodes together.
"""


def request(stage: str, protocol: str | None = None) -> dict:
    """Returns the resources of a stage's jobs, or of evaluations by a protocol."""
    asked = getattr(SETTINGS.resources, stage)
    if protocol:
        asked = SETTINGS.resources.of_protocol(protocol)
    nodes = getattr(asked, "nodes", 1)
    wanted = {
        "nodes": nodes,
        "cpus_per_task": asked.cpus,
        "mem_mb": round(asked.memory_gb * 1000),
        "runtime": asked.runtime,
    }
    if getattr(asked, "gpus", 0):
        wanted["gpu"] = nodes * asked.gpus
    if nodes > 1:
        # One task per node. With `mpi`, the plugin lets the command of the job start the tasks.
        wanted |= {"tasks": nodes, "mpi": "srun"}
        if asked.gpus:
            wanted["gres"] = f"gpu:{asked.gpus}"
    return wanted


def task_request(wildcards):
    return SETTINGS.resources.of_protocol(SETTINGS.tasks[wildcards.task].protocol)


def task_requests() -> dict:
    """Returns the resources of evaluations as functions of the wildcards; None where a task asks for none of the kind."""
    used = dict.fromkeys(task.protocol for task in SETTINGS.tasks.values())
    wanted = {protocol: request("evaluate", protocol) for protocol in used}
    names = dict.fromkeys(name for each in wanted.values() for name in each)
    return {
        name: lambda wildcards, name=name: wanted[
            SETTINGS.tasks[wildcards.task].protocol
        ].get(name)
        for name in names
    }


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
