/* Printing: tables for people, JSON and YAML for scripts, errors for both. Standard output carries the result and
 * nothing else; with json or yaml it is exactly one document. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "base/buf.h"
#include "base/err.h"

enum output_format { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_YAML };

/* Format of a word; OUTPUT_TABLE for NULL. */
enum output_format output_format_parse(const char *word);
/* Prints a document as JSON or YAML; takes the reference. */
void output_document(enum output_format format, json_t *document);
void output_message(enum output_format format, const ProtobufCMessage *message);
/* Prints the messages as one array. */
void output_messages(enum output_format format, size_t count, const ProtobufCMessage *const *messages);
/* "drover: THING: cause; next step" on standard error, and with json the same as an object on the next line. */
void output_error(enum output_format format, const struct err *err);

/* A JSON value as a YAML document (1.2, block style; strings are quoted where they could be read as something else). */
void yaml_print(const json_t *value, struct buf *out);

/* A table of text. Columns are given as names with NULL at the end; a name that begins with '>' is set to the right. */
struct table;
struct table *table_new(const char *const *columns);
/* One cell after the other; a new row begins by itself. The text is copied. */
void table_add(struct table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints it (nothing but `empty` on a line when it has no rows) and frees it. */
void table_print(struct table *table, const char *empty);
void table_free(struct table *table);

/* "Name:   value" lines, aligned. */
void output_field(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
