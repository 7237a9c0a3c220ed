#include "hostd/outcomes.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"
#include "hostd/partition/paths.h"
#include "proto/bounded.h"

#define OUTCOME_BYTES_MAX (1u << 20)

/* The name of an outcome's file ends with what is known of it. */
static const char untold_suffix[] = ".outcome", told_suffix[] = ".told";

struct kept {
    Drover__MigrateOutcomeRequest *outcome;
    bool told;
    struct timespec written;
};

struct outcomes {
    char directory[PATH_MAX];
    struct kept kept[OUTCOMES_MAX]; /* oldest first */
    size_t count;
};

static void kept_path(const struct outcomes *o, const char *id, bool told, char out[static PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/%s%s", o->directory, id, told ? told_suffix : untold_suffix);
    ENSURE(n > 0 && n < PATH_MAX);
}

static struct kept *kept_find(const struct outcomes *o, const char *id)
{
    for (size_t i = 0; i < o->count; i++)
        if (strcmp(o->kept[i].outcome->migration_id, id) == 0)
            return (struct kept *)&o->kept[i];
    return NULL;
}

static void kept_drop(struct outcomes *o, size_t i)
{
    char path[PATH_MAX];
    kept_path(o, o->kept[i].outcome->migration_id, o->kept[i].told, path);
    unlink(path);
    if (!o->kept[i].told)
        log_event(LOG_WARN, "outcome.forgotten", "migration=%s reason=%s", o->kept[i].outcome->migration_id,
            LOG_QUOTE("too many that no controller has taken note of"));
    drover__migrate_outcome_request__free_unpacked(o->kept[i].outcome, NULL);
    memmove(o->kept + i, o->kept + i + 1, (--o->count - i) * sizeof *o->kept);
}

static void kept_make_room(struct outcomes *o)
{
    if (o->count < OUTCOMES_MAX)
        return;
    size_t i = 0;
    while (i < o->count && !o->kept[i].told)
        i++;
    kept_drop(o, i < o->count ? i : 0);
}

static int outcome_load(struct outcomes *o, const char *name, struct err *err)
{
    char path[PATH_MAX];
    cleanup_buf struct buf data = {0};
    struct stat st;
    size_t len = strlen(name);
    bool told = len > 5 && strcmp(name + len - 5, told_suffix) == 0;
    if (!told && (len <= 8 || strcmp(name + len - 8, untold_suffix) != 0))
        return 0;
    if (snprintf(path, sizeof path, "%s/%s", o->directory, name) >= (int)sizeof path || stat(path, &st) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "%s/%s", o->directory, name);
    if (file_read(path, OUTCOME_BYTES_MAX, err, &data) < 0)
        return -1;
    Drover__MigrateOutcomeRequest *outcome = BOUNDED_UNPACK(migrate_outcome_request, data.data, data.len);
    if (!outcome || !paths_migration_id_ok(outcome->migration_id)) {
        if (outcome)
            drover__migrate_outcome_request__free_unpacked(outcome, NULL);
        return err_set(err, ERR_CORRUPT, "%s is not the outcome of a migration", path);
    }
    kept_make_room(o);
    size_t at = o->count;
    while (at > 0 && (st.st_mtim.tv_sec < o->kept[at - 1].written.tv_sec ||
                         (st.st_mtim.tv_sec == o->kept[at - 1].written.tv_sec &&
                             st.st_mtim.tv_nsec < o->kept[at - 1].written.tv_nsec)))
        at--;
    memmove(o->kept + at + 1, o->kept + at, (o->count++ - at) * sizeof *o->kept);
    o->kept[at] = (struct kept){outcome, told, st.st_mtim};
    return 0;
}

int outcomes_open(const char *directory, struct err *err, struct outcomes **out)
{
    if (file_make_dirs(directory, 0700, err) < 0)
        return -1;
    DIR *dir = opendir(directory);
    if (!dir)
        return err_errno(err, ERR_INTERNAL, errno, "cannot read %s", directory);
    struct outcomes *o = mem_zalloc(sizeof *o);
    strcpy(o->directory, directory);
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));)
        rc = outcome_load(o, entry->d_name, err);
    closedir(dir);
    if (rc < 0)
        outcomes_close(o);
    else
        *out = o;
    return rc;
}

void outcomes_close(struct outcomes *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < o->count; i++)
        drover__migrate_outcome_request__free_unpacked(o->kept[i].outcome, NULL);
    free(o);
}

int outcomes_add(struct outcomes *o, const Drover__MigrateOutcomeRequest *outcome, bool told, struct err *err)
{
    ENSURE(paths_migration_id_ok(outcome->migration_id));
    if (kept_find(o, outcome->migration_id))
        return 0;
    char path[PATH_MAX];
    size_t len = drover__migrate_outcome_request__get_packed_size(outcome);
    cleanup_free uint8_t *packed = mem_alloc(len + 1);
    drover__migrate_outcome_request__pack(outcome, packed);
    kept_path(o, outcome->migration_id, told, path);
    if (file_write(path, packed, len, 0600, err) < 0)
        return -1;
    kept_make_room(o);
    struct kept *kept = &o->kept[o->count++];
    *kept = (struct kept){bounded_copy(outcome), told, {0}};
    clock_gettime(CLOCK_REALTIME, &kept->written);
    return 0;
}

const Drover__MigrateOutcomeRequest *outcomes_find(const struct outcomes *o, const char *migration_id)
{
    const struct kept *kept = kept_find(o, migration_id);
    return kept ? kept->outcome : NULL;
}

int outcome_refusal(const Drover__MigrateOutcomeRequest *kept, struct err *err)
{
    const Drover__ErrorInfo *why = kept->error;
    if (!why)
        return err_set(err, ERR_CANCELLED, "migration %s is over on this host%s", kept->migration_id,
            kept->outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN ? ": it was fenced before it was prepared"
                                                                          : "");
    enum err_code code = err_from_name(why->code);
    /* What ended it may mend, but this migration is over for good. */
    return err_set(err, err_retryable(code) ? ERR_CANCELLED : code, "migration %s has ended on this host: %s",
        kept->migration_id, why->message);
}

const Drover__MigrateOutcomeRequest *outcomes_untold(const struct outcomes *o, const char *after)
{
    bool found = after == NULL;
    for (size_t i = 0; i < o->count; i++) {
        if (found && !o->kept[i].told)
            return o->kept[i].outcome;
        found = found || strcmp(o->kept[i].outcome->migration_id, after) == 0;
    }
    return NULL;
}

void outcomes_set_heard(struct outcomes *o, const char *migration_id, uint64_t heard_us)
{
    struct kept *kept = kept_find(o, migration_id);
    if (!kept)
        return;
    kept->outcome->heard_us = heard_us;
    kept->outcome->listens = false;
}

void outcomes_set_told(struct outcomes *o, const char *migration_id)
{
    struct kept *kept = kept_find(o, migration_id);
    if (!kept || kept->told)
        return;
    char from[PATH_MAX], to[PATH_MAX];
    kept_path(o, migration_id, false, from);
    kept_path(o, migration_id, true, to);
    if (rename(from, to) < 0)
        log_event(LOG_WARN, "outcome.unsaved", "migration=%s reason=%s", migration_id, LOG_QUOTE(strerror(errno)));
    kept->told = true;
}

size_t outcomes_untold_count(const struct outcomes *o)
{
    size_t count = 0;
    for (size_t i = 0; i < o->count; i++)
        count += !o->kept[i].told;
    return count;
}
