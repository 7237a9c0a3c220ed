/* wp-sync: the writer of a protected page waits until our thread has noted the page and lifted its protection.
 * tracker.h has the contract.
 *
 *   writer:   fault -> waits ...................... -> goes on
 *   handler:           reads the fault -> [ notes page, unprotects it ]   under the lock
 *   scan:     [ takes the noted pages ] -> protects them -> returns       [ ] under the lock
 *
 * What must hold: a page that is not protected is noted, or has been taken by a scan that has not returned yet, and a
 * page is read for sending only after the scan that took it has returned. So a write that comes before the scan's
 * protection is in what is read later, and one that comes after it faults and is noted for the next scan. Noting and
 * unprotecting must not be torn apart by a scan: a page noted before it and unprotected after it would be written
 * unseen. A fault told late, when its page has been taken and protected again, costs one more note and nothing else.
 *
 * A hole in the file is protected like any page: the kernel leaves a marker where none is mapped. */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/ensure.h"
#include "base/log.h"
#include "migrate/guardian.h"
#include "migrate/tracker_private.h"
#include "migrate/uffd.h"

#define FAULTS_AT_ONCE 64
/* One call protects a range; protecting what is protected already does no harm. Runs so close are cheaper as one. */
#define GAP_PAGES 16u
/* Beyond this many ranges a single one is cheaper, from the first page to the last. */
#define RANGES_MAX 4096u

struct sync {
    struct uffd uffd;
    size_t pages;
    struct guardian *guardian;
    pthread_t handler;
    bool started;
    int stop_fd;
    pthread_mutex_t lock;
    struct bitmap noted; /* under the lock */
    struct err failure;  /* under the lock; once set, writes may have gone unseen */
    struct bitmap taken; /* the scan's, otherwise empty */
};

/* Protects pages [first, end), or lets writes to them through and wakes who waits for that. Returns an errno. */
static int sync_protect(const struct sync *s, size_t first, size_t end, bool protect)
{
    struct uffdio_writeprotect range = {
        .range = {s->uffd.address + first * PAGE_BYTES, (end - first) * PAGE_BYTES},
        .mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };
    int rc;
    do
        rc = ioctl(s->uffd.fd, UFFDIO_WRITEPROTECT, &range);
    while (rc < 0 && (errno == EAGAIN || errno == EINTR));
    return rc < 0 ? errno : 0;
}

/* ---- the handler's thread ---- */

/* From here on nothing is tracked: the guest goes on, and the next scan says why. */
static void sync_fail(struct sync *s, const struct err *err)
{
    log_event(LOG_WARN, "tracker.failed", "message=%s", LOG_QUOTE(err->message));
    pthread_mutex_lock(&s->lock);
    s->failure = *err;
    pthread_mutex_unlock(&s->lock);
    uffd_unwatch(&s->uffd);
}

static int sync_let_through(struct sync *s, uint64_t address, struct err *err)
{
    size_t page = (size_t)(address - s->uffd.address) / PAGE_BYTES;
    if (address < s->uffd.address || page >= s->pages)
        return err_set(err, ERR_INTERNAL, "the kernel tells of a write outside of guest RAM");
    bitmap_set(&s->noted, page);
    int why = sync_protect(s, page, page + 1, false);
    return why ? err_errno(err, ERR_INTERNAL, why, "cannot let the guest write to its memory") : 0;
}

static int sync_handle(struct sync *s, struct err *err)
{
    struct uffd_msg faults[FAULTS_AT_ONCE];
    ssize_t n = read(s->uffd.fd, faults, sizeof faults);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) /* who waited has gone on */
        return 0;
    if (n < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot read the guest's faults");
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < (size_t)n / sizeof *faults && rc == 0; i++)
        if (faults[i].event == UFFD_EVENT_PAGEFAULT)
            rc = sync_let_through(s, faults[i].arg.pagefault.address, err);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static void *sync_main(void *arg)
{
    struct sync *s = arg;
    struct err err;
    struct pollfd polled[] = {{.fd = s->uffd.fd, .events = POLLIN}, {.fd = s->stop_fd, .events = POLLIN},
        {.fd = guardian_fd(s->guardian), .events = POLLIN}};
    for (;;) {
        if (poll(polled, 3, -1) < 0 && errno != EINTR) {
            err_errno(&err, ERR_INTERNAL, errno, "cannot wait for the guest's faults");
            break;
        }
        if (polled[1].revents)
            return NULL;
        if (polled[2].revents) {
            err_set(&err, ERR_UNAVAILABLE, "the guardian of the guest's memory was killed; try again");
            break;
        }
        if (polled[0].revents && sync_handle(s, &err) < 0)
            break;
    }
    sync_fail(s, &err);
    return NULL;
}

