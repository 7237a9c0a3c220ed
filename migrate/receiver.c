#include "migrate/receiver.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <zmq.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/ensure.h"
#include "migrate/ack.h"
#include "migrate/batch.h"
#include "migrate/delta.h"
#include "migrate/listener.h"
#include "migrate/seal.h"

#define POLL_MS   100
#define ALIVE_MS  1000 /* so often at least a sender hears of who reads an image; far below SENDER_SILENCE_MS */
#define FRAME_MAX (BATCH_BYTES_MAX + SEAL_OVERHEAD)

struct applier {
    pthread_t thread;
    bool started;
    struct receiver *receiver;
    void *socket;
    char address[LISTENER_ADDRESS_MAX];
    struct seal *in, *out;
    struct image_cipher *cipher; /* NULL: there is no image */
    uint8_t *reused;             /* a run of its pages */
    const void *identity;        /* whom the message is from that is being applied */
    size_t identity_len;
    uint64_t applied_bytes, acked_ns;
    struct receiver_stats stats;
    struct batch batch; /* points into the message it came with */
};

struct receiver {
    struct receiver_options options;
    void *zmq;
    uv_async_t wake;
    atomic_bool stop;
    _Atomic(struct filler *) filler; /* post-copy */
    pthread_mutex_t lock;
    struct err failure; /* under the lock */
    bool reported;
    struct bitmap filled; /* pages that may hold something; a stripe writes its bits under the lock */
    struct applier appliers[];
};

static void applier_fail(struct applier *a, const struct err *err)
{
    struct receiver *r = a->receiver;
    pthread_mutex_lock(&r->lock);
    if (r->failure.code == ERR_NONE)
        r->failure = *err;
    pthread_mutex_unlock(&r->lock);
    uv_async_send(&r->wake);
}

/* Zero pages: only those that hold something need to be freed. */
static int applier_zero(struct applier *a, uint32_t first, uint32_t run, struct err *err)
{
    struct receiver *r = a->receiver;
    bool any = false;
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < run; i++) {
        any = any || bitmap_test(&r->filled, first + i);
        bitmap_unset(&r->filled, first + i);
    }
    pthread_mutex_unlock(&r->lock);
    for (uint32_t i = 0; r->options.digests && i < run; i++)
        digests_set(r->options.digests, first + i, (struct digest){0});
    return any ? ram_punch(r->options.ram, first, run, err) : 0;
}

static int applier_full(struct applier *a, uint32_t first, uint32_t run, const uint8_t *data, struct err *err)
{
    struct receiver *r = a->receiver;
    pthread_mutex_lock(&r->lock);
    bitmap_set_range(&r->filled, first, first + run);
    pthread_mutex_unlock(&r->lock);
    struct digests *digests = r->options.digests;
    for (uint32_t i = 0; digests && i < run; i++) {
        const uint8_t *page = data + (size_t)i * PAGE_BYTES;
        digests_set(digests, first + i, page_is_zero(page) ? (struct digest){0} : digests_make(digests, page));
    }
    return ram_write(r->options.ram, first, run, data, err);
}

/* The guest may run any moment: pages are put in place by the filler. */
static int applier_fill(struct filler *filler, const struct batch *b, const struct batch_run *run, struct err *err)
{
    if (run->kind != BATCH_ZERO && run->kind != BATCH_FULL)
        return err_set(err, ERR_PROTOCOL, "a page that comes after the switch can only come whole");
    return filler_fill(filler, run->first, run->pages, run->kind == BATCH_ZERO ? NULL : b->pages + run->at, err);
}

/* Each page was sent before, in an earlier pass; that was over, so it is here. */
static int applier_deltas(struct applier *a, const struct batch_run *run, struct err *err)
{
    const struct ram *ram = a->receiver->options.ram;
    uint8_t page[PAGE_BYTES];
    uint32_t at = run->at;
    for (uint32_t i = 0; i < run->pages; i++) {
        size_t len;
        const uint8_t *delta = batch_delta(&a->batch, &at, &len);
        if (ram_read(ram, run->first + i, 1, err, page) < 0 || delta_apply(delta, len, err, page) < 0 ||
            applier_full(a, run->first + i, 1, page, err) < 0)
            return -1;
    }
    return 0;
}

