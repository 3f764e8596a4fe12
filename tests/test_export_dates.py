"""Dates in exported programs: NumPy and C read what training reads."""

import datetime
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import lplmtl
from lplmtl import export, tables, tasks
from lplmtl.export import (
  c99,
  c_csv,
  c_date_helpers,
  c_encoder,
  c_files,
  c_text,
  numpy_form,
  reader,
  rows,
  vectors,
)
from lplmtl.tabular import formats
from tests import contracts
from tests.test_export_c99 import COMPILERS, SANITIZERS, check
from tests.test_export_csv import _run, _text

needs_c = pytest.mark.skipif(not COMPILERS, reason='needs a C compiler')
_ZONES = ('', 'Z', '+02:00', '-0930', '+14', '-23:59')
_TIMES = st.datetimes(
  datetime.datetime(2, 1, 1), datetime.datetime(9999, 12, 29)
)


def _fitted(form, times, *, missing=(), fill=True, num_bins=0):
  return tables.fit(
    {}, {}, dates={'at': (times, form)}, num_bins=num_bins,
    rules=tables.Rules(missing=missing, fill_missing=fill),
  )  # fmt: skip


_SOME = ['1899-12-31T23:59:59', '2000-02-29 12:30:00', '2024-05-01']
_ISO = _fitted('', [*_SOME, None], num_bins=3)


@hypothesis.given(
  st.lists(st.tuples(_TIMES, st.sampled_from(_ZONES)), min_size=1, max_size=9)
)
@hypothesis.example([(datetime.datetime(1900, 2, 28, 23), '-01:00')])
@hypothesis.example([(datetime.datetime(1969, 12, 31, 23, 59, 59, 1), '')])
def test_numpy_encodes_iso_dates_as_training_does(given):
  texts = [time.isoformat() + zone for time, zone in given] + ['']
  found = reader.encode(rows.to_data(_ISO), {'at': texts})
  for name, expected in _ISO.encode({'at': texts}).items():
    np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize('form', ['%d.%m.%y', '%b %d, %Y %I:%M %p'])
def test_numpy_reads_formats_times_and_missing_dates(form):
  """A text that stands for a missing date, and times of other types."""
  times = [datetime.datetime(1999, 12, 31, 5), datetime.datetime(2024, 2, 29)]
  texts = [f'{time:{form}}' for time in times]
  fitted = _fitted(form, [*texts, 'x', None], missing=('x', texts[1]))
  given = [
    *texts,
    ' x ',
    f' {texts[0]} ',
    times[0],
    'NaT',
    np.datetime64('NaT', 'us'),
  ]
  given += [np.datetime64('2024-02-29T01:02:03.123456789'), None]
  found = reader.encode(rows.to_data(fitted), {'at': given})
  for name, expected in fitted.encode({'at': given}).items():
    np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize(
  ('text', 'fill'), [('2024-02-30', True), ('soon', True), ('', False)]
)
def test_what_is_no_date_is_refused(text, fill):
  data = rows.to_data(_fitted('', _SOME, fill=fill))
  with pytest.raises(
    ValueError, match=f"'at': expected a date, found '{text}'"
  ):
    reader.encode(data, {'at': [text]})


def _texts(rng):
  """Pairs of a format and a text, of every format that tabular finds."""
  times = [
    datetime.datetime(2000, 2, 29, 0, 0, 0, 1), datetime.datetime(1900, 3, 1),
    datetime.datetime(1969, 12, 31, 23, 59, 59, 999999),
    datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30, 12),
  ]  # fmt: skip
  times += [
    datetime.datetime(1, 1, 2) + datetime.timedelta(
      days=int(rng.integers(0, 3652000)), seconds=int(rng.integers(0, 86400))
    ) for _ in range(1200)
  ]  # fmt: skip
  found = [
    ('', time.isoformat(sep=' T'[i % 2]) + _ZONES[i % 6])
    for i, time in enumerate(times)
  ]
  found += [('', time.isoformat()[:n]) for time in times[:9] for n in (10, 16)]
  every = [form for form in formats._FORMATS if form]
  recent = [time for time in times if time.year > 1000]
  found += [
    (form, f'{time:{form}}')
    for form, time in zip(itertools.cycle(every), recent, strict=False)
  ]
  return found


def _changed(text, rng):
  """A text in which a character is left out, doubled or replaced."""
  at = int(rng.integers(len(text)))
  new = ('', 2 * text[at], str(rng.choice(list('0139:. -TZ+a'))))
  return text[:at] + new[int(rng.integers(3))] + text[at + 1 :]


def _expected(form, text):
  """Whether a text is a date (0), missing (1) or none (-1), and which."""
  try:
    (time,) = lplmtl.dates.read('at', [text], form)
  except ValueError:
    return -1, 0
  return int(np.isnat(time)), 0 if np.isnat(time) else int(time.astype(int))


