"""The notebook runs from top to bottom, and is stored without outputs."""

import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK = ROOT / 'experiments' / 'colab.ipynb'
CELLS = json.loads(NOTEBOOK.read_text())['cells']
# One architecture, the quickest to compile that has gates.
SMALL = """
DATASET, NUM_ROWS, NUM_EPOCHS, NUM_SEEDS = 'sample', 1500, 1, 2
ARCHITECTURES = ('omoe',)
"""


def test_outputs_are_stripped():
  for cell in CELLS:
    assert not cell.get('outputs')
    assert cell.get('execution_count') is None


@pytest.mark.slow
@pytest.mark.filterwarnings('default')  # Jupyter's own, on new Pythons
def test_all_cells_run(tmp_path, monkeypatch):
  import nbclient  # of the extra `test`, for this test only
  import nbformat

  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  (cell,) = (
    c for c in notebook.cells if 'parameters' in c.metadata.get('tags', ())
  )
  cell.source = SMALL
  client = nbclient.NotebookClient(notebook, timeout=120, kernel_name='python3')
  client.execute(cwd=str(tmp_path))
  outputs = [o for c in notebook.cells for o in c.get('outputs', ())]
  pictures = [o for o in outputs if 'image/png' in o.get('data', {})]
  tables = [
    o['data']['text/plain'] for o in outputs if 'text/html' in o.get('data', {})
  ]
  assert len(pictures) == 2  # learning curves and gates
  assert any('omoe' in table and 'income AUC' in table for table in tables)
  assert any('buy' in table and 'loss weight' in table for table in tables)