static int applier_ack(struct applier *a, struct err *err)
{
    uint8_t body[ACK_BODY_BYTES], ack[ACK_FRAME_BYTES];
    ack_encode(a->applied_bytes, body);
    seal_close(a->out, body, sizeof body, ack);
    a->acked_ns = clock_now_ns();
    /* The sender holds back once the window is used up, so its side of the connection takes the few acknowledgements.
     */
    if (zmq_send(a->socket, a->identity, a->identity_len, ZMQ_SNDMORE) < 0 ||
        zmq_send(a->socket, ack, sizeof ack, 0) < 0)
        return err_set(err, ERR_UNAVAILABLE, "connection to the source lost");
    return 0;
}

/* What is read is proved to be what was offered. A message names few bytes and much to read, so a slow disk is heard of
 * within it: nothing new is acknowledged, but somebody is at work. */
static int applier_reused(struct applier *a, const struct batch_run *run, struct err *err)
{
    if (!a->cipher)
        return err_set(err, ERR_PROTOCOL, "batch names pages of an image that was never offered");
    if (image_read(a->receiver->options.image, a->cipher, run->first, run->pages, err, a->reused) < 0 ||
        applier_full(a, run->first, run->pages, a->reused, err) < 0)
        return -1;
    return clock_now_ns() - a->acked_ns < ALIVE_MS * UINT64_C(1000000) ? 0 : applier_ack(a, err);
}

static int applier_run(struct applier *a, const struct batch_run *run, struct err *err)
{
    const struct batch *b = &a->batch;
    struct filler *filler = atomic_load(&a->receiver->filler);
    if (filler)
        return applier_fill(filler, b, run, err);
    switch ((enum batch_kind)run->kind) {
    case BATCH_ZERO:
        return applier_zero(a, run->first, run->pages, err);
    case BATCH_FULL:
        return applier_full(a, run->first, run->pages, b->pages + run->at, err);
    case BATCH_DELTA:
        return applier_deltas(a, run, err);
    case BATCH_REUSED:
        return applier_reused(a, run, err);
    case BATCH_KINDS:
        break;
    }
    return err_set(err, ERR_PROTOCOL, "batch has pages of an unknown kind");
}

static int applier_apply(struct applier *a, struct err *err)
{
    for (uint32_t i = 0; i < a->batch.runs; i++) {
        if (applier_run(a, &a->batch.run[i], err) < 0)
            return -1;
        a->stats.pages += a->batch.run[i].pages;
    }
    return 0;
}

static int applier_take(
    struct applier *a, uint8_t *frame, size_t len, const void *identity, size_t identity_len, struct err *err)
{
    struct err forged;
    a->identity = identity;
    a->identity_len = identity_len;
    if (len > FRAME_MAX || seal_open(a->in, frame, len, &forged, frame + SEAL_HEAD) < 0) {
        a->stats.dropped++;
        return 0;
    }
    if (batch_decode(frame + SEAL_HEAD, len - SEAL_OVERHEAD, a->receiver->options.ram->pages, err, &a->batch) < 0 ||
        applier_apply(a, err) < 0)
        return -1;
    a->stats.batches++;
    a->stats.wire_bytes += len;
    a->applied_bytes += len;
    return applier_ack(a, err);
}

/* Rests until this process may use CPU time again. */
static void applier_rest(const struct applier *a)
{
    struct quota *quota = a->receiver->options.quota;
    uint64_t wait_ns;
    while (quota && !atomic_load(&a->receiver->stop) && (wait_ns = quota_rest_ns(quota)) > 0)
        nanosleep(&(struct timespec){.tv_nsec = (long)wait_ns}, NULL);
}

