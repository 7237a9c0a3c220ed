#include "hostd/ledger.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"
#include "hostd/partition/paths.h"
#include "hostd/text.h"

#define LEDGER_BYTES_MAX (1u << 20)

struct ledger_action {
    struct ledger_key key;
    struct ledger_result result;
};

struct ledger_generation {
    char vm_id[PATHS_ID_MAX];
    uint64_t generation;
};

/* Both arrays are in the order of their last change, newest last. */
struct ledger {
    char path[PATH_MAX]; /* empty: kept in memory only */
    struct ledger_action *actions;
    struct ledger_generation *generations;
    size_t action_count, generation_count;
};

static struct ledger *ledger_make(void)
{
    struct ledger *ledger = mem_zalloc(sizeof *ledger);
    ledger->actions = mem_zalloc(LEDGER_ACTIONS_MAX * sizeof *ledger->actions);
    ledger->generations = mem_zalloc(LEDGER_GENERATIONS_MAX * sizeof *ledger->generations);
    return ledger;
}

void ledger_close(struct ledger *ledger)
{
    if (!ledger)
        return;
    free(ledger->actions);
    free(ledger->generations);
    free(ledger);
}

static void put_action(struct ledger *l, struct ledger_key key, enum err_code code, const char *text)
{
    if (l->action_count == LEDGER_ACTIONS_MAX)
        memmove(l->actions, l->actions + 1, --l->action_count * sizeof *l->actions);
    struct ledger_action *a = &l->actions[l->action_count++];
    *a = (struct ledger_action){.key = key, .result.code = code};
    text_print(a->result.text, sizeof a->result.text, text);
}

static void put_generation(struct ledger *l, const char *vm_id, uint64_t generation)
{
    size_t i = 0;
    while (i < l->generation_count && strcmp(l->generations[i].vm_id, vm_id) != 0)
        i++;
    if (i < l->generation_count && l->generations[i].generation > generation)
        generation = l->generations[i].generation;
    if (i == l->generation_count && l->generation_count == LEDGER_GENERATIONS_MAX)
        i = 0; /* the oldest gives way */
    if (i < l->generation_count) {
        l->generation_count--;
        memmove(l->generations + i, l->generations + i + 1, (l->generation_count - i) * sizeof *l->generations);
    }
    struct ledger_generation *g = &l->generations[l->generation_count++];
    *g = (struct ledger_generation){.generation = generation};
    ENSURE(strlen(vm_id) < sizeof g->vm_id);
    strcpy(g->vm_id, vm_id);
}

static int parse_action(json_t *item, struct ledger *l, struct err *err)
{
    json_int_t job_id, step, method, created_ms = 0;
    const char *code, *text;
    if (json_unpack(item, "{s:I, s:I, s:I, s?I, s:s, s:s}", "job", &job_id, "step", &step, "method", &method,
            "created_ms", &created_ms, "code", &code, "text", &text) < 0 ||
        job_id < 0 || step < 0 || step > UINT32_MAX || method < 0 || method > UINT32_MAX || created_ms < 0)
        return err_set(err, ERR_INVALID, "an action is not {job, step, method, created_ms, code, text}");
    struct ledger_key key = {(uint64_t)job_id, (uint32_t)step, (uint32_t)method, created_ms};
    put_action(l, key, err_from_name(code), text);
    return 0;
}

static int parse_generation(json_t *item, struct ledger *l, struct err *err)
{
    json_int_t generation;
    const char *vm_id;
    if (json_unpack(item, "{s:s, s:I}", "vm_id", &vm_id, "generation", &generation) < 0 || !paths_vm_id_ok(vm_id) ||
        generation < 1)
        return err_set(err, ERR_INVALID, "an ended generation is not {vm_id, generation}");
    put_generation(l, vm_id, (uint64_t)generation);
    return 0;
}

