"""Small C99 functions that read the dates of a raw row."""

from collections.abc import Sequence

from lplmtl.export import c_text


def of(missing: Sequence[str]) -> dict[str, str]:
  """Returns the C functions; later ones call earlier ones.

  Args:
    missing: texts that stand for a missing value, beside the usual ones.
  """
  tests = ''.join(
    f' ||\n      bytes_from(text, n, {c_text.string(text)}) == 0'
    for text in sorted(missing)
  )
  heads = {
    'read_iso_date': ('', 'is_iso_date(text, text + n, &found)'),
    'read_date': (
      ' const char *format,',
      'is_date(text, text + n, format, &found)',
    ),
  }
  return _HELPERS | {
    name: _READ.format(name=name, format=form, call=call, tests=tests)
    for name, (form, call) in heads.items()
  }


_HELPERS = {
  'digits': """
/* What a text says of a time in UTC. */
typedef struct {
  int year, month, day, hour, minute, second, micros, offset;
} moment;

/* Reads a whole number of some digits; returns -1 if there are too few. */
static int digits(const char **text, const char *end, int least, int most) {
  int value = 0, count = 0;
  for (; count < most && *text < end; count++, (*text)++) {
    if (**text < '0' || **text > '9') break;
    value = 10 * value + **text - '0';
  }
  return count < least ? -1 : value;
}
""",
  'is_char': """
static int is_char(const char **text, const char *end, char c) {
  if (*text == end || **text != c) return 0;
  ++*text;
  return 1;
}
""",
  'fraction': """
/* Reads a fraction of a second, in millionths. */
static int fraction(const char **text, const char *end) {
  const char *start = *text;
  int value = digits(text, end, 1, 6), count = (int)(*text - start);
  for (; count < 6; count++) value *= 10;
  return value;
}
""",
  'is_iso_date': """
/* 2024-05-01, perhaps with T12:30, :59, .5, and Z or +02:00. */
static int is_iso_date(const char *text, const char *end, moment *found) {
  int sign;
  found->year = digits(&text, end, 4, 4);
  if (!is_char(&text, end, '-')) return 0;
  found->month = digits(&text, end, 2, 2);
  if (!is_char(&text, end, '-')) return 0;
  found->day = digits(&text, end, 2, 2);
  if (text == end) return 1;
  if (!is_char(&text, end, 'T') && !is_char(&text, end, ' ')) return 0;
  found->hour = digits(&text, end, 2, 2);
  if (is_char(&text, end, ':')) {
    found->minute = digits(&text, end, 2, 2);
    if (is_char(&text, end, ':')) {
      found->second = digits(&text, end, 2, 2);
      if (is_char(&text, end, '.')) {
        found->micros = fraction(&text, end);
        while (digits(&text, end, 1, 1) >= 0) { /* further ones are cut off */
        }
      }
    }
  }
  if (is_char(&text, end, 'Z') || text == end) return text == end;
  sign = is_char(&text, end, '-') ? -1 : is_char(&text, end, '+');
  if (sign) {
    const int hours = digits(&text, end, 2, 2);
    int minutes = 0;
    if (is_char(&text, end, ':') || text < end)
      minutes = digits(&text, end, 2, 2);
    if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return 0;
    found->offset = sign * 60 * (60 * hours + minutes);
  }
  return sign && text == end;
}
""",
  'is_word': """
/* Whether a text begins with a word, whose letters may be of either case. */
static int is_word(const char **text, const char *end, const char *word,
                   int size) {
  int i;
  for (i = 0; i < size; i++) {
    char a = word[i], b = end - *text > i ? (*text)[i] : 0;
    if (a >= 'A' && a <= 'Z') a += 'a' - 'A';
    if (b >= 'A' && b <= 'Z') b += 'a' - 'A';
    if (a != b) return 0;
  }
  *text += size;
  return 1;
}
""",
  'month_of': """
/* The month that a text begins with, in short or in full; -1 for none. */
static int month_of(const char **text, const char *end, int is_short) {
  static const char *const months[12] = {
      "January", "February", "March",     "April",   "May",      "June",
      "July",    "August",   "September", "October", "November", "December"};
  int i, size;
  for (i = 0; i < 12; i++) {
    for (size = 0; months[i][size]; size++) {
    }
    if (is_word(text, end, months[i], is_short ? 3 : size)) return i + 1;
  }
  return -1;
}
""",
  'is_date': """
/* Reads a date in a format of strptime, or what is known of it. */
static int is_date(const char *text, const char *end, const char *format,
                   moment *found) {
  int hour_of_half = 0, half = 0;
  for (; *format; format++) {
    int *to = 0, least = 1, most = 2, value = 0;
    if (is_blank(*format)) {
      if (text == end || !is_blank(*text)) return 0;
      while (text < end && is_blank(*text)) text++;
      while (is_blank(format[1])) format++;
      continue;
    }
    if (*format != '%' || *++format == '%') {
      if (!is_word(&text, end, format, 1)) return 0;
      continue;
    }
    switch (*format) {
      case 'Y':
      case 'y':
        least = most = *format == 'Y' ? 4 : 2;
        to = &found->year;
        break;
      case 'm':
        to = &found->month;
        break;
      case 'd':
        to = &found->day;
        break;
      case 'H':
        to = &found->hour;
        break;
      case 'I':
        to = &hour_of_half;
        break;
      case 'M':
        to = &found->minute;
        break;
      case 'S':
        to = &found->second;
        break;
      case 'f':
        value = found->micros = fraction(&text, end);
        break;
      case 'p':
        half = is_word(&text, end, "AM", 2)   ? 1
               : is_word(&text, end, "PM", 2) ? 2
                                              : -1;
        value = half;
        break;
      default:
        value = found->month = month_of(&text, end, *format == 'b');
    }
    if (to) value = *to = digits(&text, end, least, most);
    if (value < 0) return 0;
    if (to == &hour_of_half && (value < 1 || value > 12)) return 0;
    if (*format == 'y') found->year += value < 69 ? 2000 : 1900;
  }
  if (hour_of_half)
    found->hour = hour_of_half % 12 + (half == 2 ? 12 : 0);
  return text == end;
}
""",
  'day_of': """
/* The days from 1970-01-01 to a date. */
static int32_t day_of(int year, int month, int day) {
  const int y = month > 2 ? year : year - 1; /* which begins in March */
  const int m = month > 2 ? month - 3 : month + 9;
  return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 719469;
}
""",
  'micros_of': """
/* Millionths of a second from 1970 on; returns 0 unless there is such a time,
   from the year 1 to 9999. */
static int micros_of(const moment *x, int64_t *time) {
  const int64_t last = INT64_C(253402300800); /* seconds: the year 10000 */
  int64_t seconds;
  if (x->year < 1 || x->month < 1 || x->month > 12 || x->day < 1 ||
      x->hour < 0 || x->hour > 23 || x->minute < 0 || x->minute > 59 ||
      x->second < 0 || x->second > 59 || x->micros < 0)
    return 0;
  seconds = day_of(x->year, x->month, x->day);
  if (seconds >= day_of(x->year + x->month / 12, x->month % 12 + 1, 1))
    return 0;
  seconds = 86400 * seconds + 3600 * x->hour + 60 * x->minute + x->second -
            x->offset;
  *time = 1000000 * seconds + x->micros;
  return seconds >= INT64_C(-62135596800) && seconds < last;
}
""",
  'find_parts': """
/* The days since a date, the year, month, weekday (Monday is 0) and hour. */
static void find_parts(int64_t time, int64_t origin, int is_missing,
                       double *parts) {
  const int64_t length = INT64_C(86400000000);
  const int32_t day = (int32_t)(time / length - (time % length < 0));
  const int64_t start = day * length;
  int year = 1970 + day / 366 - (day < 0), month = 1, i;
  while (day >= day_of(year + 1, 1, 1)) year++;
  while (day < day_of(year, 1, 1)) year--;
  while (month < 12 && day >= day_of(year, month + 1, 1)) month++;
  parts[0] = (double)(time - origin) / 86400e6;
  parts[1] = year;
  parts[2] = month;
  parts[3] = (day + 719169) % 7; /* 1970-01-01, day 0, was a Thursday */
  parts[4] = (double)((time - start) / INT64_C(3600000000));
  for (i = 0; is_missing && i < 5; i++) parts[i] = NAN;
}
""",
}
_READ = """
/* Returns 1 if a date is missing, -1 if a text is none. */
static int {name}(const char *text,{format} int64_t *time) {{
  moment found = {{1900, 1, 1, 0, 0, 0, 0, 0}};
  int n;
  *time = 0;
  text = canonical(text ? text : "nan", &n);
  if ({call} && micros_of(&found, time)) return 0;
  if (bytes_from(text, n, "nan") == 0{tests}) return 1;
  return -1;
}}
"""
