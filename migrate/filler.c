#include "migrate/filler.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/ensure.h"
#include "migrate/pages.h"
#include "migrate/uffd.h"

#define FAULTS_AT_ONCE 32
#define PUNCH_TRIES    3

struct wanted {
    uint32_t page;
    bool asked;
    uint64_t since_ns;
};

struct filler {
    struct filler_options options;
    struct uffd uffd;
    struct pages pages;
    uv_async_t wake;
    pthread_t thread;
    bool started;
    int stop_fd;
    bool told_complete, told_failed, released;

    pthread_mutex_t lock; /* of what follows */
    struct wanted wanted[FILLER_WANTED_MAX];
    size_t wanted_count;
    bool news; /* wanted pages nobody has taken */
    struct filler_stats stats;
    struct err failure;
};

/* ---- putting pages in place ---- */

static void filler_arrived(struct filler *f, size_t page)
{
    if (!pages_finish(&f->pages, page))
        return;
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->wanted_count; i++)
        if (f->wanted[i].page == page) {
            latency_add(&f->stats.waits, (clock_now_ns() - f->wanted[i].since_ns) / 1000);
            f->wanted[i] = f->wanted[--f->wanted_count];
            break;
        }
    pthread_mutex_unlock(&f->lock);
}

/* One call to the kernel. Returns how many pages it put in place; 0: see errno. */
static size_t filler_place(struct filler *f, size_t page, size_t count, const uint8_t *data)
{
    uint64_t address = f->uffd.address + page * PAGE_BYTES, len = count * PAGE_BYTES;
    int64_t placed;
    int rc;
    if (data) {
        struct uffdio_copy copy = {.dst = address, .src = (uint64_t)(uintptr_t)data, .len = len};
        rc = ioctl(f->uffd.fd, UFFDIO_COPY, &copy);
        placed = copy.copy;
    } else {
        struct uffdio_zeropage zero = {.range = {address, len}};
        rc = ioctl(f->uffd.fd, UFFDIO_ZEROPAGE, &zero);
        placed = zero.zeropage;
    }
    if (rc == 0)
        return count;
    return placed > 0 ? (size_t)placed / PAGE_BYTES : 0;
}

/* Puts claimed pages in place. */
static int filler_place_all(struct filler *f, size_t first, size_t count, const uint8_t *data, struct err *err)
{
    for (size_t i = 0; i < count;) {
        size_t placed = filler_place(f, first + i, count - i, data ? data + i * PAGE_BYTES : NULL);
        if (placed == 0 && errno == EEXIST) {
            /* It was a hole and nothing but this puts it there. It may hold what the guest wrote: it stays. */
            log_event(LOG_ERROR, "page.there_already", "page=%zu", first + i);
            placed = 1;
        } else if (placed == 0 && errno != EAGAIN && errno != EINTR) {
            int why = errno;
            for (size_t k = i; k < count; k++)
                pages_unclaim(&f->pages, first + k);
            return err_errno(err, why == ENOMEM || why == ENOSPC ? ERR_CAPACITY : ERR_INTERNAL, why,
                "cannot put page %zu of guest RAM in place", first + i);
        }
        for (size_t k = 0; k < placed; k++)
            filler_arrived(f, first + i + k);
        i += placed;
    }
    if (pages_complete(&f->pages))
        uv_async_send(&f->wake);
    return 0;
}

int filler_fill(struct filler *f, size_t first, size_t count, const uint8_t *data, struct err *err)
{
    ENSURE(first + count <= f->pages.count);
    uint64_t late = 0;
    for (size_t i = 0, run; i < count; i += run) {
        for (run = 0; i + run < count && pages_claim(&f->pages, first + i + run); run++)
            continue;
        if (run == 0) {
            late++;
            run = 1;
        } else if (filler_place_all(f, first + i, run, data ? data + i * PAGE_BYTES : NULL, err) < 0) {
            return -1;
        }
    }
    if (late > 0) {
        pthread_mutex_lock(&f->lock);
        f->stats.late_copies += late;
        pthread_mutex_unlock(&f->lock);
    }
    return 0;
}

/* ---- faults ---- */

static void filler_wake(struct filler *f, size_t page)
{
    struct uffdio_range range = {f->uffd.address + page * PAGE_BYTES, PAGE_BYTES};
    (void)ioctl(f->uffd.fd, UFFDIO_WAKE, &range); /* whoever waited may have gone on, or QEMU ended */
}

static void filler_fail(struct filler *f, const struct err *err)
{
    pthread_mutex_lock(&f->lock);
    if (f->failure.code == ERR_NONE)
        f->failure = *err;
    pthread_mutex_unlock(&f->lock);
    uv_async_send(&f->wake);
}

