# What the rules share: paths, and the words of commands.
import glob
import json
import re
from itertools import product
from pathlib import Path
from shlex import quote
from urllib.parse import quote as percent_encoded

R = config["results"]
LOGS = f"{R}/logs"
SCRIPTS = quote(f"{workflow.basedir}/scripts")
GENOME, PRETRAIN, SCORE, TRACKS, EMBED, BENCH, VEP = (
    config.get(part, {}) for part in ("genome", "pretrain", "score", "tracks", "embed", "bench", "vep")
)
STORE = GENOME.get("store") or f"{R}/population.genome"
TRAINED = f"{R}/pretrain/model"
MODEL = config.get("model") or TRAINED
PROCESSES = PRETRAIN.get("processes", 1)
# The output of each part of the workflow.
TARGETS = {
    "genome": f"{R}/genome.json",
    "pretrain": f"{R}/pretrain/metrics.json",
    "score": [f"{R}/score/{name}.{kind}" for name in SCORE.get("vcf", {}) for kind in (SCORE["format"], "json")],
    "tracks": [f"{R}/tracks.{name}.bedgraph.gz" for name in TRACKS.get("tracks", [])],
    "embed": f"{R}/embed.parquet",
    "bench": f"{R}/bench/report.html",
    "vep": [f"{R}/vep/{name}/report.html" for name in VEP],
}


def words(option, values):
    """Return an option for each value, for a shell."""
    return " ".join(f"{option} {quote(str(value))}" for value in values)


def grows(least, per_megabyte):
    """Return a resource that grows with a job's input, and with each attempt."""
    return lambda wildcards, input, attempt: attempt * int(least + per_megabyte * input.size_mb)


def script(name):
    """Return what begins the command of a script."""
    return f"python {SCRIPTS}/{name}.py"


def on_gpu(count=1):
    """Return what begins the command of a job with GPUs, which no other job of the machine then has."""
    return f"bash {SCRIPTS}/on_gpu.sh {count}" if config["gpu"] else ""


def model_files(*paths):
    """Return what a job waits for to read models; nothing for those of the Hub."""
    return [
        TARGETS["pretrain"] if path == TRAINED else path for path in paths if path == TRAINED or Path(path).is_dir()
    ]


def sources(kind, contigs=("",)):
    """Return FASTA or VCF files, with their prefixes, of which a pattern may stand for one a contig."""
    found = {}
    for entry in GENOME.get(kind, []):
        prefix, path = re.fullmatch(r"([^=/]+=)?(.+)", entry).groups("")
        for name in dict.fromkeys(path.replace("{contig}", contig) for contig in contigs):
            found |= {f"{prefix}{one}": one for one in (sorted(glob.glob(name)) if "*" in name else [name])}
    return found


def files_of(kind, contigs=("",)):
    """Return what sources need: the files, or the downloads that they come from."""
    place = re.compile(rf"(?:[^=/]+=)?({re.escape(R)}/downloads/[^/]+)/.*")
    downloads = [place.fullmatch(entry) for entry in GENOME.get(kind, [])]
    kept = [path for path in sources(kind, contigs).values() if not place.fullmatch(path)]
    return [*dict.fromkeys(f"{one[1]}.done" for one in downloads if one), *kept]


def contigs_of(part=None):
    """Return the contigs of a part, or of all, once they are known."""
    parts = json.loads(Path(checkpoints.contigs.get().output[0]).read_text())
    return parts[part] if part else [contig for part in parts.values() for contig in part]


def stores(wildcards):
    """Return the stores of the parts of a genome."""
    parts = json.loads(Path(checkpoints.contigs.get().output[0]).read_text())
    return [f"{R}/genome/{part}.genome" for part in parts]


def source_options(contigs):
    """Return the options with the files that have these contigs."""
    return f"{words('--fasta', sources('fasta'))} {words('--vcf', sources('vcf', contigs))}"


def launcher():
    """Return what starts a training: a program, torchrun, or what the configuration has."""
    many = f"torchrun --standalone --nproc-per-node {PROCESSES} -m mutbert"
    return f"{on_gpu(PROCESSES)} {PRETRAIN.get('launcher') or ('mutbert' if PROCESSES == 1 else many)}"


