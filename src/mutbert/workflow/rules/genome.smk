# A store of each contig, and of these the genome.
CONTIGS = GENOME.get("contigs") or ["all"]


rule download:
    output:
        touch(f"{R}/downloads/{{name}}.done"),
    log:
        f"{LOGS}/download-{{name}}.log",
    localrule: True
    params:
        contigs=lambda wc: words("--contigs", config["downloads"][wc.name]),
        folder=lambda wc, output: output[0].removesuffix(".done"),
    shell:
        "exec &> {log:q}; mutbert download {wildcards.name} {params.contigs} -o {params.folder:q}; :"


rule build:
    input:
        lambda wc: source_files([wc.contig]),
    output:
        directory(f"{R}/genome/{{contig}}.genome"),
    log:
        f"{LOGS}/build-{{contig}}.log",
    resources:
        # docs/performance.md: 1.35 GB for 4 GB of files, and 0.2 s per MB of genotypes.
        mem_mb=grows(1000, 0.3),
        runtime=grows(10, 1 / 60),
    params:
        sources=lambda wc: source_options([wc.contig]),
        contigs=lambda wc: words("--contigs", [wc.contig] if GENOME["contigs"] else []),
        options=GENOME.get("options"),
    shell:
        "exec &> {log:q}; mutbert genome build {params.sources} {params.contigs} -o {output:q} --resume {params.options}; :"


if "store" not in GENOME:

    rule merge:
        input:
            expand(f"{R}/genome/{{contig}}.genome", contig=CONTIGS),
        output:
            directory(STORE),
        log:
            f"{LOGS}/merge.log",
        resources:
            mem_mb=grows(1000, 2),
        shell:
            "exec &> {log:q}; mutbert genome merge {input:q} -o {output:q}; :"


rule inspect:
    input:
        source_files(CONTIGS),
        store=STORE,
    output:
        report=TARGETS["genome"],
        verified=f"{R}/genome/verified.json",
    log:
        f"{LOGS}/inspect.log",
    resources:
        mem_mb=grows(2000, 0.5),
        runtime=grows(20, 1 / 20),
    params:
        # Of a store that was there, the sources are not known.
        verify=(
            f"mutbert genome verify {quote(STORE)} {source_options(CONTIGS)} --json"
            if "fasta" in GENOME
            else "echo null"
        ),
    shell:
        "exec 2> {log:q}; {params.verify} > {output.verified:q};"
        " mutbert genome inspect {input.store:q} --json > {output.report:q}; :"
