'use strict';

// From texts to predictions. This part needs no document: tests run it as well.

// Returns a function of the texts of a row, in the order of data.fields. It
// returns {values}, the predictions of all tasks one after the other; or
// {field, problem}: the index of the field that cannot be read, and why.
async function loadModel(data) {
  const bytes = Uint8Array.from(atob(data.module), (c) => c.charCodeAt(0));
  const {instance} = await WebAssembly.instantiate(bytes, {Math});
  const {memory, line, score, found} = instance.exports;
  const room = new Uint8Array(memory.buffer, line(), data.longest);
  const count = data.outputs.reduce((sum, one) => sum + one.labels.length, 0);
  const values = new Float32Array(memory.buffer, found(), count);
  const encoder = new TextEncoder();
  const end = room.length - 1;

  return (texts) => {
    const text = texts.map(quoted).join(',');
    const {read, written} = encoder.encodeInto(text, room.subarray(0, end));
    if (read < text.length) {
      const lengths = texts.map((one) => one.length);
      const field = lengths.indexOf(Math.max(...lengths));
      return {field, problem: 'is too long'};
    }
    room[written] = 0;
    const code = score();
    if (code === 0) return {values: values.slice()};
    const field = code > 0 ? code - 1 : data.members[-code - 1];
    const given = texts[field].trim();
    if (given === '') return {field, problem: 'needs a value'};
    const is = code > 0 ? 'is no number' : 'cannot be used';
    return {field, problem: `${JSON.stringify(given)} ${is}`};
  };
}

// As in a line without quotes, blanks before a value do not count. A zero byte
// would end the line.
function quoted(text) {
  const bare = text.replace(/^ +/, '').replaceAll('\0', '\uFFFD');
  return `"${bare.replaceAll('"', '""')}"`;
}

// Returns the records of a table, arrays of texts. Quotes count as in
// model_csv.c, but may hold line breaks; empty lines are left out.
function* recordsOf(text, delimiter) {
  let record = [];
  let parts = '';
  let start = 0; // of what is not in parts yet
  let isQuoted = false;
  for (let i = 0; i <= text.length; i++) {
    const c = i < text.length ? text[i] : '\n';
    if (c === '"') {
      isQuoted = !isQuoted;
      const isDoubled = !isQuoted && text[i + 1] === '"'; // two of them are one
      parts += text.slice(start, isDoubled ? i + 1 : i);
      start = i + 1;
      continue;
    }
    if (isQuoted && i < text.length) continue;
    if (c !== delimiter && c !== '\n' && c !== '\r') continue;
    record.push(parts + text.slice(start, i));
    parts = '';
    start = i + 1;
    if (c === delimiter) continue;
    if (record.length > 1 || record[0] !== '') yield record;
    record = [];
  }
}

// Returns {header, places, records}: the names of all columns, where those of
// the model are, and the records below. Throws an Error if one is absent.
function openTable(text, names) {
  const body = text.replace(/^\uFEFF/, '');
  let absent = names;
  for (const delimiter of [',', '\t', ';']) {
    const records = recordsOf(body, delimiter);
    const {value: header} = records.next();
    if (!header) throw new Error('The table is empty.');
    const found = header.map((name) => name.trim());
    const places = names.map((name) => found.indexOf(name.trim()));
    const missing = names.filter((_, i) => places[i] < 0);
    if (missing.length === 0) {
      const twice = names.filter(
        (name, i) => found.lastIndexOf(name.trim()) !== places[i]);
      if (twice.length === 0) return {header, places, records};
      throw new Error(`The first line has ${some(twice)} more than once.`);
    }
    if (missing.length < absent.length) absent = missing;
  }
  throw new Error(
    `The first line must name the columns of the model; it lacks ` +
    `${some(absent)}.`);
}

function some(names) {
  const listed = names.slice(0, 5).map((name) => JSON.stringify(name));
  const rest = names.length - listed.length;
  return listed.join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}

// Returns {record, values} or {record, problem}.
function predictRecord(record, table, data, predict) {
  const [found, expected] = [record.length, table.header.length];
  if (found !== expected) {
    return {record, problem: `has ${found} values, not ${expected}`};
  }
  const {values, field, problem} = predict(table.places.map((i) => record[i]));
  if (values) return {record, values};
  return {record, problem: `${data.fields[field].name}: ${problem}`};
}

// Returns the lines of a table with predictions behind its own columns, and a
// column of problems if there are any.
function withPredictions(table, rows, data) {
  const columns = data.outputs.flatMap((output) => output.columns);
  const names = columns.map((name) =>
    table.header.includes(name) ? `${name}_predicted` : name);
  const end = rows.some((row) => row.problem) ? ['problem'] : [];
  const lines = [[...table.header, ...names, ...end]];
  for (const {record, values, problem = ''} of rows) {
    const given = table.header.map((_, i) => record[i] ?? '');
    const found = values ? Array.from(values, digits) : names.map(() => '');
    lines.push([...given, ...found, ...end.map(() => problem)]);
  }
  return lines.map((line) => line.map(asField).join(',') + '\r\n');
}

// The shortest text of a float32: .1, and not .10000000149.
function digits(value) {
  let count = 6;
  while (count < 9 && Math.fround(value.toPrecision(count)) !== value) count++;
  return String(Number(value.toPrecision(count)));
}

function asField(text) {
  const isPlain = !/^\s|[",\r\n]|\s$/.test(text);
  return isPlain ? text : `"${text.replaceAll('"', '""')}"`;
}
