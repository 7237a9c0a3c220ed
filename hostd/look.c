#include "hostd/look.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Where QEMU puts its locks: one byte for each thing it does or forbids (block/file-posix.c of QEMU calls them
 * permissions), the former from 100, the latter from 200 on. */
#define LOCKS_AT    100
#define LOCKS_BYTES 164

static bool locked(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCKS_AT, .l_len = LOCKS_BYTES};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* The header of qcow2 has it at byte 24, big-endian (QEMU's docs/interop/qcow2.txt). */
static uint64_t disk_bytes(int fd, const struct stat *st, const char *format)
{
    uint64_t bytes = 0;
    if (strcmp(format, "raw") == 0)
        return S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
    return pread(fd, &bytes, sizeof bytes, 24) == (ssize_t)sizeof bytes ? be64toh(bytes) : 0;
}

void look_at(const char *path, bool write, struct look *out)
{
    static const char qcow2[4] = {'Q', 'F', 'I', (char)0xfb};
    struct stat st;
    char begin[sizeof qcow2];
    *out = (struct look){.format = "raw"};
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        snprintf(out->problem, sizeof out->problem, "%s", strerror(errno));
        return;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        snprintf(out->problem, sizeof out->problem, "is neither a file nor a block device");
    else if (write && access(path, W_OK) < 0)
        snprintf(out->problem, sizeof out->problem, "cannot be written: %s", strerror(errno));
    if (out->problem[0])
        return;
    if (pread(fd, begin, sizeof begin, 0) == (ssize_t)sizeof begin && memcmp(begin, qcow2, sizeof qcow2) == 0)
        out->format = "qcow2";
    out->bytes = disk_bytes(fd, &st, out->format);
    out->inode = S_ISREG(st.st_mode) ? st.st_ino : 0;
    out->locked = locked(fd);
}
