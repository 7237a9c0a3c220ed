#include "hostd/visits.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "hostd/child.h"
#include "hostd/partition/paths.h"
#include "proto/limits.h"

#define EXPIRE_MS 60000u /* so often old ones are looked for */

struct visit {
    struct visit *prev, *next; /* the oldest first */
    struct visits *all;
    char vm_id[PATHS_ID_MAX];
    uint64_t bytes;       /* on disk; while it is being made, the most it may come to */
    uint64_t at_ms;       /* when it left */
    struct child *keeper; /* NULL: it is whole */
};

struct visits {
    struct visits_options options;
    struct visit *list;
    struct loop_timer *timer;
};

enum visit_file { VISIT_IMAGE, VISIT_KEY, VISIT_RAM, VISIT_LOG };

static const char *visit_path(
    const struct visits *vs, const char *vm_id, enum visit_file file, char out[static PATH_MAX])
{
    const struct visits_options *o = &vs->options;
    switch (file) {
    case VISIT_IMAGE:
        snprintf(out, PATH_MAX, "%s/%s.image", o->directory, vm_id);
        break;
    case VISIT_KEY:
        snprintf(out, PATH_MAX, "%s/%s.key", o->key_directory, vm_id);
        break;
    case VISIT_RAM:
        snprintf(out, PATH_MAX, "%s/%s.leaving", o->memory_directory, vm_id);
        break;
    case VISIT_LOG:
        snprintf(out, PATH_MAX, "%s/%s.log", o->key_directory, vm_id);
        break;
    }
    return out;
}

static void visit_unlink(const struct visits *vs, const char *vm_id, enum visit_file file)
{
    char path[PATH_MAX];
    if (unlink(visit_path(vs, vm_id, file, path)) < 0 && errno != ENOENT)
        log_event(LOG_WARN, "visit.left", "path=%s reason=%s", path, LOG_QUOTE(strerror(errno)));
}

static struct visit *visit_new(struct visits *vs, const char *vm_id, uint64_t bytes, uint64_t at_ms)
{
    struct visit *v = mem_zalloc(sizeof *v);
    v->all = vs;
    snprintf(v->vm_id, sizeof v->vm_id, "%s", vm_id);
    v->bytes = bytes;
    v->at_ms = at_ms;
    DL_APPEND(vs->list, v);
    return v;
}

static struct visit *visit_find(const struct visits *vs, const char *vm_id)
{
    struct visit *v;
    DL_FOREACH(vs->list, v)
    {
        if (strcmp(v->vm_id, vm_id) == 0)
            return v;
    }
    return NULL;
}

/* What its keeper, who is dead, has not given a name yet. */
static void unlink_partial(const struct visit *v, pid_t keeper)
{
    char path[PATH_MAX], partial[PATH_MAX + 32];
    snprintf(partial, sizeof partial, "%s.%d.partial", visit_path(v->all, v->vm_id, VISIT_IMAGE, path), (int)keeper);
    unlink(partial);
}

/* The keeper first, which would write a key, and then the key: from then on nobody can read the rest. */
static void visit_remove(struct visit *v, const char *why)
{
    struct visits *vs = v->all;
    log_event(LOG_INFO, "visit.removed", "vm=%s reason=%s", v->vm_id, LOG_QUOTE(why));
    if (v->keeper)
        child_signal(v->keeper, SIGKILL);
    visit_unlink(vs, v->vm_id, VISIT_KEY);
    crashpoint("hostd", "visit-keyless");
    if (v->keeper) {
        unlink_partial(v, child_id(v->keeper).pid);
        child_abandon(v->keeper);
    }
    visit_unlink(vs, v->vm_id, VISIT_IMAGE);
    visit_unlink(vs, v->vm_id, VISIT_RAM);
    visit_unlink(vs, v->vm_id, VISIT_LOG);
    DL_DELETE(vs->list, v);
    free(v);
}

/* ---- what an earlier hostd left ---- */

/* Is `rest` of a name ".image", or ".image.PID.partial"? */
static bool names_image(const char *rest)
{
    const char partial[] = ".partial";
    size_t len = strlen(rest), tail = sizeof partial - 1;
    return strcmp(rest, ".image") == 0 ||
           (strncmp(rest, ".image.", 7) == 0 && len > 7 + tail && strcmp(rest + len - tail, partial) == 0);
}

static bool names_key(const char *rest)
{
    return strcmp(rest, ".key") == 0;
}

static bool names_log(const char *rest)
{
    return strcmp(rest, ".log") == 0;
}

static bool names_leaving(const char *rest)
{
    return strcmp(rest, ".leaving") == 0;
}

