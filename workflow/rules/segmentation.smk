# Segmentation: one job = one shard of photographs = one store, written whole to a temporary name and renamed into place. Snakemake
# removes the store of a job that fails; a job that was killed leaves at most the temporary name, which the next attempt removes.


rule segment:
    input:
        config=f"{RESULTS}/configs/segment.yaml",
        shard=f"{RESULTS}/parts/shards/{{shard}}.csv",
        metrics=f"{RESULTS}/parts/quality/{{shard}}.parquet",
    output:
        directory(f"{RESULTS}/masks/{{shard}}.zarr"),
    log:
        f"{RESULTS}/logs/segment/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/segment/{{shard}}.tsv"
    params:
        images=lambda wildcards: SHARDS[wildcards.shard],
        model=PLAN.model_digests.get("segment", ""),
    threads: PLAN.segment_threads
    resources:
        mem_mb=lambda wildcards, attempt: 3500 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
        gpu=PLAN.gpus,
    conda:
        f"../../envs/{PLAN.segment_environment}.yaml"
    message:
        "Segmentation, shard {wildcards.shard}"
    shell:
        "retsam segment --config {input.config:q} --shard-file {input.shard:q} --metrics {input.metrics:q}"
        " --out {output:q} > {log:q} 2>&1"
