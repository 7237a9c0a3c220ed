#include "hostd/look.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
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

/* Unlike the inode's number, which file systems made alike give to the first file alike. */
static uint64_t born_ms(int fd)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) < 0 || !(st.stx_mask & STATX_BTIME) || st.stx_btime.tv_sec < 0)
        return 0;
    return (uint64_t)st.stx_btime.tv_sec * 1000 + st.stx_btime.tv_nsec / 1000000;
}

/* What names a device wherever it is reached: a mapped one's UUID (with LVM's, of group and volume), or what the disk
 * itself says. The kinds do not compare with each other. */
static void device_name(dev_t device, char out[static sizeof(((struct look *)0)->device)])
{
    static const char *const kinds[] = {"dm/uuid", "wwid", "device/wwid"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64], text[128];
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major(device), minor(device), kinds[i]);
        cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (got <= 0)
            continue;
        text[got] = '\0';
        text[strcspn(text, "\n")] = '\0';
        if (!text[0])
            continue;
        snprintf(out, sizeof(((struct look *)0)->device), "%s:%s", kinds[i], text);
        return;
    }
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
    if (S_ISREG(st.st_mode)) {
        out->inode = st.st_ino;
        out->born_ms = born_ms(fd);
    } else {
        device_name(st.st_rdev, out->device);
    }
    out->locked = locked(fd);
}
