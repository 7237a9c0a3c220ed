#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define REMOVE_WALKS 16

int file_read(const char *path, size_t max, struct err *err, struct buf *out)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_INTERNAL, errno, "cannot open %s", path);
    cleanup_buf struct buf data = {0};
    for (;;) {
        ssize_t n = read(fd, buf_reserve(&data, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) /* ESRCH: a file of /proc whose process has ended meanwhile */
            return err_errno(err, errno == ESRCH ? ERR_NOT_FOUND : ERR_INTERNAL, errno, "cannot read %s", path);
        if (n == 0)
            break;
        data.len += (size_t)n;
        if (data.len > max)
            return err_set(err, ERR_INVALID, "%s is larger than the %zu bytes allowed", path, max);
    }
    buf_clear(out);
    buf_append(out, data.data, data.len);
    return 0;
}

int file_sync_directory(const char *path, struct err *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot sync directory %s", path);
    return 0;
}

int file_sync_parent(const char *path, struct err *err)
{
    char parent[PATH_MAX];
    strcpy(parent, path); /* it named a file a moment ago, so it fits */
    return file_sync_directory(dirname(parent), err);
}

/* A file of ours alone: what has the name already, left by a process that had our number or put there by another user,
 * is not written to but removed, a link among it. */
static int temporary_create(const char *path, mode_t mode)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(path, flags, mode);
    if (fd < 0 && errno == EEXIST && unlink(path) == 0)
        fd = open(path, flags, mode);
    return fd;
}

int file_replace(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.%d.tmp", path, (int)getpid()) >= (int)sizeof temporary)
        return err_set(err, ERR_INVALID, "path too long: %s", path);
    cleanup_fd int fd = temporary_create(temporary, mode);
    if (fd < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot create %s", temporary);
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, (const char *)data + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(err, ERR_INTERNAL, errno, "cannot write %s", temporary);
            goto fail;
        }
        done += (size_t)n;
    }
    if (fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0) {
        err_errno(err, ERR_INTERNAL, errno, "cannot write %s", path);
        goto fail;
    }
    return 0;
fail:
    unlink(temporary);
    return -1;
}

int file_write(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
    if (file_replace(path, data, len, mode, err) < 0)
        return -1;
    return file_sync_parent(path, err);
}

int file_make_dirs(const char *path, mode_t mode, struct err *err)
{
    char part[PATH_MAX];
    if (strlen(path) >= sizeof part)
        return err_set(err, ERR_INVALID, "path too long: %s", path);
    strcpy(part, path);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(part, mode) == 0) {
            if (file_sync_parent(part, err) < 0)
                return -1;
        } else if (errno != EEXIST) {
            return err_errno(err, ERR_INTERNAL, errno, "cannot make directory %s", part);
        }
        if (end == '\0')
            return 0;
        *p = end;
    }
}

int file_make_private(const char *path, struct err *err)
{
    struct stat st;
    if (file_make_dirs(path, 0700, err) < 0)
        return -1;
    cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(err, errno == ELOOP || errno == ENOTDIR ? ERR_DENIED : ERR_INTERNAL, errno,
            "%s must be a directory and no link to one: remove it, or name another", path);
    if (st.st_uid != geteuid())
        return err_set(err, ERR_DENIED,
            "directory %s belongs to user %u, who could exchange what is in it: remove it, and it is made anew", path,
            (unsigned)st.st_uid);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(err, ERR_DENIED,
            "directory %s has mode %04o, so that others could "
            "exchange what is in it: look through it, then set 0700 (of a "
            "file system of its own: mount it with mode=0700)",
            path, (unsigned)st.st_mode & 07777);
    return 0;
}

static int file_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

/* Somebody else may remove parts of it at the same time, whole directories among them, over which a walk ends. */
int file_remove_tree(const char *path, struct err *err)
{
    struct stat st;
    for (unsigned i = 0; i < REMOVE_WALKS; i++) {
        if (nftw(path, file_remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0)
            return 0;
        if (errno != ENOENT)
            break;
        if (lstat(path, &st) < 0 && errno == ENOENT)
            return 0;
    }
    return err_errno(err, ERR_INTERNAL, errno, "cannot remove %s", path);
}
