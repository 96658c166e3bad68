# A store of each group of contigs, and of these the genome.
rule download:
    output:
        touch(f"{R}/downloads/{{name}}.done"),
    log:
        f"{LOGS}/download-{{name}}.log",
    localrule: True
    resources:
        runtime=1440,
    params:
        command=lambda wc: f"{script('download')} {quote(json.dumps(config['downloads'][wc.name]))}",
        folder=lambda wc, output: output[0].removesuffix(".done"),
    shell:
        "{params.command} {params.folder:q} &> {log}"


checkpoint contigs:
    input:
        files_of("fasta"),
    output:
        f"{R}/genome/contigs.json",
    log:
        f"{LOGS}/contigs.log",
    params:
        command=f"{script('cut')} contigs {words('', sources('fasta'))} {words('--contig', GENOME.get('contigs', []))}",
        bases=GENOME.get("job_bases"),
    shell:
        "{params.command} --bases {params.bases} -o {output:q} &> {log}"


rule build:
    input:
        files_of("fasta"),
        lambda wc: files_of("vcf", contigs_of(wc.number)),
    output:
        directory(f"{R}/genome/{{number}}.genome"),
    log:
        f"{LOGS}/build-{{number}}.log",
    resources:
        # docs/performance.md: 1.35 GB for 4 GB of files, and 0.2 s per MB of genotypes.
        mem_mb=grows(1000, 0.3),
        runtime=grows(10, 1 / 60),
    params:
        sources=lambda wc: source_options(contigs_of(wc.number)),
        contigs=lambda wc: words("--contigs", contigs_of(wc.number)),
        options=GENOME.get("options"),
    shell:
        "mutbert genome build {params.sources} {params.contigs} -o {output:q} --resume {params.options} &> {log}"


if "store" not in GENOME:

    rule merge:
        input:
            stores,
        output:
            directory(STORE),
        log:
            f"{LOGS}/merge.log",
        resources:
            mem_mb=grows(1000, 2),
        shell:
            "mutbert genome merge {input:q} -o {output:q} &> {log}"


rule inspect:
    input:
        files_of("fasta"),
        lambda wc: files_of("vcf", contigs_of()) if GENOME.get("vcf") else [],
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
        # Of a store that is there, the sources are not known.
        verify=lambda wc: (
            f"mutbert genome verify {quote(STORE)} {source_options(contigs_of())} --json"
            if "fasta" in GENOME
            else "echo null"
        ),
    shell:
        "({params.verify} > {output.verified:q}"
        " && mutbert genome inspect {input.store:q} --json > {output.report:q}) 2> {log}"
