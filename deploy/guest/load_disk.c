/* Disk writer: whole blocks past the page cache, so that each write is one request to the virtual disk. Only blocks
 * written since boot are checked: what was there before is somebody else's. */
#include "load.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <unistd.h>

#define DEVICE         "/dev/vda"
#define BLOCKS_MAX     4096 /* 16 MiB of the disk are enough */
#define TICK_NS        20000000ULL
#define RANDOM_PERCENT 50

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all of `disk` */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
    int fd;
    uint32_t *versions; /* 0: not written yet */
    uint64_t *buffer;
    uint64_t count;
    unsigned rate;
    uint64_t failed;
} disk = {.fd = -1};

static void write_block(uint64_t index)
{
    uint32_t version = disk.versions[index] + 1;
    pattern_fill(disk.buffer, index, version, RANDOM_PERCENT);
    if (pwrite(disk.fd, disk.buffer, PATTERN_BYTES, (off_t)(index * PATTERN_BYTES)) == PATTERN_BYTES) {
        disk.versions[index] = version;
        work_done(1);
    } else {
        disk.failed++;
    }
}

static void *writer(void *unused)
{
    (void)unused;
    uint64_t next = now_ns();
    unsigned seed = (unsigned)next;
    double due = 0;

    for (;;) {
        pthread_mutex_lock(&lock);
        while (disk.rate == 0) {
            pthread_cond_wait(&changed, &lock);
            next = now_ns();
        }
        due += disk.rate * TICK_NS / 1e9;
        for (; due >= 1; due--) {
            write_block((uint64_t)rand_r(&seed) % disk.count);
        }
        pthread_mutex_unlock(&lock);
        tick_wait(&next, TICK_NS);
    }
    return NULL;
}

/* Opens the device and starts the thread, once. */
static const char *begin(void)
{
    uint64_t bytes = 0;
    void *buffer = NULL;
    pthread_t thread;

    int fd = open(DEVICE, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0) {
        return "no writable disk " DEVICE;
    }
    if (ioctl(fd, BLKGETSIZE64, &bytes) != 0 || bytes < PATTERN_BYTES) {
        close(fd);
        return "the disk is too small";
    }
    disk.count = bytes / PATTERN_BYTES < BLOCKS_MAX ? bytes / PATTERN_BYTES : BLOCKS_MAX;
    disk.versions = calloc(disk.count, sizeof(*disk.versions));
    if (disk.versions == NULL || posix_memalign(&buffer, PATTERN_BYTES, PATTERN_BYTES) != 0) {
        free(disk.versions);
        close(fd);
        return "out of memory";
    }
    disk.buffer = buffer;
    disk.fd = fd;
    return pthread_create(&thread, NULL, writer, NULL) == 0 ? NULL : "cannot start a thread";
}

const char *load_disk(unsigned blocks_per_s)
{
    const char *problem = NULL;

    pthread_mutex_lock(&lock);
    if (disk.fd < 0 && blocks_per_s > 0) {
        problem = begin();
    }
    if (problem == NULL) {
        disk.rate = blocks_per_s;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return problem;
}

struct check load_disk_check(void)
{
    struct check check = {0};

    for (uint64_t i = 0; i < disk.count; i++) {
        pthread_mutex_lock(&lock);
        if (disk.versions[i] != 0) {
            check.units++;
            if (pread(disk.fd, disk.buffer, PATTERN_BYTES, (off_t)(i * PATTERN_BYTES)) != PATTERN_BYTES ||
                !pattern_matches(disk.buffer, i, disk.versions[i], RANDOM_PERCENT)) {
                check.corrupt++;
            }
        }
        pthread_mutex_unlock(&lock);
    }
    check.corrupt += disk.failed;
    return check;
}
