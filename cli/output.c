#include "cli/output.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "proto/pbjson.h"

enum output_format output_format_parse(const char *word)
{
    if (word && strcmp(word, "json") == 0)
        return OUTPUT_JSON;
    if (word && strcmp(word, "yaml") == 0)
        return OUTPUT_YAML;
    return OUTPUT_TABLE;
}

void output_document(enum output_format format, json_t *document)
{
    if (format == OUTPUT_YAML) {
        cleanup_buf struct buf text = {0};
        yaml_print(document, &text);
        fputs(buf_str(&text), stdout);
    } else {
        json_dumpf(document, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
        putchar('\n');
    }
    json_decref(document);
}

void output_message(enum output_format format, const ProtobufCMessage *message)
{
    output_document(format, pbjson(message));
}

void output_messages(enum output_format format, size_t count, const ProtobufCMessage *const *messages)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, pbjson(messages[i]));
    output_document(format, array);
}

void output_error(enum output_format format, const struct err *err)
{
    fflush(stdout);
    fprintf(stderr, "drover: %s\n", err->message);
    if (format != OUTPUT_JSON)
        return;
    json_t *error = json_pack("{s:{s:s, s:s+, s:i, s:b}}", "error", "code", err_name(err->code), "message",
        err->message, "", "exit_status", err_exit_status(err->code), "retry", err_retryable(err->code));
    if (!error) /* the message is not UTF-8 */
        error = json_pack(
            "{s:{s:s, s:i}}", "error", "code", err_name(err->code), "exit_status", err_exit_status(err->code));
    json_dumpf(error, stderr, JSON_COMPACT);
    fputc('\n', stderr);
    json_decref(error);
}

#define FIELD_WIDTH 14

void output_field(const char *name, const char *fmt, ...)
{
    va_list args;
    int pad = FIELD_WIDTH - (int)strlen(name) - 1;
    printf("%s:%*s ", name, pad > 0 ? pad : 0, "");
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}