@needs_c
def test_c_reads_dates_as_training_does(tmp_path):
  """Or refuses them; and finds the same parts."""
  rng = np.random.default_rng(0)
  pairs = _texts(rng)
  num_whole = len(pairs)
  pairs += [(form, _changed(text, rng)) for form, text in pairs]
  pairs += [('', text) for text in ('', 'NaT', ' nan ', '2024-05-01 ')]
  expected = [_expected(*pair) for pair in pairs]
  assert all(lost == 0 for lost, _ in expected[:num_whole])
  times = np.array([time for _, time in expected], 'datetime64[us]')
  origin = '1999-12-31'
  date = lplmtl.dates.Date('', lplmtl.dates.PARTS, origin)
  parts = np.stack([*date.numbers(times).values()], axis=1)
  cases = [
    f'{{{c_text.string(form)}, {c_text.string(text)}, {lost}, INT64_C({time})'
    f', {{{", ".join(map(repr, numbers))}}}}}'
    for (form, text), (lost, time), numbers in zip(
      pairs, expected, parts.tolist(), strict=True
    )
  ]
  body = f"""
typedef struct {{
  const char *format, *text;
  int lost;
  int64_t time;
  double parts[5];
}} one;
{c_text.array('one', 'cases', cases)}
int main(void) {{
  int i, j, wrong = 0;
  for (i = 0; i < {len(cases)}; i++) {{
    const one *x = cases + i;
    double parts[5];
    int64_t time;
    int lost = *x->format ? read_date(x->text, x->format, &time)
                          : read_iso_date(x->text, &time);
    int is_wrong = lost != x->lost || (lost == 0 && time != x->time);
    if (i >= {num_whole} && lost == -1) is_wrong = 0; /* may be refused */
    find_parts(x->time, {np.datetime64(origin, 'us').astype(int)}, 0, parts);
    for (j = 0; j < 5; j++) is_wrong |= parts[j] != x->parts[j];
    if (is_wrong && wrong < 9)
      printf("%s|%s|%d %lld|%d %lld\\n", x->format, x->text, lost,
             (long long)time, x->lost, (long long)x->time);
    wrong += is_wrong;
  }}
  return wrong > 0;
}}
"""
  known = c_encoder.helpers({**rows.to_data(_ISO), 'missing': []})
  used = c_files.used({**known, **c_date_helpers.of([])}, body)
  heads = '#include <math.h>\n#include <stdint.h>\n#include <stdio.h>\n'
  (tmp_path / 'dates.c').write_text(f'{heads}{"".join(used)}{body}')
  check(tmp_path, '-O1', *SANITIZERS)


def _model(fitted):
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, num_pieces=fitted.num_pieces
  )
  model = lplmtl.SharedBottom((tasks.binary('buys'),), encoder)
  features = rows.features(fitted)
  params = contracts.random_params(model, features)
  return export.trace(model, params, features)


def _mixed():
  """Numbers, categories and dates: flags, bins, a column that is both."""
  rng = np.random.default_rng(0)
  days = np.datetime64('2023-12-01') + rng.integers(0, 90, 60)
  hours = days.astype('datetime64[h]') + rng.integers(0, 24, 60)
  short = [f'{day:%d.%m.%y}' for day in days.tolist()]
  return tables.fit(
    {'city': ['Oslo', '?', 'Rome'] * 20, 'day': short},
    {'age': [3.0, 5.0, None] * 20, 'size': [5, 1, 2] * 20}, num_bins=4,
    dates={
      'at': ([*hours.astype(str)[1:], None], ''),
      'day': ([*short[1:], '?'], '%d.%m.%y'),
      'never': ([None] * 60, '%Y'),
    },
    rules=tables.Rules(missing=('?', '5', '01.01.70'), fill_missing=True),
  )  # fmt: skip


@needs_c
def test_programs_with_dates(tmp_path):
  """From lines of CSV to predictions, with the bits of the reference."""
  fitted = _mixed()
  program = _model(fitted)
  raw = vectors.of_encoding(rows.to_data(fitted), 60)
  raw['at'][5:9] = ['2024-01-01T12:00:00.5-12:00', '?', ' 2024-02-29 ', 'NaT']
  raw['day'][5:9] = ['01.01.70', '29.2.24', '?', '5']
  raw['age'][7:9] = [5, 5.0]
  c99.write(tmp_path, program, fitted, columns=raw)
  assert '60 rows, largest difference 0.0e+00' in check(tmp_path)
  encoded = fitted.encode(raw)
  found = reader.encode(rows.to_data(fitted), raw)
  np.testing.assert_array_equal(found['categories'], encoded['categories'])
  np.testing.assert_array_equal(found['numeric'], encoded['numeric'])
  (tmp_path / 'model_test.c').unlink()
  c_csv.write(tmp_path, fitted, ['x', *fitted.columns])
  lines = _text({'x': raw['at'], **raw}, ['x', *fitted.columns])
  (_, first), *_ = rows_found = _run(tmp_path, lines)
  data = numpy_form.to_data(program, fitted)
  expected = reader.predict(data, raw)['buys'][:, 0]
  assert 0 < float(first) < 1
  np.testing.assert_allclose(
    [float(value) for _, value in rows_found], expected, rtol=1e-6
  )


@needs_c
def test_dates_that_c_cannot_read(tmp_path):
  """The member is returned; a format that it does not know is refused."""
  fitted = tables.fit({}, {'age': [1.0, 2.0]}, dates={'at': (_SOME[:2], '')})
  c99.write(tmp_path, _model(fitted), fitted)
  (tmp_path / 'model_test.c').write_text("""
#include "model.h"
int main(void) {
  const model_row bad[4] = {
      {1, "2024-02-30"}, {1, 0}, {1, "soon"}, {1e300, "2024-02-29"}};
  model_prediction found;
  return model_predict(&bad[0], &found) != 2 ||
         model_predict(&bad[1], &found) != 2 ||
         model_predict(&bad[2], &found) != 2 ||
         model_predict(&bad[3], &found) != 1;
}
""")
  check(tmp_path)
  odd = _fitted('%Y week %W %a', ['2024 week 3 Mon', '2023 week 5 Tue'])
  with pytest.raises(ValueError, match="'at' has '%Y week %W %a': use the"):
    c99.write(tmp_path, _model(odd), odd)
