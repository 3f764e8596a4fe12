'use strict';

const MOST_OPTIONS = 20; // of a list; longer ones can be searched
const MOST_BARS = 12; // of a task; of more classes, the likeliest
const MOST_SHOWN = 10; // rows of a table
const PAUSE = 700; // milliseconds before predictions are read aloud

const data = JSON.parse(byId('data').textContent);
const percent = new Intl.NumberFormat('en', {
  style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1,
});
const plain = new Intl.NumberFormat('en', {maximumSignificantDigits: 5});

function byId(id) {
  return document.getElementById(id);
}

// Returns an element. What comes from data becomes text or a property, never
// markup.
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- The form of one row

// Each returns {element, read}: what is shown, and a function that returns the
// text of the value, or null if it is none.
const KINDS = {
  category(field, id) {
    if (field.values.length > MOST_OPTIONS) return searched(field, id);
    const select = make('select', {id},
      new Option('missing', ''),
      ...field.values.map((value) => new Option(value, value)),
      new Option('other, not seen in training', field.other));
    return {element: labelled(field, id, select), read: () => select.value};
  },
  'yes or no'(field, id) {
    const group = make('fieldset', {className: 'field'},
      make('legend', {textContent: field.name}));
    const choices = make('div', {className: 'choices'});
    for (const [text, value] of [['yes', 'yes'], ['no', 'no'], ['missing', '']]) {
      const button = make('input', {
        type: 'radio', name: id, value, id: `${id}-${text}`,
        defaultChecked: value === field.start,
      });
      choices.append(
        button, make('label', {htmlFor: button.id, textContent: text}));
    }
    group.append(choices);
    const read = () => choices.querySelector(':checked').value;
    return {element: group, read};
  },
  number(field, id) {
    return typed(field, id, {type: 'number', step: 'any'},
      `mostly ${field.from} to ${field.to}`);
  },
  date(field, id) {
    if (field.format) {
      return typed(field, id, {type: 'text'}, `a date like ${field.format}`);
    }
    const type = field.has_time ? 'datetime-local' : 'date';
    return typed(field, id, {type}, 'UTC');
  },
  text(field, id) {
    return typed(field, id, {type: 'text'}, '');
  },
};

function typed(field, id, properties, hint) {
  const input = make('input', {
    id, defaultValue: field.start, required: field.required,
    placeholder: 'missing', autocomplete: 'off', ...properties,
  });
  const read = () => (input.validity.badInput ? null : input.value);
  return {element: labelled(field, id, input, hint), read};
}

function searched(field, id) {
  const known = new Set(field.values);
  const note = `${field.values.length} values`;
  const found = typed(field, id, {type: 'text'}, note);
  const input = found.element.querySelector('input');
  const list = make('datalist', {id: `${id}-list`},
    ...field.values.map((value) => make('option', {value})));
  input.setAttribute('list', list.id);
  found.element.append(list);
  const hint = found.element.querySelector('.hint');
  const say = () => {
    const value = input.value.trim();
    const isNew = value !== '' && !known.has(value);
    hint.textContent = isNew ? 'not seen in training' : note;
  };
  return {...found, read: () => (say(), found.read())};
}

function labelled(field, id, control, hint = '') {
  const label = make('label', {htmlFor: id, textContent: field.name});
  const note = make('p', {id: `${id}-hint`, className: 'hint', textContent: hint});
  const error = make('p', {id: `${id}-error`, className: 'error'});
  control.setAttribute('aria-describedby', `${note.id} ${error.id}`);
  return make('div', {className: 'field'}, label, control, note, error);
}

// ---- Predictions of one row

// Returns {element, show}, which takes the values of a task and returns what to
// say of them.
function outputOf(output) {
  const element = make('div', {className: 'output'},
    make('h3', {textContent: output.name}));
  if (output.kind === 'number' || output.kind === 'count') {
    const value = make('p', {className: 'number'});
    element.append(value);
    return {element, show: (values) => {
      value.textContent = Array.from(values, (one) => amount(output, one))
        .join(', ');
      return `${output.name}: ${value.textContent}`;
    }};
  }
  const bars = output.labels.slice(0, MOST_BARS).map(() => {
    const [label, share, fill] = ['label', 'share', 'fill'].map((className) =>
      make('span', {className}));
    const track = make('span', {className: 'track'}, fill);
    return {label, share, fill, item: make('li', {}, label, share, track)};
  });
  const rest = make('p', {className: 'hint'});
  element.append(make('ul', {}, ...bars.map((bar) => bar.item)), rest);
  const isLong = output.labels.length > MOST_BARS;
  if (isLong) rest.textContent = `of ${output.labels.length}`;
  return {element, show: (values) => {
    const likeliest = [...values.keys()].sort((a, b) => values[b] - values[a]);
    const shown = isLong ? likeliest : [...values.keys()];
    bars.forEach(({label, share, fill, item}, i) => {
      label.textContent = output.labels[shown[i]];
      share.textContent = percent.format(values[shown[i]]);
      fill.style.width = `${100 * values[shown[i]]}%`;
      item.classList.toggle('likeliest', shown[i] === likeliest[0]);
    });
    const best = likeliest[0];
    return `${output.name}: ${output.labels[best]} ` +
      percent.format(values[best]);
  }};
}

