#!/usr/bin/env bash
# Runs inside the environment that Snakemake has just made: adds retsam itself, without dependencies (the environment has them).
set -euo pipefail
: "${RETSAM_SOURCE:?the workflow sets it to the folder of pyproject.toml; run this through snakemake}"
python -m pip install --no-deps --quiet "$RETSAM_SOURCE"