/* Calls `fn` for each file of the directory whose name is a VM's id and what `names` knows: others' files, which the
 * directory may have too, are left alone. */
static void sweep(struct visits *vs, const char *directory, bool (*names)(const char *rest),
    void (*fn)(struct visits *vs, const char *vm_id, const char *path))
{
    DIR *dir = opendir(directory);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        char vm_id[PATHS_ID_MAX], path[PATH_MAX + 256];
        snprintf(vm_id, sizeof vm_id, "%.36s", entry->d_name);
        if (!paths_vm_id_ok(vm_id) || !names(entry->d_name + strlen(vm_id)))
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        fn(vs, vm_id, path);
    }
    if (dir)
        closedir(dir);
}

static void sweep_away(struct visits *vs, const char *vm_id, const char *path)
{
    (void)vs;
    (void)vm_id;
    unlink(path);
}

static void sweep_image(struct visits *vs, const char *vm_id, const char *path)
{
    struct stat image, key;
    char whole[PATH_MAX], key_path[PATH_MAX];
    bool named = strcmp(path, visit_path(vs, vm_id, VISIT_IMAGE, whole)) == 0;
    if (vs->options.max_bytes == 0 || !named || stat(path, &image) < 0 ||
        stat(visit_path(vs, vm_id, VISIT_KEY, key_path), &key) < 0) {
        unlink(path);
        return;
    }
    int64_t age_ms = clock_wall_ms() - (int64_t)key.st_mtim.tv_sec * 1000;
    uint64_t now_ms = clock_now_ms(), age = age_ms > 0 ? (uint64_t)age_ms : 0;
    visit_new(vs, vm_id, (uint64_t)image.st_blocks * 512, age < now_ms ? now_ms - age : 0);
}

static void sweep_key(struct visits *vs, const char *vm_id, const char *path)
{
    if (!visit_find(vs, vm_id))
        unlink(path);
}

static int by_age(const struct visit *a, const struct visit *b)
{
    return a->at_ms < b->at_ms ? -1 : a->at_ms > b->at_ms;
}

static void visits_look(void *user)
{
    visits_expire(user, clock_now_ms());
}

struct visits *visits_open(const struct visits_options *options)
{
    struct visits *vs = mem_zalloc(sizeof *vs);
    struct err err;
    vs->options = *options;
    if (options->max_bytes &&
        (file_make_private(options->directory, &err) < 0 || file_make_dirs(options->key_directory, 0700, &err) < 0)) {
        log_event(LOG_ERROR, "visits.off", "reason=%s", LOG_QUOTE(err.message));
        vs->options.max_bytes = 0;
    }
    sweep(vs, options->memory_directory, names_leaving, sweep_away);
    sweep(vs, options->directory, names_image, sweep_image);
    sweep(vs, options->key_directory, names_key, sweep_key);
    sweep(vs, options->key_directory, names_log, sweep_away);
    DL_SORT(vs->list, by_age);
    vs->timer = loop_timer_new(options->loop, visits_look, vs);
    if (vs->options.max_bytes)
        loop_timer_start(vs->timer, EXPIRE_MS, EXPIRE_MS);
    return vs;
}

void visits_close(struct visits *vs)
{
    if (!vs)
        return;
    for (struct visit *v; (v = vs->list);) {
        DL_DELETE(vs->list, v);
        child_free(v->keeper);
        free(v);
    }
    loop_timer_free(vs->timer);
    free(vs);
}

/* ---- keeping ---- */

static void keeper_ended(void *user, int status)
{
    struct visit *v = user;
    struct visits *vs = v->all;
    struct stat st;
    char path[PATH_MAX], why[256];
    crashpoint("hostd", "visit-kept");
    child_last_line(visit_path(vs, v->vm_id, VISIT_LOG, path), sizeof why, why);
    unlink_partial(v, child_id(v->keeper).pid);
    child_free(v->keeper);
    v->keeper = NULL;
    if (status != 0 || stat(visit_path(vs, v->vm_id, VISIT_IMAGE, path), &st) < 0) {
        visit_remove(v, why);
        return;
    }
    v->bytes = (uint64_t)st.st_blocks * 512;
    visit_unlink(vs, v->vm_id, VISIT_RAM);
    visit_unlink(vs, v->vm_id, VISIT_LOG);
    log_event(LOG_INFO, "visit.kept", "vm=%s bytes=%" PRIu64, v->vm_id, v->bytes);
}

/* Makes room for `bytes` more; false: there is none, and nothing was removed. No more than half of what the file system
 * has left is used. */
