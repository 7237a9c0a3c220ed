/* Disk reader: runs of blocks, past the page cache, so that the disk writes the guest's memory itself. The second half
 * of what BLOCKS counts is written once with the pattern; from then on readers fill rings of buffers from it, each
 * buffer with another run than before, and a buffer is checked before it is used again: a read whose data has not all
 * arrived, or was lost by a move, is found. */
#include "load.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEVICE         "/dev/vda"
#define FIRST_BLOCK    4096 /* behind those of load_disk.c */
#define BLOCKS         2048
#define RUN_BLOCKS     64
#define RUN_BYTES      (RUN_BLOCKS * PATTERN_BYTES)
#define RUNS           (BLOCKS / RUN_BLOCKS)
#define READERS        4
#define SLOTS          12 /* a ring; more would not fit a small guest */
#define TICK_NS        20000000ULL
#define RANDOM_PERCENT 50

struct reader {
    pthread_mutex_t lock; /* of what is below; held while a run is read */
    uint8_t *slots;
    int64_t run[SLOTS]; /* what the slot holds; -1: nothing */
    unsigned next, seed;
    uint64_t corrupt;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what is below */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int fd = -1;
static unsigned rate; /* runs per second, of all readers */
static struct reader readers[READERS];

static bool slot_intact(const struct reader *reader, unsigned slot)
{
    bool intact = true;

    for (unsigned i = 0; reader->run[slot] >= 0 && i < RUN_BLOCKS; i++) {
        const void *page = reader->slots + (slot * RUN_BLOCKS + i) * PATTERN_BYTES;
        intact = pattern_matches(page, (uint64_t)(reader->run[slot] * RUN_BLOCKS + i), 0, RANDOM_PERCENT) && intact;
    }
    return intact;
}

static void read_run(struct reader *reader)
{
    unsigned slot = reader->next++ % SLOTS;
    int64_t run = rand_r(&reader->seed) % RUNS;
    off_t at = (off_t)(FIRST_BLOCK + run * RUN_BLOCKS) * PATTERN_BYTES;

    reader->corrupt += !slot_intact(reader, slot);
    if (pread(fd, reader->slots + (size_t)slot * RUN_BYTES, RUN_BYTES, at) != RUN_BYTES) {
        reader->corrupt++;
    }
    reader->run[slot] = run;
}

static void *reader_main(void *arg)
{
    struct reader *reader = arg;
    uint64_t next = now_ns();
    double due = 0;

    for (;;) {
        pthread_mutex_lock(&lock);
        while (rate == 0) {
            pthread_cond_wait(&changed, &lock);
            next = now_ns();
        }
        due += (double)rate / READERS * TICK_NS / 1e9;
        pthread_mutex_unlock(&lock);
        for (; due >= 1; due--) {
            pthread_mutex_lock(&reader->lock);
            read_run(reader);
            pthread_mutex_unlock(&reader->lock);
        }
        tick_wait(&next, TICK_NS);
    }
    return NULL;
}

static const char *reader_start(struct reader *reader, unsigned seed)
{
    void *slots = NULL;
    pthread_t thread;

    if (posix_memalign(&slots, PATTERN_BYTES, (size_t)SLOTS * RUN_BYTES) != 0) {
        return "out of memory";
    }
    reader->slots = slots;
    reader->seed = seed;
    for (unsigned i = 0; i < SLOTS; i++) {
        reader->run[i] = -1;
    }
    pthread_mutex_init(&reader->lock, NULL);
    return pthread_create(&thread, NULL, reader_main, reader) == 0 ? NULL : "cannot start a thread";
}

/* Writes the pattern and starts the readers, once. */
static const char *begin(void)
{
    uint64_t bytes = 0;
    void *run = NULL;
    const char *problem = NULL;

    fd = open(DEVICE, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0) {
        return "no writable disk " DEVICE;
    }
    if (ioctl(fd, BLKGETSIZE64, &bytes) != 0 || bytes < (uint64_t)(FIRST_BLOCK + BLOCKS) * PATTERN_BYTES) {
        problem = "the disk is too small";
    } else if (posix_memalign(&run, PATTERN_BYTES, RUN_BYTES) != 0) {
        problem = "out of memory";
    }
    for (uint64_t block = 0; problem == NULL && block < BLOCKS; block++) {
        uint64_t *page = (uint64_t *)run + block % RUN_BLOCKS * (PATTERN_BYTES / sizeof(uint64_t));
        pattern_fill(page, block, 0, RANDOM_PERCENT);
        off_t at = (off_t)(FIRST_BLOCK + block / RUN_BLOCKS * RUN_BLOCKS) * PATTERN_BYTES;
        if (block % RUN_BLOCKS == RUN_BLOCKS - 1 && pwrite(fd, run, RUN_BYTES, at) != RUN_BYTES) {
            problem = "the disk cannot be written";
        }
    }
    free(run);
    for (unsigned i = 0; problem == NULL && i < READERS; i++) {
        problem = reader_start(&readers[i], i + 1);
    }
    if (problem != NULL) {
        close(fd);
        fd = -1;
    }
    return problem;
}

const char *load_read(unsigned runs_per_s)
{
    const char *problem = NULL;

    pthread_mutex_lock(&lock);
    if (fd < 0 && runs_per_s > 0) {
        problem = begin();
    }
    if (problem == NULL) {
        rate = runs_per_s;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return problem;
}

struct check load_read_check(void)
{
    struct check check = {0};

    for (unsigned i = 0; i < READERS && readers[i].slots != NULL; i++) {
        struct reader *reader = &readers[i];
        pthread_mutex_lock(&reader->lock);
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            check.units += reader->run[slot] >= 0 ? RUN_BLOCKS : 0;
            check.corrupt += !slot_intact(reader, slot);
        }
        check.corrupt += reader->corrupt;
        pthread_mutex_unlock(&reader->lock);
    }
    return check;
}
