#!/bin/bash
# Bring a SLURM of one node up, run a command on it, and shut it down: slurm.sh FOLDER COMMAND...
# For tests, on Debian or Ubuntu, as root; FOLDER gets its state and its logs. Status 77: it cannot be had here.
set -eu
unavailable() { echo "slurm.sh: $*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || unavailable "only root can start one"
if ! command -v slurmctld munged sbatch >/dev/null; then
    command -v apt-get >/dev/null || unavailable "neither SLURM nor apt-get is installed"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; } >&2 ||
        unavailable "slurm-wlm and munge cannot be installed"
fi
folder=$(realpath -m "$1") config=/etc/slurm/slurm.conf
shift
# A job of Snakemake finds no other path. One that is not ours belongs to a cluster.
if [ -e "$config" ] && ! grep -q '^ClusterName=mutbert-test$' "$config"; then unavailable "$config exists"; fi
if pgrep -x slurmctld >/dev/null; then unavailable "another slurmctld is running"; fi

mkdir -p "$folder"/{state,spool,log} /run/munge
started=()
stop() {
    trap '' INT TERM
    scancel --user=root || true
    for file in "${started[@]}"; do
        pid=$(cat "$file") || continue
        kill "$pid" || true
        # One that nobody waits for ends as a zombie.
        for _ in $(seq 50); do grep -q '^State:\s*[^Z]' "/proc/$pid/status" && sleep 0.1; done
    done
    rm -f "$config"
} 2>/dev/null
trap stop EXIT
trap 'exit 143' INT TERM
if ! munge -n >/dev/null 2>&1; then
    chown munge:munge /run/munge
    chmod 755 /run/munge # the package writes the key
    runuser -u munge -- /usr/sbin/munged
    started+=(/run/munge/munged.pid)
fi
host=$(hostname)
cat >"$config" <<END
ClusterName=mutbert-test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MinJobAge=3600
KillWait=5
OverTimeLimit=0
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$(($(free -m | awk '/Mem/{print $2}') - 1024)) State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
for daemon in slurmctld slurmd; do
    "$daemon" </dev/null >/dev/null 2>&1
    started=("$folder/$daemon.pid" "${started[@]}")
done
for _ in $(seq 30); do
    if [ "$(sinfo -h -o %t 2>/dev/null)" = idle ]; then break; fi
    sleep 0.5
done
[ "$(sinfo -h -o %t)" = idle ] || unavailable "the node did not come up; see $folder/log"
"$@"
