#include "storage/place.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"
#include "base/format.h"
#include "base/log.h"

#define PARTIAL_SUFFIX   ".partial"
#define PARTIAL_MORE_MAX 80 /* what the partial file's name has more than the target's */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The directory of `path`, resolved. */
static int directory_real(const char *path, struct err *err, char out[static PATH_MAX])
{
    char parent[PATH_MAX];
    size_t len = (size_t)(base_name(path) - path);
    if (path[0] != '/' || strlen(path) > PLACE_PATH_MAX)
        return err_set(err, ERR_INVALID, "'%.200s' is not an absolute path of at most %d bytes", path, PLACE_PATH_MAX);
    memcpy(parent, path, len);
    parent[len] = '\0';
    if (!realpath(parent, out))
        return err_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_INVALID, errno, "directory %.400s", parent);
    return 0;
}

static bool below(const char *directory, const char *top)
{
    size_t len = strlen(top);
    return strcmp(top, "/") == 0 || (strncmp(directory, top, len) == 0 && (directory[len] == '/' || !directory[len]));
}

static int directory_allowed(const char *directories, const char *directory, struct err *err)
{
    char real[PATH_MAX];
    cleanup_free char *lines = mem_strdup(directories);
    char *save = NULL;
    for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (below(directory, line)) /* which is a real path, then: storage elsewhere, perhaps dead, is not looked at */
            return 0;
    strcpy(lines, directories);
    for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (realpath(line, real) && below(directory, real))
            return 0;
    if (!directories[0])
        return err_set(err, ERR_UNSUPPORTED,
            "this host has no directories for disks; name them with storage.directory in its configuration");
    return err_set(
        err, ERR_DENIED, "%.400s is in none of the host's directories for disks (storage.directory)", directory);
}

int place_resolve(const char *directories, const char *path, struct err *err, char out[static PATH_MAX])
{
    char directory[PATH_MAX];
    const char *name = base_name(path);
    if (directory_real(path, err, directory) < 0 || directory_allowed(directories, directory, err) < 0)
        return -1;
    if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(err, ERR_INVALID, "'%.200s' does not name a file", path);
    int len = snprintf(out, PATH_MAX, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, name);
    if (len > PLACE_PATH_MAX || strlen(name) + PARTIAL_MORE_MAX > NAME_MAX)
        return err_set(err, ERR_INVALID, "'%.200s' is too long for the path of a disk", path);
    return 0;
}

int place_target(
    const char *directories, const char *source, const char *asked, struct err *err, char out[static PATH_MAX])
{
    struct stat st;
    char path[PATH_MAX];
    bool directory = asked[0] && (asked[strlen(asked) - 1] == '/' || (stat(asked, &st) == 0 && S_ISDIR(st.st_mode)));
    if (strlen(asked) + strlen(source) + 2 > sizeof path)
        return err_set(err, ERR_INVALID, "'%.200s' is too long for the path of a disk", asked);
    size_t len = strlen(asked);
    while (directory && len > 1 && asked[len - 1] == '/')
        len--;
    snprintf(path, sizeof path, directory ? "%.*s/%s" : "%.*s", (int)len, asked, base_name(source));
    if (place_resolve(directories, path, err, out) < 0)
        return -1;
    if (lstat(out, &st) == 0)
        return err_set(err, ERR_EXISTS, "%.400s exists already; choose another name, or remove it first", out);
    if (errno != ENOENT)
        return err_errno(err, ERR_INVALID, errno, "%.400s", out);
    return 0;
}

int place_room(const char *source, const char *target, struct err *err)
{
    struct stat st;
    struct statvfs fs;
    char directory[PATH_MAX], need[FORMAT_MAX], have[FORMAT_MAX];
    if (stat(source, &st) < 0)
        return err_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_INVALID, errno, "disk %.400s", source);
    if (directory_real(target, err, directory) < 0)
        return -1;
    if (statvfs(directory, &fs) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "%.400s", directory);
    uint64_t bytes = (uint64_t)st.st_blocks * 512, left = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (bytes > left)
        return err_set(err, ERR_CAPACITY, "%.300s takes up %s, and %.300s has %s left", source,
            format_bytes(bytes, need), directory, format_bytes(left, have));
    return 0;
}

const char *place_partial(const char *target, const char *id, char out[static PATH_MAX])
{
    const char *name = base_name(target);
    int len = snprintf(out, PATH_MAX, "%.*s.%s.%s" PARTIAL_SUFFIX, (int)(name - target), target, name, id);
    ENSURE(len > 0 && len < PATH_MAX); /* both are bounded where they come in */
    return out;
}

