#!/bin/bash
# Builds a spec as an array of jobs, and merges the shards when all of them ended well.
#   submit.sh SPEC RELEASE [SHARDS]
# RELEASE is a new folder on a filesystem that all nodes have. Prints the id of the job that merges.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
SPEC=$(realpath -- "$1")
RELEASE=$(realpath -m -- "$2")
SHARDS=${3:-8}
export SPEC RELEASE SHARDS
here=$(dirname -- "$(realpath -- "$0")")

build=$(sbatch --parsable --array="1-$SHARDS" "$here/build.sbatch")
sbatch --parsable --dependency="afterok:${build%%;*}" --kill-on-invalid-dep=yes "$here/merge.sbatch"
