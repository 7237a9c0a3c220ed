#include "migrate/sender.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/ensure.h"
#include "migrate/ack.h"
#include "migrate/hostidle.h"
#include "migrate/pressure.h"
#include "migrate/sieve.h"

/* A worker takes this many words (64 pages each) of the bitmap at a time: 4 MiB of guest RAM. */
#define CLAIM_WORDS 16u
#define READ_PAGES  16u /* looked at together, while the cache holds them */
#define POLL_MS     100

struct worker {
    pthread_t thread;
    bool started;
    struct sender *sender;
    uint32_t index;
    void *socket;
    struct seal *out, *in;
    uint64_t sent_bytes, acked_bytes; /* of sealed messages, since the beginning */
    uint64_t heard_ns;                /* when the receiver last acknowledged something */
    size_t word, word_end;            /* the claimed part of the bitmap */
    uint64_t rest;                    /* pages of `word` not taken yet */
    struct sender_stats stats;        /* of this pass */
    struct pressure pressure;
    struct sieve sieve;
    struct image_cipher *cipher;       /* of the offer; NULL: there is none */
    struct iovec pieces[BATCH_PIECES]; /* of the message that is to be sent */
    uint8_t packed[BATCH_BYTES_MAX];
};

struct sender {
    struct sender_options options;
    uint8_t key[SEAL_KEY_BYTES];
    void *zmq;
    uv_async_t wake;

    pthread_mutex_t lock;
    pthread_cond_t begin;
    uint64_t pass; /* number of the current pass, under the lock */
    uint32_t busy; /* workers still in it, under the lock */
    struct err failure;
    const struct bitmap *pages;
    _Atomic uint64_t *taken; /* NULL: a pass of pre-copy */
    uint64_t window_bytes;
    uint64_t started_ns;

    struct hostidle idle; /* the first worker looks */
    atomic_size_t cursor; /* next word to claim */
    atomic_bool stop;
    bool reported;
    struct worker workers[];
};

static void worker_fail(struct worker *w, const struct err *err)
{
    struct sender *s = w->sender;
    pthread_mutex_lock(&s->lock);
    if (s->failure.code == ERR_NONE)
        s->failure = *err;
    pthread_mutex_unlock(&s->lock);
    atomic_store(&s->stop, true);
    uv_async_send(&s->wake);
}

/* The pages of a word that this pass has to send. In a push they are claimed here, once and for all. */
static uint64_t worker_word(const struct worker *w, size_t word)
{
    uint64_t pages = w->sender->pages->words[word];
    _Atomic uint64_t *taken = w->sender->taken;
    return pages && taken ? pages & ~atomic_fetch_or(&taken[word], pages) : pages;
}

/* Claims a part of the bitmap that has pages; 0: there is none left. */
static int worker_claim(struct worker *w, struct err *err)
{
    const struct sender *s = w->sender;
    size_t words = bitmap_words(s->pages);
    do {
        size_t claim = atomic_fetch_add(&w->sender->cursor, CLAIM_WORDS);
        if (claim >= words)
            return 0;
        w->word = claim;
        w->word_end = claim + CLAIM_WORDS < words ? claim + CLAIM_WORDS : words;
        while (w->word + 1 < w->word_end && s->pages->words[w->word] == 0)
            w->word++;
    } while (s->pages->words[w->word] == 0);
    if (!s->taken && s->options.before_read) {
        size_t end = w->word_end * 64 < s->pages->bits ? w->word_end * 64 : s->pages->bits;
        if (s->options.before_read(s->options.user, w->word * 64, end - w->word * 64, err) < 0)
            return -1;
    }
    w->rest = worker_word(w, w->word);
    return 1;
}

/* Takes the next page of the pass; 0: there is none left. */
static int worker_next_page(struct worker *w, struct err *err, size_t *page)
{
    while (w->rest == 0) {
        int rc = 1;
        if (w->word + 1 < w->word_end)
            w->rest = worker_word(w, ++w->word);
        else
            rc = worker_claim(w, err);
        if (rc <= 0)
            return rc;
    }
    *page = w->word * 64 + (size_t)__builtin_ctzll(w->rest);
    w->rest &= w->rest - 1;
    return 1;
}

/* Looks at the next pages of the pass. Neighbouring pages are read with one call, to where they stay if they are sent
 * whole. `*count` 0: there are none left. */
