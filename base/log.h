/* Logging: one event a line, in logfmt on stderr, where a supervisor or the journal takes it.
 *
 *   log_event(LOG_INFO, "partition.started", "vm=%s generation=%" PRIu64, name, generation);
 *
 * The event's name is `noun.verb-in-the-past`. Values that may hold blanks or quotes go through log_quote(). Secrets
 * and guest data are never logged. Thread safe: a line is one write(2). */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Sets the program's name, which every line carries, and the least important level that is still written.
 * `program` is lent for ever (a literal). Before this call the level is LOG_INFO. */
void log_setup(const char *program, enum log_level level);
/* Level of a name (error, warn, info, debug); -1 when unknown. */
int log_level_parse(const char *name);

void log_event(enum log_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Quotes `text` as a logfmt value into `out` (NUL-terminated, cut to fit) and returns `out`. */
const char *log_quote(const char *text, char *out, size_t size);
#define LOG_QUOTE(text) log_quote((text), (char[600]){0}, 600)

#endif
