#include "raft/logdir.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "raft/segment.h"

#define MARKER   "shortening"
#define FOUNDING "founding"
/* Segments are 8 MiB long; a write that has no room in one goes into a longer one of its own. */
#define SEGMENT_BYTES_MAX (256u << 20)

struct segment_file {
    struct segment_name name;
    char file[NAME_MAX + 1];
    struct segment_report report; /* of an open one */
};

struct segments {
    struct segment_file *list; /* closed ones first, the oldest of each kind first */
    size_t count;
};

static int compare(const void *one, const void *other)
{
    const struct segment_name *a = one, *b = other; /* the first in the struct */
    if (a->open != b->open)
        return a->open - b->open;
    if (a->open)
        return a->counter < b->counter ? -1 : a->counter > b->counter;
    if (a->first != b->first)
        return a->first < b->first ? -1 : 1;
    return a->last < b->last ? -1 : a->last > b->last;
}

static int segments_list(const char *directory, struct err *err, struct segments *out)
{
    DIR *dir = opendir(directory);
    if (!dir)
        return err_errno(err, ERR_INTERNAL, errno, "cannot open %s", directory);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        struct segment_file found = {0};
        if (!segment_parse_name(entry->d_name, &found.name))
            continue;
        strcpy(found.file, entry->d_name);
        out->list = mem_realloc(out->list, (out->count + 1) * sizeof *out->list);
        out->list[out->count++] = found;
    }
    closedir(dir);
    if (out->count > 0)
        qsort(out->list, out->count, sizeof *out->list, compare);
    return 0;
}

static void segments_free(struct segments *segments)
{
    free(segments->list);
}

#define cleanup_segments __attribute__((cleanup(segments_free)))

static int path_of(const char *directory, const char *file, struct err *err, char out[static PATH_MAX])
{
    if (snprintf(out, PATH_MAX, "%s/%s", directory, file) >= PATH_MAX)
        return err_set(err, ERR_INVALID, "path too long: %s", directory);
    return 0;
}

static int remove_file(const char *directory, const char *file, struct err *err)
{
    char path[PATH_MAX];
    if (path_of(directory, file, err, path))
        return -1;
    if (unlink(path) != 0 && errno != ENOENT)
        return err_errno(err, ERR_INTERNAL, errno, "cannot remove %s", path);
    return 0;
}

/* ---- shortening the log ---- */

int logdir_mark(const char *directory, uint64_t index, struct err *err)
{
    char path[PATH_MAX], text[32];
    int len = snprintf(text, sizeof text, "%" PRIu64 "\n", index);
    if (path_of(directory, MARKER, err, path))
        return -1;
    return file_write(path, text, (size_t)len, 0600, err);
}

int logdir_unmark(const char *directory, struct err *err)
{
    return remove_file(directory, MARKER, err) ? -1 : file_sync_directory(directory, err);
}

/* `out`: 0 if there is none. */
static int read_marker(const char *directory, struct err *err, uint64_t *out)
{
    char path[PATH_MAX], *end;
    cleanup_buf struct buf text = {0};
    struct err missing;
    *out = 0;
    if (path_of(directory, MARKER, err, path))
        return -1;
    if (file_read(path, 32, &missing, &text)) {
        if (missing.code == ERR_NOT_FOUND)
            return 0;
        *err = missing;
        return -1;
    }
    const char *digits = buf_str(&text);
    uint64_t index = strtoull(digits, &end, 10);
    if (strspn(digits, "0123456789") == 0 || strcmp(end, "\n") != 0 || index == 0 || index > INT64_MAX)
        return err_set(err, ERR_CORRUPT, "%s does not say where the log was being shortened", path);
    *out = index;
    return 0;
}

/* A closed segment goes as a whole. What open ones have lies behind it, but says nowhere which entries it is: it would
 * be loaded where the last closed one ends. It was to go, too, or has come in the place of what was, and nobody has
 * been told that it is safe. When libraft has removed the closed ones, which it does before it writes anything new,
 * open ones go on where the log ends, and stay. */
static bool loses_a_whole_one(const struct segments *segments, uint64_t index)
{
    for (size_t i = 0; i < segments->count; i++)
        if (!segments->list[i].name.open && segments->list[i].name.first >= index)
            return true;
    return false;
}

/* What goes where the log was being shortened at `index`. Segments that begin there hold only what was to go: nothing
 * that came in its place has been acknowledged. Of two that begin at one entry the longer one is the older one, which
 * is whole. The entries it has from `index` on are what the log would have, had the shortening not begun yet. */
static bool is_left_over(const struct segments *segments, size_t i, uint64_t index)
{
    const struct segment_name *name = &segments->list[i].name;
    const struct segment_name *next = i + 1 < segments->count ? &segments->list[i + 1].name : NULL;
    if (name->open)
        return loses_a_whole_one(segments, index);
    return name->first >= index || (next && !next->open && next->first == name->first);
}

