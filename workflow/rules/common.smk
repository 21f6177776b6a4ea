# Validates the configuration and the samplesheet before anything is planned, and plans the shards.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from retsam.workflow import drop_shards, plan_study, prepare_environment
from retsam.workflow_lock import clear_dead_lock, hold, let_go

try:
    # Linting reads the rules; it must work where the photographs are not.
    PLAN = plan_study(config, photographs="--lint" not in sys.argv)
except ValueError as error:  # every fault of the configuration or of the samplesheet, one a line
    raise WorkflowError(str(error)) from None

RESULTS = PLAN.results
SHARDS = PLAN.shards

# Rules call the plain command `retsam`: a conda environment or a container brings its own; without one it is the one beside the
# interpreter that runs Snakemake, whether or not its environment was activated.
prepare_environment(PLAN)

# A run that was killed outright leaves Snakemake's lock; nobody should have to know `--unlock` to go on.
if clear_dead_lock(Path(".snakemake")):
    print("The lock of a run that was killed here is cleared; this run goes on where it was.", file=sys.stderr)


onstart:
    # Snakemake has its own lock by now; where a later version keeps its files elsewhere, `hold` finds them itself.
    held = getattr(workflow.persistence, "_lockfile", None)
    hold(Path(".snakemake"), None if held is None else list(held.values()))
    for line in drop_shards(PLAN):
        print(line, file=sys.stderr)


onsuccess:
    let_go(Path(".snakemake"))


onerror:
    let_go(Path(".snakemake"))


wildcard_constraints:
    shard="s[0-9]+",
    stage="|".join(PLAN.stages),


# What one stage reads of the configuration. The file changes only when one of these settings does, so an edit reruns the stages it
# touches and no others. Nothing may be a param here that is not in the file: a run killed after this rule would hide it from the next one.
# Digests of models are params of the rules that use them.
rule settings:
    localrule: True
    output:
        f"{RESULTS}/configs/{{stage}}.yaml",
    log:
        f"{RESULTS}/logs/settings/{{stage}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/settings/{{stage}}.tsv"
    params:
        settings=lambda wildcards: PLAN.stage_text(wildcards.stage),
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
        gpu=0,
    conda:
        "../../envs/cpu.yaml"
    message:
        "Settings of stage {wildcards.stage}"
    shell:
        "retsam config stage {wildcards.stage} --settings {params.settings:q} --out {output:q} > {log:q} 2>&1"
