# retsam: colour fundus photographs -> quality -> segmentation -> biomarkers -> associations -> report.
#
#   snakemake                                     the demo of config/config.yaml, once `make demo` has rendered its cohort
#   snakemake --configfile config/odir.yaml       another study
#   snakemake --workflow-profile slurm            the same study on a Slurm cluster (workflow/profiles/slurm)
#   snakemake associate                           associations only, from the biomarkers that are there
#
# As a module of another workflow: see docs/workflow.md.
from snakemake.utils import min_version

min_version("9.3")


# Snakemake merges a file named by --configfile into this one, key by key, labels of one study into those of the other. So the default
# is read only where no study was named (neither by --configfile nor by a workflow that uses this one as a module).
if "cohort" not in config:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# A frozen study starts from tables that are there: nothing upstream of them may be planned.
if not PLAN.frozen:

    include: "workflow/rules/cohort.smk"
    include: "workflow/rules/quality.smk"
    include: "workflow/rules/segmentation.smk"
    include: "workflow/rules/biomarkers.smk"


include: "workflow/rules/association.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/provenance.json",