int place_make(const char *target, const char *id, const char *like, struct err *err)
{
    char partial[PATH_MAX];
    struct stat st;
    if (lstat(target, &st) == 0)
        return err_set(err, ERR_EXISTS, "%.400s exists already; remove it, or have the disk put elsewhere", target);
    if (like && stat(like, &st) < 0)
        return err_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_INVALID, errno, "disk %.400s", like);
    place_partial(target, id, partial);
    cleanup_fd int fd = open(partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(err, errno == EEXIST ? ERR_EXISTS : ERR_INVALID, errno, "cannot make %.400s", partial);
    if (!like)
        return 0;
    if (fchown(fd, st.st_uid, st.st_gid) == 0 && fchmod(fd, st.st_mode & 0777) == 0)
        return 0;
    int why = errno;
    unlink(partial);
    return err_errno(err, ERR_INVALID, why, "cannot give %.400s the owner and mode of %.400s", partial, like);
}

/* Everything is looked up below one descriptor, so that nothing is mounted or unmounted between two looks. */
static int where_open(const char *target, struct err *err, int *fd, struct place_where *out)
{
    char directory[PATH_MAX];
    struct stat st;
    struct statfs fs;
    snprintf(directory, sizeof directory, "%.*s", (int)(base_name(target) - target), target);
    *fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st) < 0 || fstatfs(*fd, &fs) < 0)
        return err_errno(err, ERR_UNAVAILABLE, errno, "directory %.400s cannot be looked at", directory);
    *out = (struct place_where){(uint64_t)fs.f_type, st.st_ino};
    return 0;
}

int place_where(const char *target, struct err *err, struct place_where *out)
{
    cleanup_fd int fd = -1;
    return where_open(target, err, &fd, out);
}

/* 1: there, 0: there is none, -1: not known. */
static int look_up(int directory, const char *path, struct err *err, struct stat *st)
{
    if (fstatat(directory, base_name(path), st, AT_SYMLINK_NOFOLLOW) == 0)
        return 1;
    return errno == ENOENT ? 0 : err_errno(err, ERR_UNAVAILABLE, errno, "%.400s cannot be looked at", path);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

int place_committed(const char *target, const char *id, struct place_where where, struct err *err)
{
    char partial[PATH_MAX];
    struct place_where here;
    struct stat first, second;
    cleanup_fd int fd = -1;
    if (where_open(target, err, &fd, &here) < 0)
        return -1;
    int there = look_up(fd, place_partial(target, id, partial), err, &first);
    if (there < 0)
        return -1;
    if (there == 0) {
        if (where.inode && where.inode == here.inode && where.file_system == here.file_system)
            return 0;
        if (!where.inode)
            return err_set(
                err, ERR_UNAVAILABLE, "%.400s has no partial file, nor is it known where it was to be", target);
        return err_set(err, ERR_UNAVAILABLE,
            "the directory of %.300s is not the one that the disk was to go to: mount its file system", target);
    }
    there = look_up(fd, target, err, &second);
    return there <= 0 ? there : same_file(&first, &second);
}

static int directory_sync(const char *path, struct err *err)
{
    char directory[PATH_MAX];
    return directory_real(path, err, directory) < 0 ? -1 : file_sync_directory(directory, err);
}

int place_commit(const char *target, const char *id, struct err *err)
{
    char partial[PATH_MAX];
    place_partial(target, id, partial);
    if (link(partial, target) < 0) {
        int why = errno;
        if (why != EEXIST || place_committed(target, id, (struct place_where){0}, err) != 1)
            return err_errno(err, ERR_INTERNAL, why, "cannot give %.300s the name %.300s", partial, target);
    }
    return directory_sync(target, err);
}

void place_forget(const char *target, const char *id)
{
    char partial[PATH_MAX];
    struct err err;
    if (unlink(place_partial(target, id, partial)) == 0)
        (void)!directory_sync(target, &err);
    else if (errno != ENOENT)
        log_event(LOG_WARN, "disk.left", "path=%s reason=%s", LOG_QUOTE(partial), LOG_QUOTE(strerror(errno)));
}

int place_remove(const char *directories, const char *old, const char *target, struct err *err)
{
    struct stat st, other;
    char path[PATH_MAX];
    if (place_resolve(directories, old, err, path) < 0)
        return -1;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_errno(err, ERR_INVALID, errno, "%.400s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_UNSUPPORTED, "%.400s is not a regular file", path);
    if (lstat(target, &other) < 0 ? errno != ENOENT : same_file(&st, &other))
        return err_set(err, ERR_WRONG_STATE, "%.400s is, or may be, the disk itself", path);
    if (unlink(path) < 0)
        return err_errno(err, ERR_INVALID, errno, "cannot remove %.400s", path);
    return 0;
}

int place_sync(const char *path, struct err *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fdatasync(fd) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot sync %.400s", path);
    return 0;
}
