"""Measures what a training costs as the number of its tasks grows.

    python -m experiments.many_tasks --architectures=ple --task_counts=2,50

For each architecture, balancer and number of binary tasks: the CPU time in
which the program of the first state and that of the steps are traced, lowered
and compiled, and the FLOPs and the CPU time of a step of 256 rows.
"""

import os

from absl import flags

from experiments.launcher import frame, options, parsing

flags.DEFINE_list('task_counts', ['2', '10', '50', '200'], 'Numbers of tasks.')
# Other commands have flags of these names, too: a process may import both.
flags.DEFINE_list(
  'architectures', ['mmoe', 'ple'],
  'Architectures, by their file names in lplmtl/architectures.',
  allow_override=True,
)  # fmt: skip
flags.DEFINE_list(
  'balancers', ['equal'], 'One or more functions of lplmtl.balancing.',
  allow_override=True,
)  # fmt: skip
flags.DEFINE_integer(
  'turns', 15, 'Of which the median time of a step is taken.',
  lower_bound=2, upper_bound=100_000, allow_override=True,
)  # fmt: skip
flags.DEFINE_string(
  'out', '', 'JSON file for the figures; none by default.', allow_override=True
)


def main(argv: list[str]) -> None:
  """Measures what the flags ask for, and prints a table."""
  with frame.command() as ready:
    options.refuse_arguments(argv)
    values = flags.FLAGS
    # Before JAX starts: steps run on one thread.
    single = '--xla_cpu_multi_thread_eigen=false'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {single}'
    # A program that is read from a cache would take no time to compile.
    os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
    # JAX takes seconds to import: not for --help.
    from experiments.benchmark import many_tasks

    ready()
    many_tasks.measure(
      many_tasks.Asked(
        tuple(values.architectures),
        tuple(values.balancers),
        many_tasks.counts(values.task_counts),
        values.turns,
        parsing.path('--out', values.out) if values.out else None,
      )
    )


if __name__ == '__main__':
  frame.run(main)