def beds_of(wildcards):
    """Return the numbers of a job's parts, once they are known."""
    return sorted(path.stem for path in Path(checkpoints.cut.get(job=wildcards.job).output[0]).glob("*.bed"))


def minutes(wildcards, input, attempt):
    """Return the time of the records of a part at the configured rate, twice over; an hour for other parts."""
    records = re.match(r"# (\d+)", Path(input.bed).read_text()) if Path(input.bed).exists() else None
    return attempt * (10 + int(records[1]) // int(30 * SCORE["rate"] + 1) if records else 60)


def cell_options(cell):
    """Return the words of a command that makes a cell."""
    named = " ".join(words(option, [value]) for option, value in CELLS[cell].items())
    return f"{named} {BENCH['options']} -o {quote(R)}/bench"


def vep_options(name):
    """Return the words of a command for a table of labelled variants."""
    models = words("--model", map("=".join, VEP[name]["models"].items()))
    return f"--variants {quote(VEP[name]['variants'])} {models} {VEP[name]['options']}"


def cells():
    """Return the options of each cell of the benchmark, by its file in the results."""
    from mutbert.evaluation.suites import load_suite

    found = {}
    for path, data in BENCH.get("suites", {}).items():
        suite = load_suite(path)
        protocols = [one for one in BENCH["protocols"] if one in suite.grid.protocols]
        models = {**BENCH["models"], **({"kmer": None, "cnn": None} if BENCH["baselines"] and not suite.eqtl else {})}
        tasks = [one for one in suite.by_name if not BENCH["tasks"] or one in BENCH["tasks"]]
        for task, protocol, model, method in product(tasks, protocols, models, BENCH["methods"]):
            own = suite.grid.protocols[protocol]
            # Of the models that depend on no method, there is one; of eQTL, four cells are made together.
            kind = "svm, window" if suite.eqtl else "" if model == "kmer" else "full" if model == "cnn" else method
            count = 1 if model == "kmer" and own.validation == "file" else BENCH.get("seeds") or own.seeds
            folder = suite.name, task, "-".join(filter(None, (model, kind)))
            folder = Path(*(percent_encoded(one, safe=" ,+=@") for one in folder))
            for seed in range(own.first_seed, own.first_seed + count):
                place = {"--suite": path, "--data": data, "--task": task, "--protocol": protocol, "--seed": seed}
                place |= {"--model": f"{model}={BENCH['models'][model]}" if model in BENCH["models"] else model}
                place |= {"--method": "full" if kind in ("", "svm, window") else kind}
                found[f"{folder}/{protocol}-{seed}"] = place
    return found


CELLS, ON_GENOME = cells(), f"--model {quote(MODEL)} --genome {quote(STORE)}"
# What cut.py cuts for a job that has parts, the command of one, and the files both read.
JOBS = {
    "tracks": {
        "files": [STORE, *filter(None, [TRACKS.get("bed")])],
        "cut": f"bases {quote(STORE)} {words('--bed', filter(None, [TRACKS.get('bed')]))} --parts {TRACKS.get('parts')}",
        "command": f"tracks {words('--track', TRACKS.get('tracks', []))} {TRACKS.get('options')}",
    },
    "embed": {
        "files": [STORE, EMBED.get("bed")],
        "cut": f"lines {quote(EMBED.get('bed', ''))} --parts {EMBED.get('parts')}",
        "command": f"embed {EMBED.get('options')}",
    },
}
for name, vcf in SCORE.get("vcf", {}).items():
    context = words("--context", filter(None, [SCORE.get("context")]))
    # Windows that neighbours share are not to be cut.
    grid = SCORE.get("context") or quote(MODEL) if SCORE["windows"] == "shared" else 0
    JOBS[f"score/{name}"] = {
        "files": [STORE, vcf, *(model_files(MODEL) if SCORE["windows"] == "shared" else [])],
        "cut": f"records {quote(vcf)} --genome {quote(STORE)} --parts {SCORE['parts']} --grid {grid}",
        "command": f"score --vcf {quote(vcf)} --windows {SCORE['windows']} {context} {SCORE['options']}",
    }
SUFFIXES = {
    "score": [SCORE.get("format")],
    "tracks": [f"{track}.bedgraph.gz" for track in TRACKS.get("tracks", [""])],
    "embed": ["parquet"],
}
