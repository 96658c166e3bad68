# A cell of the benchmark a job, and their report; a table of labelled variants a job.
rule bench_cell:
    input:
        lambda wc: model_files(*BENCH["models"].values()),
    output:
        f"{R}/bench/{{cell}}.json",
    log:
        f"{LOGS}/bench/{{cell}}.log",
    threads: config["threads"]
    resources:
        gpu=int(config["gpu"]),
        mem_mb=lambda wc, attempt: 8000 * attempt,
        runtime=lambda wc, attempt: 240 * attempt,
    params:
        command=lambda wc: f"{on_gpu()} mutbert bench cell {CELLS[wc.cell]} {BENCH['options']} -o {quote(R)}/bench",
    shell:
        "exec &> {log:q}; {params.command} --threads {threads}; :"


rule bench_report:
    input:
        expand(f"{R}/bench/{{cell}}.json", cell=CELLS),
    output:
        TARGETS["bench"],
    log:
        f"{LOGS}/bench.log",
    params:
        folder=lambda wc, output: Path(output[0]).parent,
    shell:
        "exec &> {log:q}; mutbert bench report {params.folder:q}; :"


rule vep_table:
    input:
        lambda wc: model_files(*VEP[wc.name]["models"].values()),
        store=STORE,
        variants=lambda wc: VEP[wc.name]["variants"],
    output:
        f"{R}/vep/{{name}}/report.html",
    log:
        f"{LOGS}/vep-{{name}}.log",
    threads: config["threads"]
    resources:
        gpu=int(config["gpu"]),
        mem_mb=lambda wc, attempt: 8000 * attempt,
        runtime=grows(60, 10),
    params:
        gpu=on_gpu(),
        models=lambda wc: words("--model", map("=".join, VEP[wc.name]["models"].items())),
        options=lambda wc: VEP[wc.name]["options"],
        folder=lambda wc, output: Path(output[0]).parent,
    shell:
        "exec &> {log:q}; {params.gpu} mutbert bench vep --genome {input.store:q} --variants {input.variants:q}"
        " {params.models} {params.options} --threads {threads} -o {params.folder:q} --force; :"
