/* Sender and receiver against each other over loopback: what arrives, what strangers can do, how failures show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/ensure.h"
#include "base/loop.h"
#include "migrate/batch.h"
#include "migrate/receiver.h"
#include "migrate/sender.h"
#include "tests/unit/migrate/memory_file.h"
#include "tests/unit/migrate/stranger.h"

#define PAGES   3000u
#define STRIPES 3u
#define WAIT_MS 60000u

static const uint8_t key[SEAL_KEY_BYTES] = {7};

struct fixture {
    uv_loop_t loop;
    struct loop_timer *bound;
    struct ram from, to;
    struct digests digests, received_digests;
    struct copies *copies;
    struct image *image; /* of an earlier visit, at the receiver's */
    struct offer *offer;
    struct sender *sender;
    struct receiver *receiver;
    struct sender_stats stats;
    struct receiver_stats received;
    struct err failure; /* of either side */
    bool over, late;
    uint64_t silence_ms; /* the sender's patience */
};

static struct fixture fixture;
static sem_t full;                      /* a worker waits for room on its connection */
static ino_t disk;                      /* an image's inode; 0: its reads are not looked at */
static atomic_uint disk_us, disk_reads; /* how long each takes, and how many there were */

/* The C library's own, but for the time that a disk takes. */
ssize_t pread(int fd, void *to, size_t len, off_t at)
{
    ssize_t (*real)(int, void *, size_t, off_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pread");
    struct stat st;
    if (disk && fstat(fd, &st) == 0 && st.st_ino == disk) {
        atomic_fetch_add(&disk_reads, 1);
        usleep(atomic_load(&disk_us));
    }
    return real(fd, to, len, at);
}

/* ZeroMQ's own, but for the note that it takes of who waits for room. */
int zmq_poll(zmq_pollitem_t *items, int count, long timeout_ms)
{
    int (*real)(zmq_pollitem_t *, int, long);
    *(void **)&real = dlsym(RTLD_NEXT, "zmq_poll");
    if (count == 1 && items[0].events & ZMQ_POLLOUT)
        sem_post(&full);
    return real(items, count, timeout_ms);
}

static void on_pass(void *user, const struct sender_stats *stats)
{
    struct fixture *f = user;
    f->stats = *stats;
    f->over = true;
    uv_stop(&f->loop);
}

static void on_failed(void *user, const struct err *err)
{
    struct fixture *f = user;
    f->failure = *err;
    f->over = true;
    uv_stop(&f->loop);
}

static void on_late(void *user)
{
    struct fixture *f = user;
    f->late = true;
    uv_stop(&f->loop);
}

static int setup(void **state)
{
    struct fixture *f = &fixture;
    *f = (struct fixture){.from = memory_file(PAGES), .to = memory_file(PAGES)};
    disk = 0;
    digests_init(&f->digests, PAGES, 5, true);
    digests_init(&f->received_digests, PAGES, 5, true);
    f->copies = copies_new(PAGES, 1u << 20);
    uv_loop_init(&f->loop);
    f->bound = loop_timer_new(&f->loop, on_late, f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sender_close(f->sender, NULL);
    receiver_close(f->receiver, NULL);
    loop_timer_free(f->bound);
    while (uv_run(&f->loop, UV_RUN_DEFAULT) != 0)
        continue;
    uv_loop_close(&f->loop);
    copies_free(f->copies);
    offer_free(f->offer);
    image_close(f->image);
    digests_free(&f->digests);
    digests_free(&f->received_digests);
    ram_close(&f->from);
    ram_close(&f->to);
    return 0;
}

static void open_receiver(struct fixture *f)
{
    struct receiver_options options = {.ram = &f->to,
        .digests = &f->received_digests,
        .image = f->image,
        .key = key,
        .host = "127.0.0.1",
        .from = "127.0.0.1",
        .stripes = STRIPES,
        .on_failed = on_failed,
        .user = f};
    assert_int_equal(receiver_open(&f->loop, &options, &f->failure, &f->receiver), 0);
    f->failure.code = ERR_NONE;
}

static void open_sender(struct fixture *f, const uint8_t *with, uint64_t window)
{
    const char *addresses[STRIPES];
    for (uint32_t i = 0; i < STRIPES; i++)
        addresses[i] = receiver_address(f->receiver, i);
    struct sender_options options = {.ram = &f->from,
        .key = with,
        .addresses = addresses,
        .stripes = STRIPES,
        .window_bytes = window,
        .digests = &f->digests,
        .copies = f->copies,
        .silent = true,
        .thorough = true,
        .offer = f->offer,
        .silence_ms = f->silence_ms,
        .on_pass = on_pass,
        .on_failed = on_failed,
        .user = f};
    assert_int_equal(sender_open(&f->loop, &options, &f->failure, &f->sender), 0);
    f->failure.code = ERR_NONE;
}

static void wait_over(struct fixture *f)
{
    loop_timer_start(f->bound, WAIT_MS, 0);
    while (!f->over && !f->late)
        uv_run(&f->loop, UV_RUN_DEFAULT);
    loop_timer_stop(f->bound);
    assert_false(f->late);
    f->over = false;
    if (f->failure.code == ERR_NONE)
        return;
    sender_close(f->sender, NULL); /* its workers may still be at the pages of the pass, which the test frees */
    f->sender = NULL;
}

static void send_all(struct fixture *f)
{
    struct bitmap all = bitmap_new(PAGES);
    bitmap_set_range(&all, 0, PAGES);
    sender_pass(f->sender, &all);
    wait_over(f);
    bitmap_free(&all);
}

static void assert_same_memory(struct fixture *f)
{
    struct err err;
    char from[RAM_HASH_TEXT], to[RAM_HASH_TEXT];
    assert_int_equal(ram_hash(&f->from, &err, from), 0);
    assert_int_equal(ram_hash(&f->to, &err, to), 0);
    assert_string_equal(from, to);
    digests_root(&f->digests, from);
    digests_root(&f->received_digests, to);
    assert_string_equal(from, to);
}

static void test_passes_make_memory_equal(void **state)
{
    struct fixture *f = *state;
    struct err err;
    for (size_t page = 0; page < PAGES; page += page % 5 + 1)
        memory_fill(&f->from, page, 1);
    memory_fill(&f->to, 33, 9); /* left over from before: must be gone */
    open_receiver(f);
    open_sender(f, key, 100000); /* smaller than a batch's worth: credit is exhausted all the time */
    send_all(f);
    assert_int_equal(f->failure.code, ERR_NONE);
    assert_int_equal(f->stats.pages, PAGES);
    assert_same_memory(f);

    /* Second pass: some pages changed, some became zero, once by writing and once by a hole. */
    struct bitmap some = bitmap_new(PAGES);
    char zeros[PAGE_BYTES] = {0};
    for (size_t page = 0; page < PAGES; page += 64) {
        memory_fill(&f->from, page, 2);
        bitmap_set(&some, page);
        assert_int_equal(ram_write(&f->from, page + 1, 1, zeros, &err), 0);
        bitmap_set(&some, page + 1);
        assert_int_equal(ram_punch(&f->from, page + 2, 1, &err), 0);
        bitmap_set(&some, page + 2);
    }
    sender_pass(f->sender, &some);
    wait_over(f);
    assert_int_equal(f->failure.code, ERR_NONE);
    assert_int_equal(f->stats.pages, bitmap_count(&some));
    assert_same_memory(f);

    /* Third: nothing changed, so nothing is sent. */
    sender_pass(f->sender, &some);
    wait_over(f);
    assert_int_equal(f->stats.pages, bitmap_count(&some));
    assert_int_equal(f->stats.wire_bytes, 0);

    /* Then a little changes again and again, and each pass may find a page on another stripe. */
    for (unsigned round = 0; round < 20; round++) {
        for (size_t page = 0; page < PAGES; page += 64)
            assert_int_equal(
                pwrite(f->from.fd, &round, sizeof round, (off_t)(page * PAGE_BYTES + round * 8)), sizeof round);
        sender_pass(f->sender, &some);
        wait_over(f);
        assert_int_equal(f->failure.code, ERR_NONE);
        assert_true(f->stats.classes.pages[CLASS_DELTA] > 0);
        assert_same_memory(f);
    }
    bitmap_free(&some);
}

/* The guest was at the receiver's before, with `seed` in every `step`th page. */
static void remember_visit(struct fixture *f, unsigned seed, size_t step)
{
    struct stat st;
    char path[] = "/tmp/drover-visit-XXXXXX", key_path[64];
    uint8_t tags[PAGES * IMAGE_TAG_BYTES];
    size_t first = 0;
    struct ram then = memory_file(PAGES);
    struct err err;
    close(mkstemp(path));
    snprintf(key_path, sizeof key_path, "%s.key", path);
    for (size_t page = 0; page < PAGES; page += step)
        memory_fill(&then, page, seed);
    assert_int_equal(image_keep(&then, path, key_path, UINT64_MAX, &err), 0);
    assert_int_equal(image_open(path, key_path, then.bytes, &err, &f->image), 0);
    assert_int_equal(image_tags(f->image, PAGES, &err, &first, tags), PAGES);
    f->offer = offer_new(PAGES, image_key(f->image));
    assert_int_equal(offer_add(f->offer, 0, tags, sizeof tags, &err), 0);
    ram_close(&then);
    assert_int_equal(stat(path, &st), 0);
    disk = st.st_ino;
    atomic_store(&disk_us, 0);
    atomic_store(&disk_reads, 0);
    unlink(path);
    unlink(key_path);
}

static void test_what_is_there_from_the_last_visit_is_not_sent(void **state)
{
    struct fixture *f = *state;
    remember_visit(f, 1, 3);
    for (size_t page = 0; page < PAGES; page += 3)
        memory_fill(&f->from, page, page % 60 ? 1 : 2); /* some were written since */
    open_receiver(f);
    open_sender(f, key, 1u << 20);
    send_all(f);
    assert_int_equal(f->failure.code, ERR_NONE);
    assert_same_memory(f);
    assert_int_equal(f->stats.classes.pages[CLASS_REUSED], PAGES / 3 - PAGES / 60);
    assert_int_equal(classes_sent(&f->stats.classes), PAGES / 60);
}

/* A few bytes name many pages that the receiver's disk may have to look for one by one. */
static void test_a_slow_disk_is_no_silence(void **state)
{
    struct fixture *f = *state;
    remember_visit(f, 1, 3);
    for (size_t page = 0; page < PAGES; page += 3)
        memory_fill(&f->from, page, 1);
    atomic_store(&disk_us, 8000); /* 4 s for a message of 256 runs */
    f->silence_ms = 2500;
    open_receiver(f);
    open_sender(f, key, 1u << 20);
    send_all(f);
    assert_int_equal(f->failure.code, ERR_NONE);
    assert_same_memory(f);
    assert_int_equal(f->stats.classes.pages[CLASS_REUSED], PAGES / 3);
}

static void test_neighbours_are_read_at_once(void **state)
{
    struct fixture *f = *state;
    remember_visit(f, 1, 1);
    for (size_t page = 0; page < PAGES; page++)
        memory_fill(&f->from, page, 1);
    open_receiver(f);
    open_sender(f, key, 1u << 20);
    send_all(f);
    assert_int_equal(f->failure.code, ERR_NONE);
    assert_same_memory(f);
    assert_true(atomic_load(&disk_reads) <= 2 * (PAGES / BATCH_RUN_PAGES + 20)); /* content and tags of each run */
}

/* A sender that names what was never offered. */
static void test_an_offer_that_was_never_made_fails(void **state)
{
    struct fixture *f = *state;
    struct bitmap all = bitmap_new(PAGES);
    remember_visit(f, 1, 3);
    for (size_t page = 0; page < PAGES; page += 3)
        memory_fill(&f->from, page, 1);
    image_close(f->image);
    f->image = NULL;
    open_receiver(f);
    open_sender(f, key, 1u << 20);
    bitmap_set_range(&all, 0, PAGES);
    sender_pass(f->sender, &all);
    wait_over(f);
    assert_int_equal(f->failure.code, ERR_PROTOCOL);
    bitmap_free(&all);
}

static void test_empty_pass_ends(void **state)
{
    struct fixture *f = *state;
    struct bitmap none = bitmap_new(PAGES);
    open_receiver(f);
    open_sender(f, key, 1u << 20);
    sender_pass(f->sender, &none);
    wait_over(f);
    assert_int_equal(f->stats.pages, 0);
    bitmap_free(&none);
}

/* Somebody without the key sends what he likes to every stripe, before and beside the real sender. */
static void test_strangers_change_nothing(void **state)
{
    struct fixture *f = *state;
    for (size_t page = 0; page < PAGES; page++)
        memory_fill(&f->from, page, 5);
    open_receiver(f);
    void *zmq = zmq_ctx_new(), *stranger[STRIPES];
    int linger = 0;
    for (uint32_t i = 0; i < STRIPES; i++) {
        uint8_t garbage[5000] = {0};
        stranger[i] = zmq_socket(zmq, ZMQ_DEALER);
        zmq_setsockopt(stranger[i], ZMQ_LINGER, &linger, sizeof linger);
        assert_int_equal(zmq_connect(stranger[i], receiver_address(f->receiver, i)), 0);
        zmq_send(stranger[i], garbage, sizeof garbage, 0);
        zmq_send(stranger[i], garbage, 3, ZMQ_SNDMORE);
        zmq_send(stranger[i], garbage, 30, 0);
    }
    open_sender(f, key, 1u << 20);
    send_all(f);
    assert_int_equal(f->failure.code, ERR_NONE);
    assert_same_memory(f);
    for (uint32_t i = 0; i < STRIPES; i++)
        zmq_close(stranger[i]);
    zmq_ctx_term(zmq);
}

/* A genuine peer that names a page beyond the end of RAM fails the migration instead of writing there. */
static void test_senseless_batch_fails(void **state)
{
    struct fixture *f = *state;
    open_receiver(f);
    static struct batch batch;
    static uint8_t message[BATCH_BYTES_MAX], sealed[BATCH_BYTES_MAX + SEAL_OVERHEAD];
    batch_begin(&batch);
    batch_add_zero(&batch, PAGES);
    struct seal *seal = seal_new(key, SEAL_TO_DESTINATION, 0);
    size_t len = seal_close(seal, message, batch_encode(&batch, message), sealed);
    void *zmq = zmq_ctx_new(), *peer = zmq_socket(zmq, ZMQ_DEALER);
    assert_int_equal(zmq_connect(peer, receiver_address(f->receiver, 0)), 0);
    assert_int_equal(zmq_send(peer, sealed, len, 0), len);
    wait_over(f);
    assert_int_equal(f->failure.code, ERR_PROTOCOL);
    zmq_close(peer);
    zmq_ctx_term(zmq);
    seal_free(seal);
}

static void test_closing_in_the_middle_of_a_pass(void **state)
{
    struct fixture *f = *state;
    struct bitmap all = bitmap_new(PAGES);
    for (size_t page = 0; page < PAGES; page++)
        memory_fill(&f->from, page, 3);
    bitmap_set_range(&all, 0, PAGES);
    open_receiver(f);
    open_sender(f, key, 50000);
    sender_pass(f->sender, &all);
    sender_close(f->sender, NULL); /* returns although acknowledgements are missing */
    f->sender = NULL;
    bitmap_free(&all);
}

/* The answer that named the stripes' addresses is gone by the time that a worker is stopped which waits for room. */
static void test_closing_while_nothing_is_taken(void **state)
{
    struct fixture *f = *state;
    struct bitmap all = bitmap_new(PAGES);
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    char *answer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const char **addresses = (const char **)answer;
    assert_ptr_not_equal(answer, MAP_FAILED);
    addresses[0] = strcpy(answer + size / 2, "tcp://127.0.0.1:9"); /* nobody listens */
    for (size_t page = 0; page < PAGES; page++)
        memory_fill(&f->from, page, 3);
    bitmap_set_range(&all, 0, PAGES);
    struct sender_options options = {.ram = &f->from,
        .key = key,
        .addresses = addresses,
        .stripes = 1,
        .window_bytes = UINT64_MAX,
        .on_pass = on_pass,
        .on_failed = on_failed,
        .user = f};
    assert_int_equal(sem_init(&full, 0, 0), 0);
    assert_int_equal(sender_open(&f->loop, &options, &f->failure, &f->sender), 0);
    munmap(answer, size);
    sender_pass(f->sender, &all);
    assert_int_equal(sem_wait(&full), 0);
    sender_close(f->sender, NULL);
    f->sender = NULL;
    bitmap_free(&all);
}

/* What a connection may fill is bounded, but not how many there are: those of other hosts end before they begin. */
static void test_other_hosts_are_not_let_in(void **state)
{
    struct fixture *f = *state;
    char byte;
    open_receiver(f);
    int fd = stranger_connect(receiver_address(f->receiver, 0), "127.0.0.1");
    assert_int_equal(recv(fd, &byte, 1, 0), 1); /* ZeroMQ greets whoever may stay */
    close(fd);
    fd = stranger_connect(receiver_address(f->receiver, 0), "127.0.0.2");
    assert_true(recv(fd, &byte, 1, 0) <= 0); /* closed, or reset */
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_passes_make_memory_equal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_there_from_the_last_visit_is_not_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_slow_disk_is_no_silence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_neighbours_are_read_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_offer_that_was_never_made_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_pass_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_hosts_are_not_let_in, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strangers_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_senseless_batch_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_in_the_middle_of_a_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_while_nothing_is_taken, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
