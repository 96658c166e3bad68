# What the rules share: files, and the words of commands. Of each job, the shell prints to the log too when a program is
# not there or was killed; that needs a command after it (:), as the shell would else become the last one.
import glob
import re
from itertools import product
from pathlib import Path
from shlex import quote
from urllib.parse import quote as percent_encoded

R = config["results"]
LOGS = f"{R}/logs"
GENOME, PRETRAIN, SCORE, TRACKS, EMBED, BENCH, VEP = (
    config.get(part, {}) for part in ("genome", "pretrain", "score", "tracks", "embed", "bench", "vep")
)
STORE = GENOME.get("store") or f"{R}/population.genome"
TRAINED = f"{R}/pretrain/model"
MODEL = config.get("model") or TRAINED
PROCESSES = PRETRAIN.get("processes", 1)
TARGETS = {
    "genome": f"{R}/genome.json",
    "pretrain": f"{R}/pretrain/metrics.json",
    "score": [f"{R}/score/{name}.{kind}" for name in SCORE.get("vcf", {}) for kind in (SCORE["format"], "json")],
    "tracks": [f"{R}/tracks.{name}.bedgraph.gz" for name in TRACKS.get("tracks", [])],
    "embed": f"{R}/embed.parquet",
    "bench": f"{R}/bench/report.html",
    "vep": [f"{R}/vep/{name}/report.html" for name in VEP],
}


def script(name):
    """Return what begins the command of a script."""
    return f"{'bash' if name.endswith('sh') else 'python'} {quote(f'{workflow.basedir}/scripts/{name}')}"


def on_gpu(count=1):
    """Return what begins a command that has GPUs to itself."""
    return f"{script('on_gpu.sh')} {count}" if config["gpu"] else ""


def words(option, values):
    """Return an option for each value that there is, for a shell."""
    return " ".join(f"{option} {quote(str(value))}" for value in values if value is not None)


def grows(least, per_megabyte):
    """Return a resource that grows with a job's input, and with each attempt."""
    return lambda wildcards, input, attempt: attempt * int(least + per_megabyte * input.size_mb)


def model_files(*paths):
    """Return what a job waits for to read models; nothing for those of the Hub."""
    return [TARGETS["pretrain"] if one == TRAINED else one for one in paths if one == TRAINED or Path(one).is_dir()]


def source_options(contigs):
    """Return the options for FASTA and VCF files; patterns are for the shell, as downloads are not there yet."""
    found = dict.fromkeys(vcf.replace("{contig}", contig) for vcf in GENOME.get("vcf", []) for contig in contigs)
    vcfs = (f"$(printf ' --vcf %s' {vcf})" if "*" in vcf else f"--vcf {quote(vcf)}" for vcf in found)
    return " ".join((words("--fasta", GENOME.get("fasta", [])), *vcfs))


def source_files(contigs):
    """Return the FASTA and VCF files, or the downloads that they come from."""
    entries = [re.sub("^[^=/]+=", "", one) for one in (*GENOME.get("fasta", []), *GENOME.get("vcf", []))]
    paths = [one.replace("{contig}", contig) for one in entries for contig in contigs]
    done = [re.sub(rf"^({re.escape(R)}/downloads/[^/]+)/.*", r"\1.done", path) for path in paths]
    return [*dict.fromkeys(file for path in done for file in (glob.glob(path) if "*" in path else [path]))]


def beds_of(wildcards):
    """Return the numbers of a job's parts, once they are known."""
    return sorted(path.stem for path in Path(checkpoints.cut.get(job=wildcards.job).output[0]).glob("*.bed"))


def minutes(wildcards, input, attempt):
    """Return twice the time that a part's records take at the configured rate; an hour for other parts."""
    records = re.match(r"# (\d+)", Path(input.bed).read_text()) if Path(input.bed).exists() else None
    return attempt * (10 + int(int(records[1]) / SCORE["rate"] / 30) if records else 60)


def cells():
    """Return the words of the command of each cell of the benchmark, by the cell's file."""
    from mutbert.evaluation.suites import load_suite

    found = {}
    for path, data in BENCH["suites"].items():
        suite = load_suite(path)
        grid = {name: own for name, own in suite.grid.protocols.items() if name in BENCH["protocols"]}
        names = [*BENCH["models"], *(("kmer", "cnn") if BENCH["baselines"] and not suite.eqtl else ())]
        tasks = [task for task in suite.by_name if not BENCH["tasks"] or task in BENCH["tasks"]]
        for task, (protocol, own), model in product(tasks, grid.items(), names):
            # One command makes the cells of all classifiers of eQTL.
            fixed = {"kmer": [""], "cnn": ["full"]}.get(model, ["svm, window"] if suite.eqtl else BENCH["methods"])
            seeds = 1 if model == "kmer" and own.validation == "file" else BENCH.get("seeds", own.seeds)
            for method, seed in product(fixed, range(own.first_seed, own.first_seed + seeds)):
                folder = (suite.name, task, f"{model}-{method}".rstrip("-"))
                options = {"--suite": path, "--data": data, "--task": task, "--protocol": protocol, "--seed": seed}
                options |= {"--model": f"{model}={BENCH['models'].get(model, '')}".rstrip("=")}
                options |= {"--method": method} if method in BENCH["methods"] else {}
                file = Path(*(percent_encoded(one, safe=" ,+=@") for one in folder), f"{protocol}-{seed}")
                found[str(file)] = " ".join(words(option, [value]) for option, value in options.items())
    return found


CELLS = cells() if BENCH else {}
# Of each job that is cut: how, of which files, and the command of a part. Windows that variants share are not cut.
GRID = (SCORE.get("context") or quote(MODEL)) if SCORE.get("windows") == "shared" else 0
JOBS = {
    "tracks": (
        f"bases {TRACKS.get('parts')}",
        [one for one in (STORE, TRACKS.get("bed")) if one],
        f"tracks {words('--track', TRACKS.get('tracks', []))} {TRACKS.get('options')}",
    ),
    "embed": (f"lines {EMBED.get('parts')}", [EMBED.get("bed")], f"embed {EMBED.get('options')}"),
}
for name, vcf in SCORE.get("vcf", {}).items():
    options = f"--windows {SCORE['windows']} {words('--context', [SCORE.get('context')])} {SCORE['options']}"
    JOBS[f"score/{name}"] = (f"records {SCORE['parts']} {GRID}", [vcf, STORE], f"score --vcf {quote(vcf)} {options}")
SUFFIXES = {
    "score": [SCORE.get("format")],
    "tracks": [f"{track}.bedgraph.gz" for track in TRACKS.get("tracks", [""])],
    "embed": ["parquet"],
}
