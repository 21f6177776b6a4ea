# Biomarkers: measured store by store without regard to quality, so that a new threshold measures nothing again; then gathered.


rule measure:
    input:
        config=f"{RESULTS}/configs/measure.yaml",
        store=f"{RESULTS}/masks/{{shard}}.zarr",
    output:
        f"{RESULTS}/parts/biomarkers/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/measure/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure/{{shard}}.tsv"
    # `biomarkers.workers`; left out one, because more shards at a time are faster than more workers a shard (each starts Python anew).
    threads: PLAN.measure_threads
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Biomarkers, shard {wildcards.shard}"
    shell:
        "retsam measure --config {input.config:q} --store {input.store:q} --workers {threads} --out {output:q} > {log:q} 2>&1"


rule gather:
    input:
        config=f"{RESULTS}/configs/measure.yaml",
        index=f"{RESULTS}/parts/index.parquet",
        quality=f"{RESULTS}/quality.parquet",
        parts=expand(f"{RESULTS}/parts/biomarkers/{{shard}}.parquet", shard=SHARDS),
    output:
        parquet=f"{RESULTS}/biomarkers.parquet",
        csv=f"{RESULTS}/biomarkers.csv",
    log:
        f"{RESULTS}/logs/gather.log",
    benchmark:
        f"{RESULTS}/benchmarks/gather.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=30,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Biomarkers of the whole cohort"
    shell:
        "retsam measure gather --config {input.config:q} --cohort {input.index:q} --quality {input.quality:q}"
        " --out {output.parquet:q} --parts {input.parts:q} > {log:q} 2>&1"
