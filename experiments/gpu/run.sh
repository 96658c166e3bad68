#!/usr/bin/env bash
# What a GPU does in the minutes that there are: the speed of the full-size model, and three pre-trainings of it.
#
#     experiments/gpu/run.sh GENOME HELD_OUT FOLDER [MINUTES]
#
# GENOME is a store, HELD_OUT a contig or region of it that is only evaluated on; of real data, say human.genome and
# chr20. FOLDER has the figures: a log and a JSON for each benchmark, a run for each recipe, losses.tsv. Each piece is
# done once: started again with the same folder, the script goes on, and a pre-training from where it was stopped.
# With SMALL=1 all is of a size for processors.
set -euo pipefail
genome=$(realpath "$1") held_out=$2 folder=$(realpath -m "$3") end=$((SECONDS + 60 * ${4:-12}))
cd "$(dirname "$0")/../.."
mkdir -p "$folder"
recipes=(mutbert-corrected mutbert-ref mutbert-modern)
batch=128 sizes=() access=() training=(training.torch_compile=true) model=()
if [[ ${SMALL:-} ]]; then
  batch=4 sizes=(--layers 1 --hidden 64 --repeats 1) access=(--lengths 32 --tokens 64 --no-compile)
  model=(model.hidden_size=64 model.num_hidden_layers=1 model.num_attention_heads=1 model.intermediate_size=256)
  training=(window_length=62 evaluation.windows=16 training.dataloader_num_workers=0)
  echo 20 > "$folder/steps"
fi

# piece NAME COMMAND...: run a command within the time that is left, unless it was done before.
piece() {
  [[ -e $folder/$1.done ]] && return
  local left=$((end - SECONDS))
  ((left > 5)) || { echo "no time is left for $1; run the same command again to go on" >&2; exit 75; }
  echo "== $1 (${left} s left)"
  timeout --kill-after 30 "$left" "${@:2}" 2>&1 | tee "$folder/$1.log"
  touch "$folder/$1.done"
}

benchmark() { piece "$1" python "benchmarks/$1.py" "${@:2}" "${sizes[@]}" -o "$folder"; }
benchmark model "${access[@]}"
benchmark pretrain "$genome" --batch "$batch" --windows 4096
benchmark score --batch "$batch"
benchmark finetune

# Each recipe has as many steps, decided once, as the fastest of its ways to make a step has time for in its share.
if [[ ! -e $folder/steps ]]; then
  share=$(((end - SECONDS) / ${#recipes[@]}))
  python - "$folder/pretrain.json" "$share" > "$folder/steps" <<'PYTHON'
import json, sys
seconds = min(way["seconds"] for way in json.load(open(sys.argv[1]))["step"])
print(max(20, int(0.7 * float(sys.argv[2]) / seconds)))  # the rest is for evaluations and the start
PYTHON
fi
steps=$(< "$folder/steps")
for recipe in "${recipes[@]}"; do
  resume=()
  [[ -d $folder/$recipe ]] && resume=(--resume)
  piece "$recipe" python -m mutbert pretrain "$recipe" "genome=$genome" "held_out=[$held_out]" "train=[]" \
    "output=$folder/$recipe" "windows_a_step=$batch" "training.per_device_train_batch_size=$batch" \
    "training.max_steps=$steps" "training.warmup_steps=$((steps / 10))" "training.eval_steps=$((steps / 10))" \
    "training.save_steps=$((steps / 10))" "training.logging_steps=$((steps / 20 + 1))" "${model[@]}" "${training[@]}" \
    "${resume[@]}"
done
python - "$folder" "${recipes[@]}" <<'PYTHON' | tee "$folder/losses.tsv"
import json, pathlib, sys
print("recipe", "steps", "loss", "loss at variants", sep="\t")
for name in sys.argv[2:]:
    last = json.loads((pathlib.Path(sys.argv[1]) / name / "history.json").read_text())[-1]
    print(name, last["step"], last["eval_loss"], last["eval_loss_variant"], sep="\t")
PYTHON
