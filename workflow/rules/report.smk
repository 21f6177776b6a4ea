# The report, and where everything came from.
from retsam.report.config import FIGURE_NAMES

# They are written unless `report.figures` is off.
FIGURES = [f"{RESULTS}/figures/{name}" for name in FIGURE_NAMES if PLAN.config.report.figures]


rule provenance:
    input:
        config=f"{RESULTS}/configs/report.yaml",
        associations=f"{RESULTS}/associations.parquet",
    output:
        f"{RESULTS}/provenance.json",
    log:
        f"{RESULTS}/logs/provenance.log",
    benchmark:
        f"{RESULTS}/benchmarks/provenance.tsv"
    params:
        results=lambda wildcards, output: str(Path(output[0]).parent),
        # It names the weights; new ones may leave the associations byte for byte as they were.
        model=PLAN.model_digests.get("segment", ""),
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Versions, hashes, commands and times"
    shell:
        "retsam provenance --config {input.config:q} --results {params.results:q} --out {output:q} > {log:q} 2>&1"


rule report:
    input:
        config=f"{RESULTS}/configs/report.yaml",
        cohort=f"{RESULTS}/cohort.parquet",
        quality=f"{RESULTS}/quality.parquet",
        biomarkers=f"{RESULTS}/biomarkers.parquet",
        associations=f"{RESULTS}/associations.parquet",
        provenance=f"{RESULTS}/provenance.json",
    output:
        html=report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="Report",
        ),
        svg=report(
            [f"{path}.svg" for path in FIGURES],
            caption="../report/figures.rst",
            category="Figures",
        ),
        pdf=[f"{path}.pdf" for path in FIGURES],
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    params:
        results=lambda wildcards, output: str(Path(output.html).parent),
    threads: 1
    resources:
        # 100,000 photographs with every biomarker: 2.9 GB (docs/benchmarks/scale.md)
        mem_mb=lambda wildcards, attempt: 3500 * attempt,
        runtime=30,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Report"
    shell:
        "retsam report --config {input.config:q} --results {params.results:q} --out {output.html:q} > {log:q} 2>&1"
