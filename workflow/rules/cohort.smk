# The cohort: which photographs, whose eyes, what is known of them.
# Labels live in cohort.parquet alone. Images are followed by the index and the shard files, which hold no label, so editing a label
# never touches what was computed from photographs.


rule ingest:
    input:
        config=f"{RESULTS}/configs/ingest.yaml",
    output:
        f"{RESULTS}/cohort.parquet",
    log:
        f"{RESULTS}/logs/ingest.log",
    benchmark:
        f"{RESULTS}/benchmarks/ingest.tsv"
    params:
        samplesheet=PLAN.cohort_digest,
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1500 * attempt,
        runtime=15,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Cohort table with labels and covariates"
    shell:
        "retsam ingest --config {input.config:q} --out {output:q} > {log:q} 2>&1"


rule index:
    input:
        config=f"{RESULTS}/configs/index.yaml",
    output:
        f"{RESULTS}/parts/index.parquet",
    log:
        f"{RESULTS}/logs/index.log",
    benchmark:
        f"{RESULTS}/benchmarks/index.tsv"
    params:
        images=PLAN.index_digest,
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1500 * attempt,
        runtime=15,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Index of photographs, subjects and eyes (no labels)"
    shell:
        "retsam ingest --config {input.config:q} --out {output:q} > {log:q} 2>&1"


# Size and time of photographs decide whether the file is written, and are not in it: written again it is the same, byte for byte, and
# Snakemake takes that for no change. A run that is killed right after this rule would so hide a replaced photograph from the next run.
# Whoever opens photographs (metrics, segment) therefore has the digest among its own params.
# Rows come from the index, read and checked once: reading the samplesheet in each shard would be work that grows with the cohort's square.
# The index is ancient, because a row that is added elsewhere changes the index and not this shard; the digest says whether it did.
rule shard:
    localrule: True
    input:
        index=ancient(f"{RESULTS}/parts/index.parquet"),
    output:
        f"{RESULTS}/parts/shards/{{shard}}.csv",
    log:
        f"{RESULTS}/logs/shard/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/shard/{{shard}}.tsv"
    params:
        images=lambda wildcards: SHARDS[wildcards.shard],
        folder=lambda wildcards, output: str(Path(output[0]).parent),
    threads: 1
    resources:
        mem_mb=1500,
        runtime=15,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Photographs of shard {wildcards.shard}"
    shell:
        "retsam ingest --cohort {input.index:q} --shards {params.folder:q} --shard {wildcards.shard} > {log:q} 2>&1"
