# A cell of the benchmark a job, and the report; labelled variants, a table a job.
rule bench_cell:
    input:
        lambda wc: model_files(CELLS[wc.cell]["--model"].partition("=")[2]),
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
        command=lambda wc: f"{on_gpu()} mutbert bench cell {cell_options(wc.cell)}",
    shell:
        "{params.command} --threads {threads} &> {log:q}"


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
        "mutbert bench report {params.folder:q} &> {log}"


rule vep_table:
    input:
        STORE,
        lambda wc: VEP[wc.name]["variants"],
        lambda wc: model_files(*VEP[wc.name]["models"].values()),
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
        command=lambda wc: f"{on_gpu()} mutbert bench vep --genome {quote(STORE)} {vep_options(wc.name)}",
        folder=lambda wc, output: Path(output[0]).parent,
    shell:
        "{params.command} --threads {threads} --force -o {params.folder:q} &> {log}"
