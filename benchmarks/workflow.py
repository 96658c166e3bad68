"""Measure what the workflow adds to scoring: jobs on two cores against the single command on both.

    python benchmarks/workflow.py

A model of the demo's size scores a random genome's SNVs and indels. The engine's own start-up is that of a run in which
nothing is left to do.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import pysam.bcftools
import yaml

from measure import describe_machine, machine_text, measure_command, run_script
from mutbert.cli.workflow import copy_workflow
from mutbert.model import MutBertConfig, MutBertForMaskedLM
from score_memory import make_inputs, write_variants


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--variants", type=int, default=20_000, help="records of the VCF (%(default)s)")
    parser.add_argument("--parts", type=int, default=2, help="jobs that score (%(default)s)")
    parser.add_argument("--hidden", type=int, default=128, help="width of the model (%(default)s)")
    arguments = parser.parse_args()
    print(machine_text(describe_machine(("torch", "snakemake"))))
    with tempfile.TemporaryDirectory() as name:
        folder, vcf = Path(name), Path(name, "in.vcf")
        make_inputs(folder, arguments.variants)
        write_variants(folder, vcf, arguments.variants)
        size = {"hidden_size": arguments.hidden, "intermediate_size": 4 * arguments.hidden, "num_hidden_layers": 4}
        model = MutBertForMaskedLM(MutBertConfig(**size, num_attention_heads=2, max_position_embeddings=128))
        model.save_pretrained(folder / "demo")
        packed, options = folder / "in.vcf.gz", ["--strands", "forward", "--flank", "2"]
        pysam.bcftools.view("-Oz", "-o", str(packed), str(vcf), catch_stdout=False)
        copy_workflow(folder / "study")
        parts = {"vcf": {"in": str(packed)}, "parts": arguments.parts, "options": " ".join(options)}
        config = {"genome": {"store": str(folder / "x.genome")}, "model": str(folder / "demo"), "score": parts}
        (folder / "study/config/config.yaml").write_text(yaml.safe_dump(config))
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        study = folder / "study"
        engine = [sys.executable, "-m", "snakemake", "-d", study, "-s", study / "Snakefile", "--cores", "2", "score"]
        files = ["--model", folder / "demo", "--genome", folder / "x.genome", "--vcf", packed]
        command = [sys.executable, "-m", "mutbert", "score", *files, "-o", folder / "out.vcf.gz", *options]
        single = measure_command([*command, "--threads", "2"], folder, watched=False).seconds
        jobs, nothing = (measure_command(engine, study, watched=False).seconds for _ in range(2))
    print(f"single command {single:.1f} s; workflow {jobs:.1f} s, of which {nothing:.1f} s are the engine's start-up")
    print(f"{(jobs - nothing) / single:.2f} times the single command")


if __name__ == "__main__":
    run_script(main)
