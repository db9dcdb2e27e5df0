"""How long it takes to ask for the kernels of 2,000 calls, imports apart.

    python benchmarks/planning.py

Everything that a training fleet may call: dtypes, head dims, causal, window, GQA ratios, varlen, the log-sum-exp,
deterministic backward.
"""

from __future__ import annotations

import time

from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.compile.pool import default_jobs
from fa4_precompile.precompile.plan import make_plan
from fa4_precompile.precompile.spec.spec import parse_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT

_AXES = """
  dtype: [bf16, fp16]
  head_dim: [64, 96, 128, [192, 128], 256]
  causal: [false, true]
  qheads_per_kvhead: [1, 2, 4, 8, 16]
  varlen: [false, true]
  window: [null, [512, 0]]
"""
_SPEC = f"""
version: 1
provider: flash-attn-4
targets: [b200]
kernels:
- name: all
  pass: [fwd, bwd]
  return_lse: [false, true]{_AXES}
- name: deterministic
  pass: bwd
  deterministic: true{_AXES}
"""


def main() -> None:
    """Print one line a run; the first has the imports, the second not."""
    spec = parse_spec("planning.yaml", _SPEC, target_book())
    with Compilers(DEFAULT, spec.targets[0], installed_toolchain(DEFAULT), default_jobs()) as compilers:
        start = time.monotonic()
        compilers.pool().submit(len, []).result()
        print(f"imports: {time.monotonic() - start:.1f} s")
        for _ in range(3):
            start = time.monotonic()
            plan = make_plan(spec, compilers)
            seconds = time.monotonic() - start
            calls = f"{len(spec.variants)} calls, {len(plan.kernels)} kernels, {len(plan.excluded)} calls excluded"
            print(f"{calls}: {seconds:.1f} s")


if __name__ == "__main__":
    main()