static bool make_room(struct visits *vs, uint64_t bytes)
{
    struct statvfs fs;
    uint64_t used = 0;
    size_t count = 0;
    const struct visit *v;
    if (bytes > vs->options.max_bytes || statvfs(vs->options.directory, &fs) < 0 ||
        bytes > (uint64_t)fs.f_bavail * fs.f_frsize / 2)
        return false;
    DL_FOREACH(vs->list, v)
    {
        used += v->bytes;
        count++;
    }
    for (; vs->list && (used + bytes > vs->options.max_bytes || count >= LIMITS_VISITS); count--) {
        used -= vs->list->bytes;
        visit_remove(vs->list, "a newer one needs its room");
    }
    return true;
}

static int keep(struct visits *vs, const char *vm_id, uint64_t bytes, struct err *err)
{
    static char role[] = "keep";
    char ram[PATH_MAX], image[PATH_MAX], key[PATH_MAX], log[PATH_MAX], max[32];
    snprintf(max, sizeof max, "%" PRIu64, bytes);
    char *argv[] = {(char *)(uintptr_t)vs->options.program, role,
        (char *)(uintptr_t)visit_path(vs, vm_id, VISIT_RAM, ram),
        (char *)(uintptr_t)visit_path(vs, vm_id, VISIT_IMAGE, image),
        (char *)(uintptr_t)visit_path(vs, vm_id, VISIT_KEY, key), max, NULL};
    const struct child_options options = {.argv = argv, .log_path = visit_path(vs, vm_id, VISIT_LOG, log)};
    struct visit *v = visit_new(vs, vm_id, bytes, clock_now_ms());
    if (child_fork(vs->options.loop, &options, keeper_ended, v, err, &v->keeper) == 0 &&
        child_release(v->keeper, err) == 0)
        return 0;
    visit_remove(v, err->message);
    return -1;
}

void visits_keep(struct visits *vs, const char *vm_id, const char *ram_path)
{
    struct stat st;
    struct err err;
    char leaving[PATH_MAX];
    visits_forget(vs, vm_id);
    /* A page takes 16 bytes more, and the last block of tags may be a part of one. */
    uint64_t bytes = stat(ram_path, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
    bytes += bytes / 256 + 65536;
    if (vs->options.max_bytes && make_room(vs, bytes) &&
        rename(ram_path, visit_path(vs, vm_id, VISIT_RAM, leaving)) == 0) {
        crashpoint("hostd", "visit-taken");
        if (keep(vs, vm_id, bytes, &err) < 0)
            log_event(LOG_WARN, "visit.not_kept", "vm=%s reason=%s", vm_id, LOG_QUOTE(err.message));
        crashpoint("hostd", "visit-begun");
        return;
    }
    if (unlink(ram_path) < 0 && errno != ENOENT)
        log_event(LOG_WARN, "ram.left", "path=%s reason=%s", ram_path, LOG_QUOTE(strerror(errno)));
}

bool visits_find(const struct visits *vs, const char *vm_id, char path[static PATH_MAX], char key_path[static PATH_MAX])
{
    const struct visit *v = visit_find(vs, vm_id);
    if (!v || v->keeper)
        return false;
    visit_path(vs, vm_id, VISIT_IMAGE, path);
    visit_path(vs, vm_id, VISIT_KEY, key_path);
    return true;
}

void visits_forget(struct visits *vs, const char *vm_id)
{
    struct visit *v = visit_find(vs, vm_id);
    if (v)
        visit_remove(v, "not needed any more");
}

void visits_expire(struct visits *vs, uint64_t now_ms)
{
    while (vs->list && now_ms - vs->list->at_ms > vs->options.max_age_ms)
        visit_remove(vs->list, "too old");
}

uint64_t visits_memory_bytes(const struct visits *vs)
{
    uint64_t bytes = 0;
    const struct visit *v;
    DL_FOREACH(vs->list, v)
    {
        bytes += v->keeper ? v->bytes : 0;
    }
    return bytes;
}

bool visits_yield(struct visits *vs)
{
    struct visit *v;
    DL_FOREACH(vs->list, v)
    {
        if (v->keeper) {
            visit_remove(v, "its memory is needed");
            return true;
        }
    }
    return false;
}

char **visits_list(const struct visits *vs, size_t *count)
{
    size_t n = 0;
    struct visit *v;
    DL_FOREACH(vs->list, v)
    {
        n++;
    }
    char **list = mem_alloc((n + 1) * sizeof *list);
    n = 0;
    DL_FOREACH(vs->list, v)
    {
        list[n++] = v->vm_id;
    }
    *count = n;
    return list;
}