static void filler_zero(struct filler *f, size_t page)
{
    while (filler_place(f, page, 1, NULL) == 0 && (errno == EAGAIN || errno == EINTR))
        continue;
    filler_wake(f, page); /* if it was there by then, whoever waits finds it */
}

/* A page that was never allocated at the source. */
static void filler_fault_zero(struct filler *f, size_t page)
{
    pthread_mutex_lock(&f->lock);
    f->stats.zero_faults++;
    pthread_mutex_unlock(&f->lock);
    filler_zero(f, page);
}

static void filler_fault_stale(struct filler *f, size_t page)
{
    /* Under the lock, so that whoever brings the page finds it in the list. */
    pthread_mutex_lock(&f->lock);
    bool wanted = f->wanted_count < FILLER_WANTED_MAX && pages_want(&f->pages, page);
    if (wanted) {
        f->wanted[f->wanted_count++] = (struct wanted){.page = (uint32_t)page, .since_ns = clock_now_ns()};
        f->news = true;
    }
    pthread_mutex_unlock(&f->lock);
    if (wanted)
        uv_async_send(&f->wake);
    else if (pages_is_done(&f->pages, page)) /* it came meanwhile; or the guest has freed it since (balloon) */
        filler_zero(f, page);
}

static void *filler_main(void *arg)
{
    struct filler *f = arg;
    struct pollfd polled[2] = {{.fd = f->uffd.fd, .events = POLLIN}, {.fd = f->stop_fd, .events = POLLIN}};
    struct uffd_msg faults[FAULTS_AT_ONCE];
    struct err err;
    for (;;) {
        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            break;
        if (polled[1].revents)
            return NULL;
        if (polled[0].revents & (POLLERR | POLLHUP | POLLNVAL))
            break;
        ssize_t n = read(f->uffd.fd, faults, sizeof faults);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            break;
        for (ssize_t i = 0; i < n / (ssize_t)sizeof *faults; i++) {
            size_t page = (size_t)(faults[i].arg.pagefault.address - f->uffd.address) / PAGE_BYTES;
            if (faults[i].event != UFFD_EVENT_PAGEFAULT || page >= f->pages.count)
                continue;
            if (pages_is_stale(&f->pages, page))
                filler_fault_stale(f, page);
            else
                filler_fault_zero(f, page);
        }
    }
    err_set(&err, ERR_INTERNAL, "page faults of QEMU are not seen any more");
    filler_fail(f, &err);
    return NULL;
}

static void filler_woken(uv_async_t *async)
{
    struct filler *f = async->data;
    pthread_mutex_lock(&f->lock);
    struct err failure = f->failure;
    bool news = f->news;
    f->news = false;
    pthread_mutex_unlock(&f->lock);
    if (failure.code != ERR_NONE && !f->told_failed) {
        f->told_failed = true;
        f->options.on_failed(f->options.user, &failure);
        return;
    }
    if (news)
        f->options.on_wanted(f->options.user);
    if (pages_complete(&f->pages) && !f->told_complete && !f->released) {
        f->told_complete = true;
        f->options.on_complete(f->options.user);
    }
}

size_t filler_take_wanted(struct filler *f, bool again, uint32_t out[static FILLER_WANTED_MAX])
{
    size_t count = 0;
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->wanted_count; i++) {
        if (f->wanted[i].asked && !again)
            continue;
        f->wanted[i].asked = true;
        out[count++] = f->wanted[i].page;
    }
    pthread_mutex_unlock(&f->lock);
    return count;
}

/* ---- stale pages ---- */

static int filler_free_run(struct filler *f, size_t first, size_t count, struct err *err)
{
    /* A part of a huge page may be cleared instead of freed while somebody holds it; then it would not fault. */
    for (int i = 0; i < PUNCH_TRIES; i++) {
        if (ram_punch(f->options.ram, first, count, err) < 0)
            return -1;
        if (ram_is_hole(f->options.ram, first, count))
            return 0;
    }
    return err_set(err, ERR_INTERNAL, "page %zu of %s cannot be freed", first, f->options.ram->path);
}