static int worker_look(struct worker *w, struct err *err, uint32_t *count)
{
    uint32_t pages[READ_PAGES];
    uint8_t *contents = batch_room(&w->sieve.batch);
    size_t page;
    int rc = 1;
    for (*count = 0; *count < READ_PAGES && (rc = worker_next_page(w, err, &page)) > 0;)
        pages[(*count)++] = (uint32_t)page;
    if (rc < 0)
        return -1;
    for (uint32_t i = 0, run; i < *count; i += run) {
        run = 1;
        while (i + run < *count && pages[i + run] == pages[i] + run)
            run++;
        if (ram_read(w->sender->options.ram, pages[i], run, err, contents + (size_t)i * PAGE_BYTES) < 0)
            return -1;
    }
    for (uint32_t i = 0; i < *count; i++)
        sieve_add(&w->sieve, pages[i], contents + (size_t)i * PAGE_BYTES);
    w->stats.pages += *count;
    return 0;
}

/* Packs the next message of the pass; `*len` 0: there is none. */
static int worker_fill(struct worker *w, struct err *err, size_t *len)
{
    uint32_t count = READ_PAGES;
    sieve_begin(&w->sieve);
    while (count == READ_PAGES && sieve_has_room(&w->sieve, READ_PAGES)) {
        if (atomic_load(&w->sender->stop))
            return err_set(err, ERR_CANCELLED, "stopped");
        if (worker_look(w, err, &count) < 0)
            return -1;
    }
    *len = sieve_finish_pieces(&w->sieve, w->packed, w->pieces);
    return 0;
}

/* Takes acknowledgements that are there; waits up to `timeout_ms` for the first. */
static int worker_listen(struct worker *w, long timeout_ms, struct err *err)
{
    zmq_pollitem_t item = {.socket = w->socket, .events = ZMQ_POLLIN};
    if (timeout_ms > 0 && zmq_poll(&item, 1, timeout_ms) < 0 && errno != EINTR)
        return err_set(err, ERR_INTERNAL, "waiting for acknowledgements: %s", zmq_strerror(errno));
    for (;;) {
        uint8_t frame[ACK_FRAME_BYTES];
        int n = zmq_recv(w->socket, frame, sizeof frame, ZMQ_DONTWAIT);
        if (n < 0)
            return 0;
        uint64_t applied;
        uint8_t body[ACK_BODY_BYTES];
        if (n != (int)sizeof frame || seal_open(w->in, frame, sizeof frame, err, body) < 0)
            return err_set(err, ERR_PROTOCOL, "destination sent an acknowledgement that is not genuine");
        applied = ack_decode(body);
        if (applied < w->acked_bytes || applied > w->sent_bytes)
            return err_set(err, ERR_PROTOCOL, "destination acknowledged bytes that were never sent");
        w->acked_bytes = applied;
        w->heard_ns = clock_now_ns();
    }
}

static bool worker_hears_nothing(const struct worker *w)
{
    return clock_now_ns() - w->heard_ns > w->sender->options.silence_ms * UINT64_C(1000000);
}

/* Waits until at most `limit` bytes are unacknowledged. */
static int worker_wait_acks(struct worker *w, uint64_t limit, struct err *err)
{
    w->heard_ns = clock_now_ns();
    while (w->sent_bytes - w->acked_bytes > limit) {
        if (atomic_load(&w->sender->stop))
            return err_set(err, ERR_CANCELLED, "stopped");
        if (worker_listen(w, POLL_MS, err) < 0)
            return -1;
        if (worker_hears_nothing(w))
            return err_set(err, ERR_TIMEOUT, "destination has acknowledged nothing for %llu s",
                (unsigned long long)w->sender->options.silence_ms / 1000);
    }
    return 0;
}

/* In steps in which a changed quota and the end are noticed. */
static long worker_wait_ms(uint64_t wait_ns)
{
    uint64_t ms = wait_ns / 1000000 + 1;
    return ms < POLL_MS ? (long)ms : POLL_MS;
}

/* Waits until `bytes` more may go. */
static int worker_pace(struct worker *w, size_t bytes, struct err *err)
{
    struct quota *quota = w->sender->options.quota;
    uint64_t wait_ns;
    while (quota && (wait_ns = quota_link_wait_ns(quota, clock_now_ns(), bytes)) > 0) {
        if (atomic_load(&w->sender->stop))
            return err_set(err, ERR_CANCELLED, "stopped");
        if (worker_listen(w, worker_wait_ms(wait_ns), err) < 0)
            return -1;
    }
    return 0;
}

