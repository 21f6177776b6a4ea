# Associations: from three tables and nothing else. `snakemake associate` on tables that are there runs this stage alone.


rule associate:
    input:
        config=f"{RESULTS}/configs/associate.yaml",
        cohort=f"{RESULTS}/cohort.parquet",
        quality=f"{RESULTS}/quality.parquet",
        biomarkers=f"{RESULTS}/biomarkers.parquet",
    output:
        parquet=f"{RESULTS}/associations.parquet",
        csv=report(
            f"{RESULTS}/associations.csv",
            caption="../report/associations.rst",
            category="Associations",
        ),
        json=f"{RESULTS}/associations.json",
    log:
        f"{RESULTS}/logs/associate.log",
    benchmark:
        f"{RESULTS}/benchmarks/associate.tsv"
    params:
        # The list of photographs that taught the weights: their subjects are left out.
        learned=PLAN.model_digests.get("associate", ""),
    threads: PLAN.associate_threads
    resources:
        # 100,000 photographs: 1.4 GB with 164 biomarkers, 3.1 GB before the fits with all 1,284 (docs/benchmarks/scale.md)
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Associations with every outcome"
    shell:
        "retsam associate --config {input.config:q} --cohort {input.cohort:q} --quality {input.quality:q}"
        " --biomarkers {input.biomarkers:q} --workers {threads} --out {output.parquet:q} > {log:q} 2>&1"
