/* One thread per client of the counter: they are few, and a `stream` or a `verify` must not hold up the others. */
#include "service.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "beat.h"
#include "kernel_log.h"
#include "load.h"

#define LINE_BYTES       200
#define STACK_BYTES      (128 * 1024)
#define STREAM_PERIOD_MS 10
#define CLIENTS_MAX      64
#define STORE_VALUES_MAX 1000000

static atomic_ullong counter;
static atomic_int clients;
static char boot_id[64] = "unknown";

static pthread_mutex_t spec_lock = PTHREAD_MUTEX_INITIALIZER;
static char running[LINE_BYTES] = "idle";

static bool number_read(const char *text, uint64_t max, bool with_unit, uint64_t *out)
{
    char *end;
    if (text == NULL || *text < '0' || *text > '9') {
        return false;
    }
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (with_unit && *end != '\0') {
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
        end += shift != 0;
    }
    if (*end != '\0' || value > (max >> shift)) {
        return false;
    }
    *out = value << shift;
    return true;
}

static bool order_read(const char *text, enum load_order *out)
{
    static const char *const names[] = {[ORDER_RANDOM] = "random", [ORDER_SEQUENTIAL] = "seq", [ORDER_ZIPF] = "zipf"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum load_order)i;
            return true;
        }
    }
    return false;
}

static const char *load_one(char *spec)
{
    char *rest = NULL;
    const char *kind = strtok_r(spec, ": ", &rest);
    const char *first = strtok_r(NULL, ": ", &rest);
    const char *second = strtok_r(NULL, ": ", &rest);
    const char *third = strtok_r(NULL, ": ", &rest);
    const char *fourth = strtok_r(NULL, ": ", &rest);
    uint64_t rate = 0, bytes = 0, percent = 30;
    enum load_order order = ORDER_RANDOM;

    if (kind == NULL || strcmp(kind, "idle") == 0 || strcmp(kind, "off") == 0) {
        load_cpu(0);
        load_disk(0);
        load_store(0, 0);
        load_read(0);
        return load_memory(0, 0, 0, order);
    }
    if (strcmp(kind, "cpu") == 0) {
        if (!number_read(first, 100, false, &rate) || second != NULL) {
            return "cpu wants a percentage";
        }
        load_cpu((unsigned)rate);
        return NULL;
    }
    if (strcmp(kind, "mem") == 0) {
        if (!number_read(first, 1000000, false, &rate) || !number_read(second, 1ULL << 40, true, &bytes) ||
            (third != NULL && !number_read(third, 100, false, &percent)) ||
            (fourth != NULL && !order_read(fourth, &order))) {
            return "mem wants pages per second, bytes and, if need be, a percentage of random words and an order: "
                   "random, seq, zipf";
        }
        return load_memory((unsigned)rate, bytes, (unsigned)percent, order);
    }
    if (strcmp(kind, "disk") == 0) {
        if (!number_read(first, 100000, false, &rate) || second != NULL) {
            return "disk wants writes per second";
        }
        return load_disk((unsigned)rate);
    }
    if (strcmp(kind, "store") == 0) {
        if (!number_read(first, 100000, false, &rate) || !number_read(second, STORE_VALUES_MAX, false, &bytes) ||
            (rate > 0 && bytes == 0) || third != NULL) {
            return "store wants operations per second and a number of values";
        }
        return load_store((unsigned)rate, bytes);
    }
    if (strcmp(kind, "read") == 0) {
        if (!number_read(first, 100000, false, &rate) || second != NULL) {
            return "read wants runs per second";
        }
        return load_read((unsigned)rate);
    }
    return "no such load: idle, cpu, mem, disk, read, store";
}

const char *loads_run(const char *spec)
{
    char copy[LINE_BYTES], *rest = NULL;
    const char *problem = NULL;

    if (strlen(spec) >= sizeof(copy)) {
        return "too long";
    }
    pthread_mutex_lock(&spec_lock);
    strcpy(copy, spec);
    for (char *one = strtok_r(copy, ",", &rest); one != NULL && problem == NULL; one = strtok_r(NULL, ",", &rest)) {
        problem = load_one(one);
    }
    if (problem == NULL) {
        strcpy(running, spec);
    }
    pthread_mutex_unlock(&spec_lock);
    return problem;
}

static void check_print(FILE *out, struct check check)
{
    if (check.corrupt == 0) {
        fprintf(out, "ok %llu\n", (unsigned long long)check.units);
    } else {
        fprintf(out, "corrupt %llu\n", (unsigned long long)check.corrupt);
    }
}

static void stream(FILE *out, uint64_t period_ms)
{
    uint64_t next = now_ns();

    for (unsigned long long n = 1; fprintf(out, "%llu\n", n) > 0 && fflush(out) == 0; n++) {
        tick_wait(&next, period_ms * 1000000);
    }
}

