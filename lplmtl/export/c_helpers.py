"""Small C99 functions that read raw rows; a program gets those it calls."""

# Later ones call earlier ones. `c_encoder` replaces names in capitals.
ROWS = {
  'bytes_from': """
/* Compares a text of n bytes with one that ends in a zero byte. */
static int bytes_from(const char *text, int n, const char *known) {
  int i;
  for (i = 0; i < n; i++)
    if (text[i] != known[i] || known[i] == 0)
      return (unsigned char)text[i] < (unsigned char)known[i] ? -1 : 1;
  return known[n] ? -1 : 0;
}
""",
  'place_of': """
/* The place of a text among sorted ones; -1 if it is not there. */
static int place_of(const char *text, int n, const char *const *known,
                    int count) {
  int low = 0;
  while (count > 0) {
    const int middle = low + count / 2;
    const int order = bytes_from(text, n, known[middle]);
    if (order == 0) return middle;
    if (order > 0) {
      count -= middle + 1 - low;
      low = middle + 1;
    } else {
      count = middle - low;
    }
  }
  return -1;
}
""",
  'canonical': """
static int is_blank(char c) {
  return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
}

/* The text by which equal values are known: without blanks around it, and
   without the .0 of a whole number; nan if it is missing. */
static const char *canonical(const char *text, int *n) {
  static const char *const missing[6] = {"", "<NA>", "NaN",
                                         "NaT", "None", "nan"};
  int end, i;
  while (is_blank(*text)) text++;
  for (end = 0; text[end]; end++) {
  }
  while (end > 0 && is_blank(text[end - 1])) end--;
  *n = 3;
  for (i = 0; i < 6; i++)
    if (bytes_from(text, end, missing[i]) == 0) return "nan";
  *n = end;
  if (end > 2 && text[end - 2] == '.' && text[end - 1] == '0') {
    const int first = text[0] == '-';
    for (i = first; i < end - 2; i++)
      if (text[i] < '0' || text[i] > '9') return text;
    if (first == end - 2) return text;
    if (text[first] == '0') {
      if (end - 2 > first + 1) return text;
      *n = 1;
      return "0";
    }
    *n = end - 2;
  }
  return text;
}
""",
  'id_of_text': """
static int32_t id_of_text(const char *text, const char *const *known,
                          const ID_TYPE *ids, int count, int32_t unseen) {
  int n, place;
  if (text == 0) text = "nan";
  for (n = 0; text[n]; n++) {
  }
  place = place_of(text, n, known, count);
  if (place < 0) {
    text = canonical(text, &n);
    place = place_of(text, n, known, count);
  }
  if (place < 0) return unseen;
  return ids ? ids[place] : place + 1;
}
""",
  'id_of_integer': """
static int32_t id_of_integer(int32_t value, const int32_t *known,
                             const ID_TYPE *ids, int count, int32_t unseen) {
  int low = 0;
  while (count > 0) {
    const int middle = low + count / 2;
    if (known[middle] == value) return ids ? ids[middle] : middle + 1;
    if (known[middle] < value) {
      count -= middle + 1 - low;
      low = middle + 1;
    } else {
      count = middle - low;
    }
  }
  return unseen;
}
""",
  'count_below': """
/* The number of edges at or below a number. */
static int32_t count_below(double x, const EDGE_TYPE *edges, int count) {
  int low = 0;
  while (low < count) {
    const int middle = low + (count - low) / 2;
    if (edges[middle] <= x)
      low = middle + 1;
    else
      count = middle;
  }
  return low;
}
""",
  'next_step': """
/* Reads the difference of two numbers from a list of such. */
static int32_t next_step(const uint8_t **at) {
  uint32_t step = 0;
  int shift = 0;
  do {
    step |= (uint32_t)(**at & 127) << shift;
    shift += 7;
  } while (*(*at)++ > 127);
  return (int32_t)(step >> 1 ^ (0u - (step & 1)));
}
""",
  'count_steps': """
/* The number of edges at or below a number, whole ones as differences. */
static int32_t count_steps(double x, const uint8_t *at) {
  const int count = *at++;
  const int32_t most = 2147483647;
  int32_t whole = x >= most ? most : x <= -most ? -most : (int32_t)x;
  uint32_t edge = 0;
  int i;
  if (whole > x) whole--; /* rounded down, as edges are whole */
  for (i = 0; i < count; i++) {
    edge += (uint32_t)next_step(&at);
    if ((int32_t)edge > whole) break;
  }
  return i;
}
""",
  'place_among': """
/* Where a number lies among knots: 2.5 is midway between knots 2 and 3. */
static double place_among(double x, const double *knots, int count) {
  const int above = count_below(x, knots, count);
  if (above == 0) return 0;
  if (above == count) return count - 1;
  /* In the order of numpy.interp. */
  return 1 / (knots[above] - knots[above - 1]) * (x - knots[above - 1]) +
         (above - 1);
}
""",
  'buckets': """
/* Two hashes of a text: see lplmtl.hashing. */
static void buckets(const char *text, uint32_t size, int32_t *found) {
  uint64_t h = 0xcbf29ce484222325u;
  int i, n;
  text = canonical(text ? text : "nan", &n);
  IS_MISSING
  for (i = 0; i < n && i < 256; i++)
    h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
  h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
  h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
  h ^= h >> 33;
  found[0] = (int32_t)((h >> 32) % size);
  found[1] = (int32_t)((h & 0xffffffffu) % size);
}
""",
}

# Reads a float32, whatever the order of bytes of the machine.
FLOAT32 = """
static float {head} {{
  union {{
    uint32_t bits;
    float number;
  }} found;
{step}  found.bits = data[0] | (uint32_t)data[1] << 8 |
               (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
  return found.number;
}}
"""