/* Rests until this process may use CPU time again. */
static int worker_rest(struct worker *w, struct err *err)
{
    struct quota *quota = w->sender->options.quota;
    uint64_t wait_ns;
    while (quota && (wait_ns = quota_rest_ns(quota)) > 0) {
        if (atomic_load(&w->sender->stop))
            return err_set(err, ERR_CANCELLED, "stopped");
        if (worker_listen(w, worker_wait_ms(wait_ns), err) < 0)
            return -1;
    }
    return 0;
}

static int worker_send(struct worker *w, size_t packed, struct err *err)
{
    zmq_msg_t message;
    ENSURE(zmq_msg_init_size(&message, packed + SEAL_OVERHEAD) == 0);
    size_t len = seal_close_pieces(w->out, w->pieces, BATCH_PIECES, zmq_msg_data(&message));
    if (worker_pace(w, len, err) < 0) {
        zmq_msg_close(&message);
        return -1;
    }
    w->heard_ns = clock_now_ns();
    while (zmq_msg_send(&message, w->socket, ZMQ_DONTWAIT) < 0) {
        zmq_pollitem_t item = {.socket = w->socket, .events = ZMQ_POLLOUT};
        if (errno != EAGAIN || worker_hears_nothing(w) || atomic_load(&w->sender->stop)) {
            zmq_msg_close(&message);
            return err_set(err, ERR_UNAVAILABLE, "the destination takes no pages on stripe %u", w->index);
        }
        (void)zmq_poll(&item, 1, POLL_MS);
        if (worker_listen(w, 0, err) < 0) {
            zmq_msg_close(&message);
            return -1;
        }
    }
    w->sent_bytes += len;
    w->stats.wire_bytes += len;
    return worker_listen(w, 0, err);
}

static int worker_pass(struct worker *w, struct err *err)
{
    uint64_t window = w->sender->window_bytes;
    size_t packed = 0;
    for (;;) {
        if (worker_rest(w, err) < 0)
            return -1;
        uint64_t begun_ns = clock_now_ns();
        w->sieve.thorough = w->sender->options.thorough || w->pressure.bytes;
        if (w->index == 0)
            hostidle_look(&w->sender->idle, begun_ns);
        if (worker_fill(w, err, &packed) < 0)
            return -1;
        if (packed == 0)
            return worker_wait_acks(w, 0, err);
        uint64_t made_ns = clock_now_ns();
        if (worker_wait_acks(w, window, err) < 0 || worker_send(w, packed, err) < 0)
            return -1;
        pressure_note(&w->pressure, made_ns - begun_ns, clock_now_ns() - made_ns, atomic_load(&w->sender->idle.cores));
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct sender *s = w->sender;
    uint64_t seen = 0;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (s->pass == seen && !atomic_load(&s->stop))
            pthread_cond_wait(&s->begin, &s->lock);
        seen = s->pass;
        pthread_mutex_unlock(&s->lock);
        if (atomic_load(&s->stop))
            return NULL;
        struct err err = {0};
        w->word = w->word_end = 0;
        w->rest = 0;
        w->stats = (struct sender_stats){0};
        w->sieve.counts = (struct classes){0};
        w->sieve.digests = s->taken ? NULL : s->options.digests;
        w->sieve.copies = s->taken ? NULL : s->options.copies;
        w->sieve.silent = s->options.silent;
        w->sieve.offer = s->taken ? NULL : s->options.offer;
        w->sieve.cipher = w->cipher;
        if (worker_pass(w, &err) < 0) {
            worker_fail(w, &err);
            return NULL;
        }
        pthread_mutex_lock(&s->lock);
        bool last = --s->busy == 0;
        pthread_mutex_unlock(&s->lock);
        if (last)
            uv_async_send(&s->wake);
    }
}

/* Of all workers, none of which is at work. */
static struct sender_stats sender_sum(const struct sender *s)
{
    struct sender_stats sum = {.duration_ns = clock_now_ns() - s->started_ns};
    for (uint32_t i = 0; i < s->options.stripes; i++) {
        const struct worker *w = &s->workers[i];
        sum.pages += w->stats.pages;
        sum.wire_bytes += w->stats.wire_bytes;
        classes_add(&sum.classes, &w->sieve.counts);
    }
    sum.raw_bytes = classes_sent(&sum.classes) * PAGE_BYTES;
    return sum;
}

/* On the loop: a pass is over, or a worker has failed. */
static void sender_woken(uv_async_t *async)
{
    struct sender *s = async->data;
    pthread_mutex_lock(&s->lock);
    struct err failure = s->failure;
    bool over = s->pages && s->busy == 0;
    pthread_mutex_unlock(&s->lock);
    if (failure.code != ERR_NONE) {
        if (!s->reported) {
            s->reported = true;
            s->options.on_failed(s->options.user, &failure);
        }
        return;
    }
    if (!over)
        return;
    struct sender_stats stats = sender_sum(s);
    s->pages = NULL;
    s->options.on_pass(s->options.user, &stats);
}

