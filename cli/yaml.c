/* JSON as YAML. Everything that JSON can say has an obvious block form; the only care needed is for strings that a YAML
 * reader would take for something else. */
#include <ctype.h>
#include <string.h>

#include "cli/output.h"

/* Whether a plain (unquoted) string stays that string. Strict: when in doubt it is quoted. */
static bool plain_safe(const char *s)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", NULL};
    if (!isalpha((unsigned char)s[0]) && s[0] != '/' && s[0] != '_')
        return false; /* also what looks like a number, and the empty string */
    for (const char *const *w = words; *w; w++)
        if (strcasecmp(*w, s) == 0)
            return false;
    for (const char *c = s; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-_./ ", *c))
            return false;
    return s[strlen(s) - 1] != ' ';
}

static void print_string(const char *s, struct buf *out)
{
    if (plain_safe(s)) {
        buf_printf(out, "%s", s);
        return;
    }
    buf_printf(out, "\"");
    for (const char *c = s; *c; c++) {
        if (*c == '"' || *c == '\\')
            buf_printf(out, "\\%c", *c);
        else if (*c == '\n')
            buf_printf(out, "\\n");
        else if (*c == '\t')
            buf_printf(out, "\\t");
        else if ((unsigned char)*c < 0x20 || *c == 0x7f)
            buf_printf(out, "\\x%02x", (unsigned)(unsigned char)*c);
        else
            buf_append(out, c, 1);
    }
    buf_printf(out, "\"");
}

static void print_scalar(const json_t *value, struct buf *out)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        print_string(json_string_value(value), out);
        break;
    case JSON_INTEGER:
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        buf_printf(out, "%.17g", json_real_value(value));
        break;
    case JSON_TRUE:
        buf_printf(out, "true");
        break;
    case JSON_FALSE:
        buf_printf(out, "false");
        break;
    case JSON_NULL:
        buf_printf(out, "null");
        break;
    case JSON_OBJECT:
        buf_printf(out, "{}");
        break;
    case JSON_ARRAY:
        buf_printf(out, "[]");
        break;
    }
}

static bool is_block(const json_t *value)
{
    return json_object_size(value) > 0 || json_array_size(value) > 0;
}

static void print_block(const json_t *value, unsigned indent, bool inline_first, struct buf *out);

/* What stands after "key:" or "-". */
static void print_child(const json_t *child, unsigned indent, bool in_list, struct buf *out)
{
    if (!is_block(child)) {
        buf_printf(out, " ");
        print_scalar(child, out);
        buf_printf(out, "\n");
    } else if (in_list) {
        buf_printf(out, " "); /* the first line of the block stands behind the dash */
        print_block(child, indent + 2, true, out);
    } else {
        buf_printf(out, "\n");
        print_block(child, indent + 2, false, out);
    }
}

static void print_block(const json_t *value, unsigned indent, bool inline_first, struct buf *out)
{
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            buf_printf(out, "%*s-", inline_first && i == 0 ? 0 : (int)indent, "");
            print_child(json_array_get(value, i), indent, true, out);
        }
        return;
    }
    bool first = true;
    for (void *i = json_object_iter((json_t *)value); i; i = json_object_iter_next((json_t *)value, i)) {
        buf_printf(out, "%*s", inline_first && first ? 0 : (int)indent, "");
        print_string(json_object_iter_key(i), out);
        buf_printf(out, ":");
        print_child(json_object_iter_value(i), indent, false, out);
        first = false;
    }
}

void yaml_print(const json_t *value, struct buf *out)
{
    if (is_block(value)) {
        print_block(value, 0, false, out);
        return;
    }
    print_scalar(value, out);
    buf_printf(out, "\n");
}
