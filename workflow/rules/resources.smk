"""What jobs ask the machine or a cluster's scheduler for, and how pretraining starts its processes.

Both come from the group `resources` of the settings, and neither enters `params:`, so that an edit reruns nothing.
The names of requests are those of Snakemake and its SLURM plugin; `gpu` counts over all nodes.
"""


def request(stage: str) -> dict:
    asked = getattr(SETTINGS.resources, stage)
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
        # One task per node. With `mpi`, the plugin leaves it to the job's command to start them.
        wanted |= {"tasks": nodes, "mpi": "srun"}
        if asked.gpus:
            wanted["gres"] = f"gpu:{asked.gpus}"
    return wanted


def launcher() -> str:
    """Starts Python once, or by torchrun as often as the settings say, on each node.

    With `exec`, no shell stands between: SIGTERM would end it at once, and the job with it, before a checkpoint is written.
    """
    asked = SETTINGS.resources.pretrain
    if asked.nodes == asked.processes_per_node == 1:
        return "exec python"
    each = f"--nproc-per-node {asked.processes_per_node}"
    threads = f"OMP_NUM_THREADS={max(1, asked.cpus // asked.processes_per_node)}"
    if asked.nodes == 1:
        return f"{threads} exec torchrun --standalone {each}"
    # The job's command runs on the first node, where the processes meet. Its port differs from those of other jobs there.
    meet = '--rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$(hostname):$((20000 + SLURM_JOB_ID % 10000))"'
    tasks = f"--nodes {asked.nodes} --ntasks-per-node 1 --cpus-per-task {asked.cpus} --kill-on-bad-exit"
    return f"{threads} exec srun {tasks} torchrun --nnodes {asked.nodes} {each} {meet}"
