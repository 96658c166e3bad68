# Scores, tracks and embeddings: cut into parts, a job each, and joined.
checkpoint cut:
    input:
        lambda wc: JOBS[wc.job][1],
        lambda wc: model_files(MODEL) if GRID and wc.job.startswith("score") else [],
    output:
        directory(f"{R}/{{job}}/regions"),
    log:
        f"{LOGS}/{{job}}/cut.log",
    resources:
        runtime=grows(10, 1 / 600),
    params:
        command=lambda wc: f"{script('cut.py')} {JOBS[wc.job][0]} {words('', JOBS[wc.job][1])}",
    shell:
        "exec &> {log:q}; {params.command} {output:q}; :"


for kind, suffixes in SUFFIXES.items():

    rule:
        name:
            f"{kind}_part"
        input:
            lambda wc: JOBS[wc.job][1],
            model_files(MODEL),
            STORE,
            bed=f"{R}/{{job}}/regions/{{part}}.bed",
        output:
            [f"{R}/{{job}}/{{part}}.{suffix}" for suffix in suffixes],
            report=f"{R}/{{job}}/{{part}}.json",
        log:
            f"{LOGS}/{{job}}/{{part}}.log",
        wildcard_constraints:
            job=f"{kind}(/[^/]+)?",
        threads: config["threads"]
        resources:
            gpu=int(config["gpu"]),
            mem_mb=lambda wc, attempt: 4000 * attempt,
            runtime=minutes,
        params:
            command=lambda wc: f"{on_gpu()} mutbert {JOBS[wc.job][2]} --model {quote(MODEL)} --genome {quote(STORE)}",
            # Of several tracks, the command adds the name of each.
            output=f"{R}/{{job}}/{{part}}.{suffixes[0] if len(suffixes) == 1 else 'bedgraph.gz'}",
        shell:
            "exec 2> {log:q}; {params.command} --bed {input.bed:q} -o {params.output:q} --threads {threads}"
            " --resume --json > {output.report:q}; :"


rule join:
    input:
        lambda wc: [f"{R}/{wc.job}/{part}.{wc.suffix}" for part in beds_of(wc)],
    output:
        f"{R}/{{job}}.{{suffix}}",
    log:
        f"{LOGS}/{{job}}/join-{{suffix}}.log",
    wildcard_constraints:
        suffix=r"vcf\.gz|bcf|parquet|tsv|tsv\.gz|json|\w+\.bedgraph\.gz",
    resources:
        runtime=grows(10, 1 / 600),
    params:
        command=script("join.py"),
    shell:
        "exec &> {log:q}; {params.command} {output:q} {input:q}; :"
