#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

#define CONFIG_FILE_MAX (1u << 20)
#define CONFIG_LINE_MAX 198u /* inih's buffer: it would take the rest of a longer line for a line of its own */

struct config_reader {
    const struct config_key *keys;
    void *options;
    bool *seen;
    struct err *err;
    bool failed;
};

int config_parse_size(const char *text, struct err *err, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    static const char units[] = "kmgt";
    const char *unit = *end ? strchr(units, tolower((unsigned char)*end)) : NULL;
    if (unit) {
        shift = 10u * (unsigned)(unit - units + 1);
        end += strcmp(end + 1, "iB") == 0 ? 3 : 1;
    }
    if (text[0] < '0' || text[0] > '9' || *end || errno || value > (UINT64_MAX >> shift))
        return err_set(err, ERR_INVALID, "'%.64s' is not a whole number (K, M, G and T may follow)", text);
    *out = (uint64_t)value << shift;
    return 0;
}

static int config_set(const struct config_key *key, const char *value, struct err *err, void *options)
{
    void *field = (char *)options + key->offset;
    switch (key->type) {
    case CONFIG_STRING:
        free(*(char **)field);
        *(char **)field = mem_strdup(value);
        return 0;
    case CONFIG_LIST: {
        char *old = *(char **)field;
        *(char **)field = old && *old ? mem_printf("%s\n%s", old, value) : mem_strdup(value);
        free(old);
        return 0;
    }
    case CONFIG_UINT: {
        uint64_t number;
        if (config_parse_size(value, err, &number) < 0)
            return -1;
        if ((key->min || key->max) && (number < key->min || number > key->max))
            return err_set(
                err, ERR_INVALID, "%" PRIu64 " is not between %" PRIu64 " and %" PRIu64, number, key->min, key->max);
        *(uint64_t *)field = number;
        return 0;
    }
    case CONFIG_BOOL:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return err_set(err, ERR_INVALID, "'%.64s' is neither true nor false", value);
        *(bool *)field = value[0] == 't';
        return 0;
    case CONFIG_DOUBLE: {
        char *end;
        double number = strtod(value, &end);
        if (end == value || *end || !isfinite(number))
            return err_set(err, ERR_INVALID, "'%.64s' is not a number", value);
        *(double *)field = number;
        return 0;
    }
    }
    return err_set(err, ERR_INTERNAL, "unknown type of key");
}

static int config_handle(void *user, const char *section, const char *name, const char *value)
{
    struct config_reader *r = user;
    if (r->failed) /* inih goes on behind an error; the first one is what counts */
        return 0;
    char full[128];
    snprintf(full, sizeof full, "%s.%s", section, name);
    for (size_t i = 0; r->keys[i].name; i++) {
        if (strcmp(r->keys[i].name, full) != 0)
            continue;
        bool again = r->seen[i] && r->keys[i].type != CONFIG_LIST;
        if (again ? err_set(r->err, ERR_INVALID, "given a second time")
                  : config_set(&r->keys[i], value, r->err, r->options)) {
            err_wrap(r->err, "key %s", full);
            r->failed = true;
            return 0;
        }
        r->seen[i] = true;
        return 1;
    }
    err_set(r->err, ERR_INVALID, "unknown key %s; --help lists the keys", full);
    r->failed = true;
    return 0;
}

/* What inih would read as something else than was meant. It takes an indented line for another value of the key before
 * it: that key would get this value, and the one that the line names keep its default, without a word. */
static int config_check_lines(const char *name, const char *text, struct err *err)
{
    for (unsigned line = 1; *text; line++) {
        size_t len = strcspn(text, "\n"), blanks = strspn(text, " \t\v\f\r");
        if (len > CONFIG_LINE_MAX)
            return err_set(err, ERR_INVALID, "%s: line %u is longer than %u bytes", name, line, CONFIG_LINE_MAX);
        if (blanks > 0 && !strchr("\n#;", text[blanks])) /* the end of the text is found, too */
            return err_set(err, ERR_INVALID, "%s: line %u begins with a blank; sections and keys do not", name, line);
        text += len + (text[len] == '\n');
    }
    return 0;
}

int config_parse(const char *name, const char *text, const struct config_key *keys, struct err *err, void *options)
{
    if (config_check_lines(name, text, err) < 0)
        return -1;
    size_t count = 0;
    while (keys[count].name)
        count++;
    cleanup_free bool *seen = mem_zalloc(count * sizeof *seen);
    struct config_reader r = {keys, options, seen, err, false};
    for (size_t i = 0; i < count; i++)
        if (keys[i].fallback && config_set(&keys[i], keys[i].fallback, err, options) < 0) {
            err_wrap(err, "default of key %s", keys[i].name);
            goto fail;
        }
    int line = ini_parse_string(text, config_handle, &r);
    if (r.failed) {
        err_wrap(err, "%s: line %d", name, line);
        goto fail;
    }
    if (line != 0) {
        err_set(err, ERR_INVALID, "%s: line %d is neither [section] nor key = value", name, line);
        goto fail;
    }
    for (size_t i = 0; i < count; i++)
        if (!keys[i].fallback && !seen[i]) {
            err_set(err, ERR_INVALID, "%s: key %s is missing (%s)", name, keys[i].name, keys[i].help);
            goto fail;
        }
    return 0;
fail:
    config_free(keys, options);
    return -1;
}

int config_load(const char *path, const struct config_key *keys, struct err *err, void *options)
{
    cleanup_buf struct buf text = {0};
    if (file_read(path, CONFIG_FILE_MAX, err, &text) < 0)
        return err_wrap(err, "configuration");
    const char *string = buf_str(&text);
    if (strlen(string) != text.len)
        return err_set(err, ERR_INVALID, "%s: holds a zero byte, which no text does", path);
    return config_parse(path, string, keys, err, options);
}

void config_free(const struct config_key *keys, void *options)
{
    for (; keys->name; keys++)
        if (keys->type == CONFIG_STRING || keys->type == CONFIG_LIST) {
            char **field = (char **)((char *)options + keys->offset);
            free(*field);
            *field = NULL;
        }
}

void config_print_manual(const struct config_key *keys, FILE *out)
{
    char section[64] = "";
    for (; keys->name; keys++) {
        const char *dot = strchr(keys->name, '.');
        size_t len = (size_t)(dot - keys->name);
        if (strlen(section) != len || strncmp(section, keys->name, len) != 0) {
            fprintf(out, "%s[%.*s]\n", section[0] ? "\n" : "", (int)len, keys->name);
            snprintf(section, sizeof section, "%.*s", (int)len, keys->name);
        }
        fprintf(out, "# %s%s\n", keys->help, keys->fallback ? "" : " (required)");
        fprintf(out, "%s%s = %s\n", keys->fallback ? "#" : "", dot + 1, keys->fallback ? keys->fallback : "");
    }
}
