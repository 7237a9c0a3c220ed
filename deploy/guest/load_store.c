/* Client of a redis in the same guest (the image made with --redis has one). Every value is a pattern of its key and a
 * version that only the client keeps: an operation reads one value back, checks it and stores the next version. */
#include "load.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STORE_PORT     6379
#define START_S        20 /* for redis to answer */
#define TICK_NS        20000000ULL
#define RANDOM_PERCENT 30
#define LINE_BYTES     64
#define BATCH          16
#define BUFFER_BYTES   (BATCH * (PATTERN_BYTES + LINE_BYTES)) /* a batch goes out in one write */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all of `store` */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
    FILE *in, *out; /* one connection */
    uint32_t *versions;
    uint64_t *value; /* PATTERN_BYTES, and two for the end of line */
    uint64_t count;
    unsigned rate;
    uint64_t corrupt; /* values that were wrong, and requests that failed */
} store;

static bool line_is(const char *expected)
{
    char line[LINE_BYTES];
    return fgets(line, sizeof(line), store.in) != NULL && strcmp(line, expected) == 0;
}

/* Requests in a batch go out together and are answered together: one by one, the guest would only switch tasks. */
static bool batch_set(const uint64_t *keys, unsigned count)
{
    bool good;

    for (unsigned i = 0; i < count; i++) {
        pattern_fill(store.value, keys[i], ++store.versions[keys[i]], RANDOM_PERCENT);
        fprintf(store.out, "*3\r\n$3\r\nSET\r\n$8\r\n%08x\r\n$%d\r\n", (unsigned)keys[i], PATTERN_BYTES);
        fwrite(store.value, PATTERN_BYTES, 1, store.out);
        fprintf(store.out, "\r\n");
    }
    good = fflush(store.out) == 0;
    for (unsigned i = 0; i < count; i++) {
        good = line_is("+OK\r\n") && good;
    }
    return good;
}

/* The number of values that are not what was stored last. */
static unsigned batch_check(const uint64_t *keys, unsigned count)
{
    char expected[LINE_BYTES];
    unsigned wrong = 0;

    for (unsigned i = 0; i < count; i++) {
        fprintf(store.out, "*2\r\n$3\r\nGET\r\n$8\r\n%08x\r\n", (unsigned)keys[i]);
    }
    fflush(store.out);
    snprintf(expected, sizeof(expected), "$%d\r\n", PATTERN_BYTES);
    for (unsigned i = 0; i < count; i++) {
        bool good = line_is(expected) && fread(store.value, PATTERN_BYTES + 2, 1, store.in) == 1 &&
                    pattern_matches(store.value, keys[i], store.versions[keys[i]], RANDOM_PERCENT);
        wrong += !good;
    }
    return wrong;
}

static void operate(unsigned count, unsigned *seed)
{
    uint64_t keys[BATCH];

    for (unsigned i = 0; i < count; i++) {
        keys[i] = (uint64_t)rand_r(seed) % store.count;
    }
    store.corrupt += batch_check(keys, count);
    if (!batch_set(keys, count)) {
        store.corrupt++;
    }
    work_done(count);
}

/* The keys from `first` on that make up a batch; returns how many there are. */
static unsigned keys_from(uint64_t first, uint64_t count, uint64_t keys[BATCH])
{
    unsigned number = 0;
    while (number < BATCH && first + number < count) {
        keys[number] = first + number;
        number++;
    }
    return number;
}

static void *client(void *unused)
{
    (void)unused;
    uint64_t next = now_ns();
    unsigned seed = (unsigned)next;
    double due = 0;

    for (;;) {
        pthread_mutex_lock(&lock);
        while (store.rate == 0) {
            pthread_cond_wait(&changed, &lock);
            next = now_ns();
        }
        due += store.rate * TICK_NS / 1e9;
        pthread_mutex_unlock(&lock);

        while (due >= 1) {
            unsigned count = due < BATCH ? (unsigned)due : BATCH;
            pthread_mutex_lock(&lock);
            operate(count, &seed);
            pthread_mutex_unlock(&lock);
            due -= count;
        }
        tick_wait(&next, TICK_NS);
    }
    return NULL;
}

/* Redis starts beside us. */
static bool store_connect(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(STORE_PORT)};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    for (uint64_t end = now_ns() + START_S * 1000000000ULL, next = now_ns(); now_ns() < end;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            store.in = fdopen(fd, "r");
            store.out = fdopen(dup(fd), "w");
            return store.in != NULL && store.out != NULL && setvbuf(store.in, NULL, _IOFBF, BUFFER_BYTES) == 0 &&
                   setvbuf(store.out, NULL, _IOFBF, BUFFER_BYTES) == 0;
        }
        if (fd >= 0) {
            close(fd);
        }
        tick_wait(&next, 100000000ULL);
    }
    return false;
}

/* Connects, stores every value and starts the thread, once. */
static const char *begin(uint64_t count)
{
    pthread_t thread;

    if (!store_connect()) {
        return "no redis answers in this guest";
    }
    store.versions = calloc(count, sizeof(*store.versions));
    store.value = malloc(PATTERN_BYTES + 8);
    if (store.versions == NULL || store.value == NULL) {
        return "out of memory";
    }
    uint64_t keys[BATCH];
    unsigned number;
    for (uint64_t first = 0; (number = keys_from(first, count, keys)) > 0; first += number) {
        if (!batch_set(keys, number)) {
            return "redis does not take the values";
        }
    }
    store.count = count;
    return pthread_create(&thread, NULL, client, NULL) == 0 ? NULL : "cannot start a thread";
}

const char *load_store(unsigned operations_per_s, uint64_t values)
{
    const char *problem = NULL;

    pthread_mutex_lock(&lock);
    if (operations_per_s > 0 && store.in == NULL) {
        problem = begin(values);
    } else if (operations_per_s > 0 && (store.count == 0 || values != store.count)) {
        problem = "the number of values cannot be changed";
    }
    if (problem == NULL) {
        store.rate = operations_per_s;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return problem;
}

struct check load_store_check(void)
{
    struct check check = {0};
    uint64_t keys[BATCH];
    unsigned number;

    do {
        pthread_mutex_lock(&lock);
        number = keys_from(check.units, store.count, keys);
        check.corrupt += number > 0 ? batch_check(keys, number) : store.corrupt;
        check.units += number;
        pthread_mutex_unlock(&lock);
    } while (number > 0);
    return check;
}