int ledger_parse(const char *text, size_t len, struct err *err, struct ledger **out)
{
    json_error_t why;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why), *actions, *ended, *item;
    if (!json)
        return err_set(err, ERR_INVALID, "line %d: %s", why.line, why.text);
    struct ledger *ledger = ledger_make();
    size_t i;
    int rc = 0;
    if (json_unpack_ex(json, &why, 0, "{s:o, s:o}", "actions", &actions, "ended", &ended) < 0)
        rc = err_set(err, ERR_INVALID, "%s", why.text);
    for (i = 0; rc == 0 && i < json_array_size(actions) && (item = json_array_get(actions, i)); i++)
        rc = parse_action(item, ledger, err);
    for (i = 0; rc == 0 && i < json_array_size(ended) && (item = json_array_get(ended, i)); i++)
        rc = parse_generation(item, ledger, err);
    json_decref(json);
    if (rc < 0)
        ledger_close(ledger);
    else
        *out = ledger;
    return rc;
}

char *ledger_format(const struct ledger *l)
{
    json_t *actions = json_array(), *ended = json_array();
    for (size_t i = 0; i < l->action_count; i++) {
        const struct ledger_action *a = &l->actions[i];
        json_array_append_new(
            actions, json_pack("{s:I, s:I, s:I, s:I, s:s, s:s}", "job", (json_int_t)a->key.job_id, "step",
                         (json_int_t)a->key.step, "method", (json_int_t)a->key.method, "created_ms",
                         (json_int_t)a->key.created_ms, "code", err_name(a->result.code), "text", a->result.text));
    }
    for (size_t i = 0; i < l->generation_count; i++)
        json_array_append_new(ended, json_pack("{s:s, s:I}", "vm_id", l->generations[i].vm_id, "generation",
                                         (json_int_t)l->generations[i].generation));
    json_t *json = json_pack("{s:o, s:o}", "actions", actions, "ended", ended);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    ENSURE(text != NULL);
    json_decref(json);
    return text;
}

int ledger_open(const char *path, struct err *err, struct ledger **out)
{
    cleanup_buf struct buf text = {0};
    struct err why;
    ENSURE(strlen(path) < PATH_MAX);
    if (file_read(path, LEDGER_BYTES_MAX, &why, &text) < 0) {
        if (why.code != ERR_NOT_FOUND) {
            *err = why;
            return -1;
        }
        *out = ledger_make();
    } else if (ledger_parse(buf_str(&text), text.len, err, out) < 0) {
        return err_wrap(err, "%s", path);
    }
    strcpy((*out)->path, path);
    return 0;
}

static void ledger_save(const struct ledger *ledger)
{
    struct err err;
    if (!ledger->path[0])
        return;
    cleanup_free char *text = ledger_format(ledger);
    if (file_write(ledger->path, text, strlen(text), 0600, &err) < 0)
        log_event(LOG_ERROR, "ledger.unsaved", "reason=%s", LOG_QUOTE(err.message));
}

bool ledger_key_same(const struct ledger_key *a, const struct ledger_key *b)
{
    bool told = a->created_ms != 0 && b->created_ms != 0;
    return a->job_id != 0 && a->job_id == b->job_id && a->step == b->step && a->method == b->method &&
           (!told || a->created_ms == b->created_ms);
}

const struct ledger_result *ledger_find(const struct ledger *l, struct ledger_key key)
{
    for (size_t i = l->action_count; i-- > 0;)
        if (ledger_key_same(&l->actions[i].key, &key))
            return &l->actions[i].result;
    return NULL;
}

void ledger_remember(struct ledger *ledger, struct ledger_key key, enum err_code code, const char *text)
{
    if (key.job_id == 0 || key.job_id > INT64_MAX)
        return;
    put_action(ledger, key, code, text);
    ledger_save(ledger);
}

uint64_t ledger_ended(const struct ledger *l, const char *vm_id)
{
    for (size_t i = 0; i < l->generation_count; i++)
        if (strcmp(l->generations[i].vm_id, vm_id) == 0)
            return l->generations[i].generation;
    return 0;
}

void ledger_end(struct ledger *ledger, const char *vm_id, uint64_t generation)
{
    if (ledger_ended(ledger, vm_id) >= generation)
        return;
    put_generation(ledger, vm_id, generation);
    ledger_save(ledger);
}
