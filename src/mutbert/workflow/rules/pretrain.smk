# One training in one job, which goes on from its last checkpoint.
rule pretrain_model:
    input:
        STORE,
    output:
        TARGETS["pretrain"],
    log:
        f"{LOGS}/pretrain.log",
    threads: config["threads"] * PROCESSES
    resources:
        gpu=PROCESSES if config["gpu"] else 0,
        mem_mb=lambda wc, attempt: 8000 * PROCESSES * attempt,
        runtime=PRETRAIN.get("minutes", 60),
    params:
        launcher=PRETRAIN.get("launcher")
        or ("mutbert" if PROCESSES == 1 else f"torchrun --standalone --nproc-per-node {PROCESSES} -m mutbert"),
        gpu=on_gpu(PROCESSES),
        words=words("", [PRETRAIN.get("recipe"), *PRETRAIN.get("settings", [])]),
        folder=lambda wc, output: Path(output[0]).parent,
        threads=config["threads"],
    shell:
        "exec &> {log:q}; {params.gpu} {params.launcher} pretrain {params.words} genome={input:q}"
        " output={params.folder:q} --threads {params.threads} --resume; :"
