#include "controller/state/ends.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "controller/pb.h"
#include "controller/state/effect.h"
#include "controller/state/sql.h"

#define VALUE_MAX 512

Drover__Effect *ends_effect(const struct end *end)
{
    char name[32], value[VALUE_MAX];
    snprintf(name, sizeof name, "vm.end.%" PRIu64, end->number % ENDS_MAX);
    snprintf(value, sizeof value, "%" PRIu64 " %" PRId64 " %s %s %s", end->number, end->at_ms, end->vm_id, end->host,
        end->why);
    return effect_setting_put(name, value);
}

/* Takes the word that `*text` begins with, and the blank behind it. */
static void word_take(const char **text, char *out, size_t size)
{
    size_t len = strcspn(*text, " ");
    snprintf(out, size, "%.*s", (int)len, *text);
    *text += len + ((*text)[len] == ' ');
}

static struct end end_parse(const char *value)
{
    struct end end = {0};
    char word[32];
    word_take(&value, word, sizeof word);
    end.number = strtoull(word, NULL, 10);
    word_take(&value, word, sizeof word);
    end.at_ms = strtoll(word, NULL, 10);
    word_take(&value, end.vm_id, sizeof end.vm_id);
    word_take(&value, end.host, sizeof end.host);
    snprintf(end.why, sizeof end.why, "%s", value);
    return end;
}

static int by_number(const void *a, const void *b)
{
    const struct end *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

size_t ends_all(struct state *state, struct end **out)
{
    struct end *list = mem_zalloc(ENDS_MAX * sizeof *list);
    size_t count = 0;
    sqlite3_stmt *row =
        sql_query(state, "SELECT value FROM settings WHERE name GLOB 'vm.end.*' LIMIT ?", "i", (int64_t)ENDS_MAX);
    while (sql_row(row)) {
        char value[VALUE_MAX];
        sql_text(row, 0, value, sizeof value);
        list[count++] = end_parse(value);
    }
    qsort(list, count, sizeof *list, by_number);
    *out = list;
    return count;
}

const struct end *ends_find(const struct end *list, size_t count, const char *vm_id)
{
    while (count-- > 0)
        if (strcmp(list[count].vm_id, vm_id) == 0)
            return &list[count];
    return NULL;
}
