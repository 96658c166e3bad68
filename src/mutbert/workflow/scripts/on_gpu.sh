# on_gpu.sh N COMMAND...: run a command on N GPUs that no other command of this script on this machine has.
wanted=$1 held=() && shift
# SLURM hands them out itself.
[ -n "${SLURM_JOB_ID:-}" ] && exec "$@"
gpus=${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd,)}
[ "$(tr ',' '\n' <<< "$gpus" | grep -c .)" -ge "$wanted" ] || { echo "on_gpu.sh: no $wanted GPUs here" >&2; exit 2; }
while true; do
    for gpu in ${gpus//,/ }; do
        # A lock is held until the command and all that it started have ended.
        exec {lock}> "${TMPDIR:-/tmp}/mutbert-gpu-$UID-$gpu"
        if flock --nonblock "$lock"; then held+=("$gpu"); else exec {lock}>&-; fi
        [ ${#held[@]} -lt "$wanted" ] || CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${held[*]}") exec "$@"
    done
    sleep 1
done