/* Removes what goes of the open segments, or of the closed ones, the newest first. */
static int remove_left_over(
    const char *directory, const struct segments *segments, bool open, uint64_t index, struct err *err)
{
    for (size_t i = segments->count; i-- > 0;) {
        const struct segment_file *segment = &segments->list[i];
        if (segment->name.open != open || !is_left_over(segments, i, index))
            continue;
        log_event(LOG_INFO, "raft.segment_removed", "segment=%s shortened_at=%" PRIu64, segment->file, index);
        if (remove_file(directory, segment->file, err))
            return -1;
    }
    return file_sync_directory(directory, err);
}

/* Open ones are gone for good before the first closed one goes: by the closed ones it is known, should this be cut off,
 * that they have to. */
static int finish_shortening(const char *directory, struct err *err)
{
    cleanup_segments struct segments segments = {0};
    uint64_t index;
    if (read_marker(directory, err, &index))
        return -1;
    if (index == 0)
        return 0;
    if (segments_list(directory, err, &segments) || remove_left_over(directory, &segments, true, index, err) ||
        remove_left_over(directory, &segments, false, index, err))
        return -1;
    return logdir_unmark(directory, err);
}

/* ---- open segments ---- */

static int check_one(const char *directory, struct segment_file *segment, struct err *err)
{
    char path[PATH_MAX];
    cleanup_buf struct buf data = {0};
    if (path_of(directory, segment->file, err, path) || file_read(path, SEGMENT_BYTES_MAX, err, &data))
        return -1;
    segment_check(data.data, data.len, &segment->report);
    if (segment->report.state == SEGMENT_SPOILT)
        return err_set(err, ERR_CORRUPT, "%s has changed on the disk at byte %zu", segment->file, segment->report.at);
    return 0;
}

/* The write that was cut off is the last of all: a newer segment is not written to before this one has all of its. */
static int check_cut_off(const char *directory, const struct segments *segments, size_t i, struct err *err)
{
    const struct segment_file *segment = &segments->list[i];
    for (size_t newer = i + 1; newer < segments->count; newer++)
        if (segments->list[newer].report.state != SEGMENT_UNUSED)
            return err_set(err, ERR_CORRUPT, "%s has changed on the disk at byte %zu: %s goes on behind it",
                segment->file, segment->report.at, segments->list[newer].file);
    log_event(LOG_WARN, "raft.write_cut_off", "segment=%s at_bytes=%zu: what it was writing is dropped", segment->file,
        segment->report.at);
    /* libraft drops the rest of a segment, but only if it has a beginning. */
    return segment->report.at == 0 ? remove_file(directory, segment->file, err) : 0;
}

static int check_open(const char *directory, struct err *err)
{
    cleanup_segments struct segments segments = {0};
    if (segments_list(directory, err, &segments))
        return -1;
    for (size_t i = 0; i < segments.count; i++)
        if (segments.list[i].name.open && check_one(directory, &segments.list[i], err))
            return -1;
    for (size_t i = 0; i < segments.count; i++)
        if (segments.list[i].report.state == SEGMENT_CUT_OFF && check_cut_off(directory, &segments, i, err))
            return -1;
    return 0;
}

/* ---- founding ---- */

static bool is_log_file(const char *name)
{
    struct segment_name segment;
    return segment_parse_name(name, &segment) || strncmp(name, "metadata", 8) == 0 ||
           strncmp(name, "snapshot-", 9) == 0 || strcmp(name, MARKER) == 0;
}

/* Removes every file of a log; with `only_look` it is ERR_EXISTS that there is one. */
static int clear_log(const char *directory, bool only_look, struct err *err)
{
    DIR *dir = opendir(directory);
    int rc = 0;
    if (!dir)
        return err_errno(err, ERR_INTERNAL, errno, "cannot open %s", directory);
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir)) != NULL;) {
        if (!is_log_file(entry->d_name))
            continue;
        rc = only_look ? err_set(err, ERR_EXISTS, "it has data already: a log is founded once, in an empty directory")
                       : remove_file(directory, entry->d_name, err);
    }
    closedir(dir);
    return rc;
}

static int founding_begun(const char *directory, struct err *err, bool *out)
{
    char path[PATH_MAX];
    if (path_of(directory, FOUNDING, err, path))
        return -1;
    if (access(path, F_OK) != 0 && errno != ENOENT)
        return err_errno(err, ERR_INTERNAL, errno, "cannot look for %s", path);
    *out = access(path, F_OK) == 0;
    return 0;
}

int logdir_found_begin(const char *directory, struct err *err)
{
    char path[PATH_MAX];
    bool begun = false;
    if (founding_begun(directory, err, &begun) || clear_log(directory, !begun, err))
        return -1;
    if (begun)
        return file_sync_directory(directory, err);
    return path_of(directory, FOUNDING, err, path) ? -1 : file_write(path, "", 0, 0600, err);
}

int logdir_found_end(const char *directory, struct err *err)
{
    return remove_file(directory, FOUNDING, err) ? -1 : file_sync_directory(directory, err);
}

int logdir_prepare(const char *directory, struct err *err)
{
    bool founding = false;
    if (founding_begun(directory, err, &founding))
        return -1;
    if (founding)
        return err_set(err, ERR_NOT_FOUND, "founding the log was cut off");
    return finish_shortening(directory, err) ? -1 : check_open(directory, err);
}
