"""Draws where each balancer ends up on a landscape of two conflicting losses.

    python -m experiments.landscape --first_scale=0.1

The landscape of the gradient-balancing papers (lplmtl.data.conflicting_losses)
has two parameters, so that a picture shows everything: a panel for each
balancer, with its paths from five starts to the Pareto front, or to where they
get stuck. Adam takes `--descent_steps` steps at each of `--descent_rates`; the
picture shows the first of these, and the table how many starts reach the front
at each.
"""

from absl import flags

from experiments.launcher import frame, options, parsing

flags.DEFINE_list(
  'methods', [],
  'Landscape: the balancers, functions of lplmtl.balancing. static stands for '
  'several pairs of weights. Default: all that differ with two parameters.',
)  # fmt: skip
flags.DEFINE_float(
  'first_scale', 1.0,
  'Landscape: the unit of the first loss: 1 as in Liu et al. 2021, 0.1 as in '
  'Navon et al. 2022.', lower_bound=1e-6, upper_bound=1e6,
)  # fmt: skip
flags.DEFINE_integer(
  'descent_steps', 50_000, 'Landscape: steps from each start.',
  lower_bound=100, upper_bound=10_000_000,
)  # fmt: skip
flags.DEFINE_list(
  'descent_rates', ['0.001', '0.003', '0.01'],
  'Landscape: learning rates that each balancer tries.',
)  # fmt: skip
flags.DEFINE_string(
  'landscape_to', 'runs/landscape',
  'Landscape: the files to write, without .md, .csv, .json and .png.',
)  # fmt: skip


def main(argv: list[str]) -> None:
  """Descends with the balancers that the flags name, and draws the paths."""
  with frame.command('interrupted: nothing is kept') as ready:
    options.refuse_arguments(argv)
    # JAX and Matplotlib take seconds to import: not for --help.
    from experiments.studies import descent, landscape

    ready()
    given = flags.FLAGS
    asked = descent.Asked(
      methods=tuple(given.methods),
      first_scale=given.first_scale,
      num_steps=given.descent_steps,
      rates=descent.parse_rates(given.descent_rates),
    )
    landscape.make(asked, parsing.path('--landscape_to', given.landscape_to))


if __name__ == '__main__':
  frame.run(main)