function amount(output, value) {
  return `${plain.format(value)} ${output.unit}`.trim();
}

function startRow(predict) {
  const fields = data.fields.map((field, i) => {
    const found = KINDS[field.kind](field, `field-${i}`);
    byId('fields').append(found.element);
    return found;
  });
  const outputs = data.outputs.map(outputOf);
  byId('outputs').append(...outputs.map((one) => one.element));
  let timer;

  function update() {
    const texts = fields.map((field) => field.read());
    const unread = texts.indexOf(null);
    const found = unread < 0
      ? predict(texts) : {field: unread, problem: 'is no number'};
    fields.forEach(({element}, i) => {
      const isWrong = i === found.field;
      const error = element.querySelector('.error');
      if (error) error.textContent = isWrong ? found.problem : '';
      element.querySelector('input, select')
        .setAttribute('aria-invalid', String(isWrong));
    });
    byId('results').classList.toggle('stale', !found.values);
    let said = `${data.fields[found.field]?.name}: ${found.problem}`;
    byId('problem').textContent = said;
    byId('problem').hidden = Boolean(found.values);
    if (found.values) {
      let start = 0;
      said = outputs.map(({show}, i) => {
        const end = start + data.outputs[i].labels.length;
        const values = found.values.subarray(start, end);
        start = end;
        return show(values);
      }).join('. ');
    }
    clearTimeout(timer);
    timer = setTimeout(() => { byId('spoken').textContent = said; }, PAUSE);
  }

  byId('row').addEventListener('input', update);
  byId('row').addEventListener('submit', (event) => event.preventDefault());
  byId('row').addEventListener('reset', () => setTimeout(update));
  update();
}

// ---- Predictions of a table

function startTable(predict) {
  const names = data.fields.map((field) => field.name);
  byId('count').textContent = `The ${names.length} columns that are read`;
  byId('columns').textContent = names.map(asField).join(',');
  let count = 0; // of tables: a new one ends the work on the one before

  async function run(text) {
    const mine = ++count;
    const say = (message, isError = false) => {
      byId('progress').textContent = message;
      byId('progress').classList.toggle('error', isError);
    };
    byId('download').hidden = byId('preview').hidden = true;
    try {
      const table = openTable(text, names);
      const rows = [];
      let pause = 0;
      for (const record of table.records) {
        rows.push(predictRecord(record, table, data, predict));
        if (performance.now() < pause) continue;
        say(`${plain.format(rows.length)} rows ...`);
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== count) return;
        pause = performance.now() + 50;
      }
      if (rows.length === 0) throw new Error('There is no row below the first.');
      finish(table, rows, say);
    } catch (error) {
      say(error.message, true);
    }
  }

  function finish(table, rows, say) {
    const wrong = rows.findIndex((row) => row.problem);
    const number = rows.filter((row) => row.problem).length;
    let message = rows.length === 1
      ? '1 row.' : `${rows.length.toLocaleString('en')} rows.`;
    if (number) {
      message += ` ${number.toLocaleString('en')} cannot be predicted: row ` +
        `${wrong + 1}, ${rows[wrong].problem}` + (number > 1 ? ', ...' : '.');
    }
    say(message, number > 0);
    const link = byId('download').querySelector('a');
    URL.revokeObjectURL(link.href);
    const lines = withPredictions(table, rows, data);
    link.href = URL.createObjectURL(new Blob(lines, {type: 'text/csv'}));
    link.download = 'predictions.csv';
    byId('download').hidden = byId('preview').hidden = false;
    byId('preview').replaceChildren(preview(table, rows.slice(0, MOST_SHOWN)));
  }

  byId('predict').addEventListener('click', () => run(byId('pasted').value));
  const take = async (file) => { if (file) run(await file.text()); };
  byId('file').addEventListener('change', ({target}) => take(target.files[0]));
  for (const type of ['dragover', 'drop', 'dragleave']) {
    // Anywhere else, a browser would open the file in place of the page.
    addEventListener(type, (event) => {
      event.preventDefault();
      byId('drop').classList.toggle('over', type === 'dragover');
      if (type === 'drop') take(event.dataTransfer.files[0]);
    });
  }
}

function preview(table, rows) {
  const shares = data.outputs.flatMap((output) => output.labels.map(() =>
    output.kind === 'number' || output.kind === 'count' ? plain : percent));
  const names = data.outputs.flatMap((output) => output.columns);
  const head = [...names, ...table.header].map((textContent) =>
    make('th', {textContent, scope: 'col'}));
  const body = rows.map(({record, values, problem}) => make('tr', {},
    ...(values
      ? Array.from(values, (value, i) => make('td',
        {textContent: shares[i].format(value), className: 'found'}))
      : [make('td', {textContent: problem, colSpan: names.length,
        className: 'error'})]),
    ...record.map((textContent) => make('td', {textContent}))));
  return make('table', {},
    make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...body));
}

loadModel(data).then((predict) => {
  startRow(predict);
  startTable(predict);
}).catch((error) => {
  byId('failure').textContent =
    `This browser cannot run the model (${error.message}).`;
  byId('failure').hidden = false;
});
