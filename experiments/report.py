"""Puts several runs, or comparisons, on one page.

    python -m experiments.report runs/sple runs/ple --report_dir=report

Takes results.json and comparison.json files, or the folders that hold them, and
writes report.html (pictures inside), report.md and the pictures.
"""

from absl import flags

from experiments.launcher import frame, parsing

flags.DEFINE_string('report_dir', 'report', 'Report: the folder for the page.')


def main(argv: list[str]) -> None:
  """Makes a page of the runs and comparisons that the arguments name."""
  with frame.command() as ready:
    # NumPy, JAX and Matplotlib take seconds to import: not for --help.
    from experiments.reporting import page

    ready()
    written = page.make(
      [parsing.path('a run to report', path) for path in argv[1:]],
      parsing.path('--report_dir', flags.FLAGS.report_dir),
    )
  print(f'written: {", ".join(map(str, written))}')


if __name__ == '__main__':
  frame.run(main)