int filler_stale(struct filler *f, size_t index, const uint64_t *words, size_t count, struct err *err)
{
    size_t total = (f->pages.count + 63) / 64, tail = f->pages.count % 64;
    if (atomic_load(&f->pages.sealed) || index > total || count > total - index || count == 0 ||
        (index + count == total && tail && words[count - 1] >> tail))
        return err_set(err, ERR_PROTOCOL, "stale pages beyond the end of RAM, or too late");
    struct bitmap fresh = bitmap_new(count * 64);
    size_t first, end = 0, named = 0;
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        fresh.words[i] = pages_add_stale(&f->pages, index + i, words[i]);
        named += (size_t)__builtin_popcountll(fresh.words[i]);
    }
    while (rc == 0 && bitmap_next_run(&fresh, end, &first, &end))
        rc = filler_free_run(f, index * 64 + first, end - first, err);
    bitmap_free(&fresh);
    pthread_mutex_lock(&f->lock);
    f->stats.stale += named;
    pthread_mutex_unlock(&f->lock);
    return rc;
}

void filler_seal(struct filler *f)
{
    pages_seal(&f->pages);
    uv_async_send(&f->wake); /* there may be nothing to wait for */
}

void filler_missing(const struct filler *f, size_t index, size_t count, uint64_t *words)
{
    ENSURE((index + count - 1) * 64 < f->pages.count);
    for (size_t i = 0; i < count; i++)
        words[i] = pages_missing_word(&f->pages, index + i);
}

bool filler_complete(const struct filler *f)
{
    return pages_complete(&f->pages);
}

void filler_stats(struct filler *f, struct filler_stats *out)
{
    pthread_mutex_lock(&f->lock);
    *out = f->stats;
    pthread_mutex_unlock(&f->lock);
}

/* ---- life ---- */

/* Are faults of the kernel seen that serve QEMU's system calls? An unprivileged userfaultfd sees only those of user
 * mode, and a read(2) into a missing page fails then. No flag tells, so it is tried: a read of QEMU's memory from here
 * faults in kernel mode. The page is put back; the guest has never run. */
static int filler_probe(struct filler *f, struct err *err)
{
    uint8_t *saved = mem_alloc(PAGE_BYTES), got;
    int rc = -1;
    if (ram_read(f->options.ram, 0, 1, err, saved) < 0 || ram_punch(f->options.ram, 0, 1, err) < 0)
        goto done;
    struct iovec local = {&got, 1}, remote = {(void *)(uintptr_t)f->uffd.address, 1}; // NOLINT: QEMU's address
    ssize_t n = process_vm_readv(f->options.pid, &local, 1, &remote, 1, 0);
    if (n != 1) {
        err_set(err, ERR_UNSUPPORTED,
            "QEMU's userfaultfd sees no faults of the kernel, so the guest cannot run before all of its memory is "
            "here; "
            "start the VM with sysctl vm.unprivileged_userfaultfd=1 to use post-copy");
        goto done;
    }
    rc = page_is_zero(saved) ? ram_punch(f->options.ram, 0, 1, err) : ram_write(f->options.ram, 0, 1, saved, err);
done:
    free(saved);
    return rc;
}

int filler_open(uv_loop_t *loop, const struct filler_options *options, struct err *err, struct filler **out)
{
    struct filler *f = mem_zalloc(sizeof *f);
    f->options = *options;
    f->uffd = UFFD_CLOSED;
    pages_init(&f->pages, options->ram->pages);
    pthread_mutex_init(&f->lock, NULL);
    ENSURE(uv_async_init(loop, &f->wake, filler_woken) == 0);
    f->wake.data = f;
    f->stop_fd = eventfd(0, EFD_CLOEXEC);
    ENSURE(f->stop_fd >= 0);
    if (uffd_open(options->pid, options->ram, UFFD_FETCH, err, &f->uffd) < 0 ||
        uffd_watch(&f->uffd, UFFDIO_REGISTER_MODE_MISSING, err) < 0)
        goto fail;
    int rc = pthread_create(&f->thread, NULL, filler_main, f);
    if (rc != 0) {
        err_errno(err, ERR_INTERNAL, rc, "cannot start a thread");
        goto fail;
    }
    f->started = true;
    if (filler_probe(f, err) < 0)
        goto fail;
    pthread_mutex_lock(&f->lock);
    f->stats = (struct filler_stats){0};
    pthread_mutex_unlock(&f->lock);
    *out = f;
    return 0;
fail:
    filler_release(f);
    filler_close(f);
    return err_wrap(err, "post-copy");
}

void filler_release(struct filler *f)
{
    f->released = true;
    uffd_unwatch(&f->uffd);
}

static void filler_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void filler_close(struct filler *f)
{
    if (!f)
        return;
    if (f->started) {
        ENSURE(eventfd_write(f->stop_fd, 1) == 0);
        pthread_join(f->thread, NULL);
    }
    close(f->stop_fd);
    uffd_close(&f->uffd);
    pages_free(&f->pages);
    pthread_mutex_destroy(&f->lock);
    uv_close((uv_handle_t *)&f->wake, filler_closed);
}
