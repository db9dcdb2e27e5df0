#!/bin/bash
# Builds a spec on several machines: starts a Dask scheduler here and a worker on each, builds, and stops them.
#   build.sh SPEC CACHE [HOST...]
# HOST is reached by ssh, and has PYTHON at the same path; `localhost` (the default) is this machine, without ssh.
# PORT, SCHEDULER, PYTHON, THREADS (kernels at a time on each): see below. SHARED=1: CACHE is on storage that all hosts
# have, and workers write into it. What Dask says is in dask.log.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
spec=$1 cache=$2
shift 2
[[ $# -gt 0 ]] || set -- localhost
PORT=${PORT:-8786}
SCHEDULER=${SCHEDULER:-$(hostname -f)} # the name or address that workers reach this machine by
PYTHON=${PYTHON:-$(command -v python3)}
THREADS=${THREADS:-4}

started=()
stop() {
  kill "${started[@]}" 2>/dev/null || true
  for _ in {1..20}; do
    [[ -n $(jobs -rp) ]] || return 0
    sleep 0.5
  done
  kill -KILL "${started[@]}" 2>/dev/null || true # a worker that lost its scheduler meanwhile can go on trying
}
trap stop EXIT
"$PYTHON" -m distributed.cli.dask_scheduler --host "$SCHEDULER" --port "$PORT" --no-dashboard >dask.log 2>&1 &
started+=($!)
# No nanny, so that a worker which is ended stays so. One that finds no scheduler ends after a minute.
worker=("$PYTHON" -m distributed.cli.dask_worker "tcp://$SCHEDULER:$PORT" --no-nanny --no-dashboard
  --nthreads "$THREADS" --death-timeout 60)
for host; do
  if [[ $host == localhost ]]; then
    "${worker[@]}" >>dask.log 2>&1 &
  else
    ssh -tt "$host" "${worker[*]@Q}" </dev/null >>dask.log 2>&1 &
  fi
  started+=($!)
done

if [[ ${SHARED:-0} == 1 ]]; then
  fa4-precompile build "$spec" --cache "$cache" --executor "dask://$SCHEDULER:$PORT" --workers-publish
else
  fa4-precompile build "$spec" --cache "$cache" --executor "dask://$SCHEDULER:$PORT"
fi