static void *applier_main(void *arg)
{
    struct applier *a = arg;
    zmq_msg_t identity, frame;
    zmq_msg_init(&identity);
    zmq_msg_init(&frame);
    struct err err = {0};
    while (!atomic_load(&a->receiver->stop)) {
        zmq_pollitem_t item = {.socket = a->socket, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, POLL_MS) <= 0)
            continue;
        applier_rest(a);
        if (zmq_msg_recv(&identity, a->socket, ZMQ_DONTWAIT) < 0)
            continue;
        if (!zmq_msg_more(&identity) || zmq_msg_recv(&frame, a->socket, ZMQ_DONTWAIT) < 0)
            continue;
        bool more = zmq_msg_more(&frame);
        while (more) { /* ours have two parts; take the rest of a stranger's off the socket */
            zmq_msg_recv(&frame, a->socket, ZMQ_DONTWAIT);
            more = zmq_msg_more(&frame);
            a->stats.dropped++;
        }
        if (applier_take(a, zmq_msg_data(&frame), zmq_msg_size(&frame), zmq_msg_data(&identity),
                zmq_msg_size(&identity), &err) < 0) {
            applier_fail(a, &err);
            break;
        }
    }
    zmq_msg_close(&identity);
    zmq_msg_close(&frame);
    return NULL;
}

static void receiver_woken(uv_async_t *async)
{
    struct receiver *r = async->data;
    pthread_mutex_lock(&r->lock);
    struct err failure = r->failure;
    pthread_mutex_unlock(&r->lock);
    if (failure.code == ERR_NONE || r->reported)
        return;
    r->reported = true;
    r->options.on_failed(r->options.user, &failure);
}

static int applier_start(struct applier *a, struct receiver *r, uint32_t index, struct err *err)
{
    a->receiver = r;
    a->in = seal_new(r->options.key, SEAL_TO_DESTINATION, index);
    a->out = seal_new(r->options.key, SEAL_TO_SOURCE, index);
    if (r->options.image) {
        a->cipher = image_cipher_new(image_key(r->options.image));
        a->reused = mem_alloc(BATCH_RUN_PAGES * PAGE_BYTES);
    }
    if (listener_open(r->zmq, r->options.host, r->options.from, FRAME_MAX, err, a->address, &a->socket) < 0)
        return -1;
    int rc = pthread_create(&a->thread, NULL, applier_main, a);
    if (rc != 0)
        return err_errno(err, ERR_INTERNAL, rc, "cannot start a thread");
    a->started = true;
    return 0;
}

int receiver_open(uv_loop_t *loop, const struct receiver_options *options, struct err *err, struct receiver **out)
{
    struct receiver *r = mem_zalloc(sizeof *r + options->stripes * sizeof *r->appliers);
    r->options = *options;
    r->filled = bitmap_new(options->ram->pages);
    r->zmq = zmq_ctx_new();
    ENSURE(r->zmq != NULL);
    zmq_ctx_set(r->zmq, ZMQ_IO_THREADS, (int)options->stripes);
    pthread_mutex_init(&r->lock, NULL);
    ENSURE(uv_async_init(loop, &r->wake, receiver_woken) == 0);
    r->wake.data = r;
    atomic_store(&r->filler, options->filler);
    if (!options->filler && ram_punch(options->ram, 0, options->ram->pages, err) < 0)
        goto fail;
    for (uint32_t i = 0; i < options->stripes; i++)
        if (applier_start(&r->appliers[i], r, i, err) < 0)
            goto fail;
    *out = r;
    return 0;
fail:
    receiver_close(r, NULL);
    return -1;
}

const char *receiver_address(const struct receiver *receiver, uint32_t index)
{
    return receiver->appliers[index].address;
}

void receiver_fill(struct receiver *r, struct filler *filler)
{
    atomic_store(&r->filler, filler);
}

static void receiver_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void receiver_close(struct receiver *r, struct receiver_stats *stats)
{
    if (!r)
        return;
    struct receiver_stats sum = {0};
    atomic_store(&r->stop, true);
    for (uint32_t i = 0; i < r->options.stripes; i++) {
        struct applier *a = &r->appliers[i];
        if (a->started)
            pthread_join(a->thread, NULL);
        sum.batches += a->stats.batches;
        sum.pages += a->stats.pages;
        sum.wire_bytes += a->stats.wire_bytes;
        sum.dropped += a->stats.dropped;
        if (a->socket)
            zmq_close(a->socket);
        seal_free(a->in);
        seal_free(a->out);
        image_cipher_free(a->cipher);
        free(a->reused);
    }
    if (stats)
        *stats = sum;
    zmq_ctx_term(r->zmq);
    bitmap_free(&r->filled);
    pthread_mutex_destroy(&r->lock);
    uv_close((uv_handle_t *)&r->wake, receiver_closed);
}
