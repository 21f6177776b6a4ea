# Quality: metrics need the photographs and no threshold; grading needs the metrics and no photograph.


rule metrics:
    input:
        config=f"{RESULTS}/configs/metrics.yaml",
        shard=f"{RESULTS}/parts/shards/{{shard}}.csv",
    output:
        f"{RESULTS}/parts/quality/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/metrics/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/metrics/{{shard}}.tsv"
    params:
        # A replaced photograph changes no byte of the shard's file (see rule shard); who opens photographs follows them itself.
        images=lambda wildcards: SHARDS[wildcards.shard],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=lambda wildcards, attempt: 30 * attempt,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Field of view and image metrics, shard {wildcards.shard}"
    shell:
        "retsam quality metrics --config {input.config:q} --shard-file {input.shard:q} --out {output:q} > {log:q} 2>&1"


rule grade:
    input:
        config=f"{RESULTS}/configs/grade.yaml",
        index=f"{RESULTS}/parts/index.parquet",
        metrics=expand(f"{RESULTS}/parts/quality/{{shard}}.parquet", shard=SHARDS),
    output:
        f"{RESULTS}/quality.parquet",
    log:
        f"{RESULTS}/logs/grade.log",
    benchmark:
        f"{RESULTS}/benchmarks/grade.tsv"
    params:
        model=PLAN.model_digests.get("grade", ""),
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Grades, reasons and duplicates"
    shell:
        "retsam quality grade --config {input.config:q} --cohort {input.index:q} --metrics {input.metrics:q} --out {output:q} > {log:q} 2>&1"
