"""Figure 30: KL to the prompted teacher along context distillation.

  python -m experiments.distill_context --config=configs/paper/fig30_distillation.py --workdir=runs/d \\
    --config.teacher=runs/quickstart/lm
  :smoke  seconds on a CPU;  :long  until it no longer falls
Expected: a tenth of the start, lowest for the student that is the teacher (docs/results.md).
"""
from configs import distill_context


def get_config(arg=''):
  return distill_context.get_config(arg)