/* False: the connection ends. */
static bool command_run(FILE *out, const char *line)
{
    uint64_t period_ms;

    if (strcmp(line, "get") == 0) {
        fprintf(out, "%llu\n", atomic_fetch_add(&counter, 1) + 1);
    } else if (strcmp(line, "uptime") == 0) {
        fprintf(out, "%llu\n", (unsigned long long)(now_ns() / 1000000));
    } else if (strcmp(line, "boot") == 0) {
        fprintf(out, "%s\n", boot_id);
    } else if (strcmp(line, "verify") == 0) {
        check_print(out, load_memory_check());
    } else if (strcmp(line, "verify disk") == 0) {
        check_print(out, load_disk_check());
    } else if (strcmp(line, "verify store") == 0) {
        check_print(out, load_store_check());
    } else if (strcmp(line, "verify read") == 0) {
        check_print(out, load_read_check());
    } else if (strcmp(line, "clock") == 0) {
        struct timespec real, monotonic;
        clock_gettime(CLOCK_REALTIME, &real);
        clock_gettime(CLOCK_MONOTONIC, &monotonic);
        fprintf(out, "%lld.%09ld %lld.%09ld\n", (long long)real.tv_sec, real.tv_nsec, (long long)monotonic.tv_sec,
            monotonic.tv_nsec);
    } else if (strcmp(line, "complaints") == 0) {
        char newest[LINE_BYTES];
        int count = kernel_log_complaints(newest, sizeof(newest));
        fprintf(out, "%d %s\n", count, newest);
    } else if (strcmp(line, "load") == 0) {
        pthread_mutex_lock(&spec_lock);
        fprintf(out, "%s\n", running);
        pthread_mutex_unlock(&spec_lock);
    } else if (strncmp(line, "load ", 5) == 0) {
        const char *problem = loads_run(line + 5);
        fprintf(out, "%s%s\n", problem != NULL ? "error " : "ok", problem != NULL ? problem : "");
    } else if (strcmp(line, "stream") == 0) {
        stream(out, STREAM_PERIOD_MS);
        return false;
    } else if (strncmp(line, "stream ", 7) == 0 && number_read(line + 7, 60000, false, &period_ms) && period_ms > 0) {
        stream(out, period_ms);
        return false;
    } else if (strcmp(line, "poweroff") == 0) {
        power_off();
    } else if (strcmp(line, "quit") == 0) {
        return false;
    } else {
        fprintf(out, "error no such command\n");
    }
    return fflush(out) == 0;
}

static void *client(void *arg)
{
    int fd = (int)(intptr_t)arg, copy = dup(fd);
    FILE *in = fdopen(fd, "r"), *out = copy >= 0 ? fdopen(copy, "w") : NULL;
    char line[LINE_BYTES];

    while (in != NULL && out != NULL && fgets(line, sizeof(line), in) != NULL) {
        size_t length = strcspn(line, "\r\n");
        if (line[length] == '\0') {
            break; /* too long, or cut off */
        }
        line[length] = '\0';
        if (!command_run(out, line)) {
            break;
        }
    }
    if (out != NULL) {
        fclose(out);
    }
    if (in != NULL) {
        fclose(in);
    }
    atomic_fetch_sub(&clients, 1);
    return NULL;
}

static int socket_bound(int type, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
            close(fd);
            return -1;
        }
    }
    return fd;
}

static void *acceptor(void *arg)
{
    int listener = (int)(intptr_t)arg, one = 1;
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (;;) {
        pthread_t thread;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) {
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (atomic_fetch_add(&clients, 1) >= CLIENTS_MAX ||
            pthread_create(&thread, &attr, client, (void *)(intptr_t)fd) != 0) {
            atomic_fetch_sub(&clients, 1);
            close(fd);
        }
    }
    return NULL;
}

static void *echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char data[2048];

    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof(peer);
        ssize_t got = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&peer, &length);
        if (got >= 0) {
            sendto(fd, data, (size_t)got, 0, (struct sockaddr *)&peer, length);
        }
    }
    return NULL;
}

int services_start(void)
{
    pthread_t thread;
    FILE *id = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (id != NULL) {
        if (fgets(boot_id, sizeof(boot_id), id) != NULL) {
            boot_id[strcspn(boot_id, "\n")] = '\0';
        }
        fclose(id);
    }
    signal(SIGPIPE, SIG_IGN);
    int listener = socket_bound(SOCK_STREAM, COUNTER_PORT);
    int datagrams = socket_bound(SOCK_DGRAM, ECHO_PORT);
    if (listener < 0 || datagrams < 0 || listen(listener, 16) != 0) {
        return -1;
    }
    return pthread_create(&thread, NULL, acceptor, (void *)(intptr_t)listener) == 0 &&
                   pthread_create(&thread, NULL, echo, (void *)(intptr_t)datagrams) == 0 && beat_start() == 0
               ? 0
               : -1;
}