static void sender_begin(struct sender *s, const struct bitmap *pages, _Atomic uint64_t *taken, uint64_t window_bytes)
{
    pthread_mutex_lock(&s->lock);
    ENSURE(s->pages == NULL && s->busy == 0);
    if (s->options.copies)
        copies_next_pass(s->options.copies);
    s->pages = pages;
    s->taken = taken;
    s->window_bytes = window_bytes;
    s->busy = s->options.stripes;
    s->started_ns = clock_now_ns();
    atomic_store(&s->cursor, 0);
    s->pass++;
    pthread_cond_broadcast(&s->begin);
    pthread_mutex_unlock(&s->lock);
}

void sender_pass(struct sender *s, const struct bitmap *pages)
{
    sender_begin(s, pages, NULL, s->options.window_bytes);
}

void sender_push(struct sender *s, const struct bitmap *pages, _Atomic uint64_t *taken, uint64_t window_bytes)
{
    sender_begin(s, pages, taken, window_bytes < s->options.window_bytes ? window_bytes : s->options.window_bytes);
}

static int worker_start(struct worker *w, struct sender *s, uint32_t index, struct err *err)
{
    int linger = 0, hwm = 8;
    int64_t max = 1024; /* acknowledgements are tiny; ZeroMQ's own handshake is not quite */
    w->sender = s;
    w->index = index;
    w->out = seal_new(s->key, SEAL_TO_DESTINATION, index);
    w->in = seal_new(s->key, SEAL_TO_SOURCE, index);
    w->cipher = s->options.offer ? offer_cipher(s->options.offer) : NULL;
    w->socket = zmq_socket(s->zmq, ZMQ_DEALER);
    if (!w->socket || zmq_setsockopt(w->socket, ZMQ_LINGER, &linger, sizeof linger) < 0 ||
        zmq_setsockopt(w->socket, ZMQ_SNDHWM, &hwm, sizeof hwm) < 0 ||
        zmq_setsockopt(w->socket, ZMQ_MAXMSGSIZE, &max, sizeof max) < 0 ||
        zmq_connect(w->socket, s->options.addresses[index]) < 0)
        return err_set(err, ERR_UNAVAILABLE, "cannot connect stripe %u to %s: %s", index, s->options.addresses[index],
            zmq_strerror(errno));
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    if (rc != 0)
        return err_errno(err, ERR_INTERNAL, rc, "cannot start a thread");
    w->started = true;
    return 0;
}

int sender_open(uv_loop_t *loop, const struct sender_options *options, struct err *err, struct sender **out)
{
    ENSURE(options->stripes >= 1 && options->stripes <= SENDER_STRIPES_MAX);
    struct sender *s = mem_zalloc(sizeof *s + options->stripes * sizeof *s->workers);
    s->options = *options;
    s->options.silence_ms = options->silence_ms ? options->silence_ms : SENDER_SILENCE_MS;
    memcpy(s->key, options->key, sizeof s->key);
    s->zmq = zmq_ctx_new();
    ENSURE(s->zmq != NULL);
    zmq_ctx_set(s->zmq, ZMQ_IO_THREADS, (int)options->stripes);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->begin, NULL);
    ENSURE(uv_async_init(loop, &s->wake, sender_woken) == 0);
    s->wake.data = s;
    for (uint32_t i = 0; i < options->stripes; i++)
        if (worker_start(&s->workers[i], s, i, err) < 0) {
            sender_close(s, NULL);
            return -1;
        }
    s->options.addresses = NULL;
    *out = s;
    return 0;
}

static void sender_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void sender_close(struct sender *s, struct sender_stats *unfinished)
{
    if (unfinished)
        *unfinished = (struct sender_stats){0};
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->stop, true);
    pthread_cond_broadcast(&s->begin);
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < s->options.stripes; i++) {
        struct worker *w = &s->workers[i];
        if (w->started)
            pthread_join(w->thread, NULL);
        if (w->socket)
            zmq_close(w->socket);
        seal_free(w->out);
        seal_free(w->in);
        image_cipher_free(w->cipher);
    }
    if (unfinished && s->pages)
        *unfinished = sender_sum(s);
    zmq_ctx_term(s->zmq);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->begin);
    explicit_bzero(s->key, sizeof s->key);
    uv_close((uv_handle_t *)&s->wake, sender_closed);
}