/* ---- the engine's thread ---- */

/* What failed first is why: who gives up tracking unwatches the memory, and then nobody can protect it. */
static int sync_protect_failed(struct sync *s, int why, struct err *err)
{
    pthread_mutex_lock(&s->lock);
    struct err failure = s->failure;
    pthread_mutex_unlock(&s->lock);
    if (failure.code == ERR_NONE)
        return err_errno(err, ERR_INTERNAL, why, "cannot protect guest RAM again");
    *err = failure;
    return -1;
}

static int sync_scan(void *state, struct err *err, struct bitmap *written)
{
    struct sync *s = state;
    pthread_mutex_lock(&s->lock);
    struct err failure = s->failure;
    struct bitmap swap = s->taken;
    s->taken = s->noted;
    s->noted = swap;
    pthread_mutex_unlock(&s->lock);
    if (failure.code != ERR_NONE) {
        *err = failure;
        return -1;
    }
    bitmap_add(written, &s->taken);
    size_t first, end = 0, gap = bitmap_close_gaps(&s->taken, GAP_PAGES) > RANGES_MAX ? s->pages : 0;
    if (gap)
        bitmap_close_gaps(&s->taken, gap);
    int why = 0;
    while (!why && bitmap_next_run(&s->taken, end, &first, &end))
        why = sync_protect(s, first, end, true);
    bitmap_clear(&s->taken);
    return why ? sync_protect_failed(s, why, err) : 0;
}

/* A word at a time: where a few of its pages are noted, one call protects all from the first to the last. */
static int sync_rescan(void *state, size_t first, size_t pages, struct err *err, struct bitmap *written)
{
    struct sync *s = state;
    int why = 0;
    for (size_t word = first / 64; word * 64 < first + pages && !why; word++) {
        pthread_mutex_lock(&s->lock);
        uint64_t noted = s->noted.words[word];
        s->noted.words[word] = 0;
        pthread_mutex_unlock(&s->lock);
        written->words[word] |= noted;
        if (noted)
            why = sync_protect(
                s, word * 64 + (size_t)__builtin_ctzll(noted), word * 64 + 64 - (size_t)__builtin_clzll(noted), true);
    }
    return why ? sync_protect_failed(s, why, err) : 0;
}

static void sync_close(void *state)
{
    struct sync *s = state;
    if (s->started) {
        ENSURE(eventfd_write(s->stop_fd, 1) == 0);
        pthread_join(s->handler, NULL);
    }
    uffd_unwatch(&s->uffd); /* lifts the protection and wakes who has begun to wait since */
    guardian_dismiss(s->guardian);
    uffd_close(&s->uffd);
    if (s->stop_fd >= 0)
        close(s->stop_fd);
    pthread_mutex_destroy(&s->lock);
    bitmap_free(&s->noted);
    bitmap_free(&s->taken);
    free(s);
}

/* Guardian and handler are there before the first page is protected. */
static int sync_begin(struct sync *s, pid_t pid, const struct ram *ram, int lock_fd, struct err *err)
{
    if (uffd_open(pid, ram, UFFD_TRACK_SYNC, err, &s->uffd) < 0)
        return -1;
    s->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (s->stop_fd < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot make an event descriptor");
    if (guardian_start(&s->uffd, lock_fd, err, &s->guardian) < 0)
        return -1;
    int rc = pthread_create(&s->handler, NULL, sync_main, s);
    if (rc != 0)
        return err_errno(err, ERR_INTERNAL, rc, "cannot start a thread");
    s->started = true;
    if (uffd_watch(&s->uffd, UFFDIO_REGISTER_MODE_WP, err) < 0)
        return -1;
    int why = sync_protect(s, 0, s->pages, true);
    return why ? err_errno(err, ERR_INTERNAL, why, "cannot write-protect guest RAM") : 0;
}

static int sync_open(pid_t pid, const struct ram *ram, int lock_fd, struct err *err, void **out)
{
    struct sync *s = mem_zalloc(sizeof *s);
    s->uffd = UFFD_CLOSED;
    s->stop_fd = -1;
    s->pages = ram->pages;
    s->noted = bitmap_new(ram->pages);
    s->taken = bitmap_new(ram->pages);
    pthread_mutex_init(&s->lock, NULL);
    if (sync_begin(s, pid, ram, lock_fd, err) < 0) {
        sync_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

const struct tracker_backend tracker_sync = {"wp-sync", sync_open, sync_scan, sync_rescan, sync_close};
