#!/bin/bash
# A SLURM cluster of two nodes on this machine, for trying the profile and torchrun over several nodes without a cluster.
#   apt-get install slurm-wlm munge; pip install 'snakemake-executor-plugin-slurm>=2.7.1'
#   benchmarks/slurm.sh                       as root, in a container or virtual machine: it writes /etc/slurm/slurm.conf
#   benchmarks/slurm.sh stop
# Then: snakemake --profile /tmp/xkd-slurm/profile ...   Nodes claim 8 cores and 2 GPUs each, whatever the machine has.
set -euo pipefail
cd "$(dirname "$0")/.."
place=/tmp/xkd-slurm

if [ "${1:-start}" = stop ]; then
  for file in "$place"/*.pid; do kill "$(cat "$file")" || true; done
  rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
  exit
fi

for program in slurmctld slurmd munged; do
  command -v "$program" > /dev/null || { echo "$program is not installed: nothing to try"; exit 0; }
done
if [ "$(id -u)" != 0 ] || [ -e /etc/slurm/slurm.conf ]; then
  echo "this needs root and a machine without a /etc/slurm/slurm.conf: nothing was done"
  exit 0
fi

mkdir -p "$place"/state "$place"/profile /run/munge /etc/slurm
host=$(hostname -s)
cat > /etc/slurm/slurm.conf << END
ClusterName=one_machine
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ReturnToService=2
StateSaveLocation=$place/state
SlurmctldPidFile=$place/slurmctld.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdPidFile=$place/slurmd-%n.pid
SlurmdLogFile=$place/slurmd-%n.log
SlurmdSpoolDir=$place/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=8 RealMemory=10000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=n[1-2] Default=YES PriorityTier=1
PartitionName=graceful Nodes=n[1-2] PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n[1-2] PriorityTier=10 PreemptMode=OFF
END
# SLURM wants device files for GPUs, and does not look into them.
for number in 0 1; do [ -e "$place/gpu$number" ] || mknod "$place/gpu$number" c 1 3; done
echo "NodeName=n[1-2] Name=gpu File=$place/gpu[0-1]" > /etc/slurm/gres.conf

# There is no accounting, so the account goes and squeue tells how jobs ended.
sed -e '/slurm_account/d' -e "s/my_gpu_partition/gpu/; s/my_partition/gpu/" workflow/profiles/slurm/config.yaml > "$place/profile/config.yaml"
echo 'slurm-status-command: squeue' >> "$place/profile/config.yaml"

chown munge /run/munge
pgrep -x munged > /dev/null || runuser -u munge -- munged
slurmctld
slurmd -N n1
slurmd -N n2
sleep 2
sinfo
echo "snakemake --profile $place/profile --dry-run"
