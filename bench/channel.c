/* bench-channel: how fast pages get from one RAM file into another through the engine's own sender and receiver, over
 * loopback. bench/channel runs it; bench-channel-plain is the same program with channel_plain.c in place of the cipher.
 *
 *   bench-channel MIB STRIPES RANDOM RECEIPT
 *
 * RANDOM: percent of each page that does not compress. RECEIPT: 1 keeps digests on both sides, 0 does not.
 * Prints one JSON object: seconds, CPU seconds of both sides together, bytes on the wire. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/ensure.h"
#include "migrate/receiver.h"
#include "migrate/sender.h"

struct run {
    uv_loop_t loop;
    struct sender_stats stats;
    bool failed;
};

static void on_pass(void *user, const struct sender_stats *stats)
{
    struct run *run = user;
    run->stats = *stats;
    uv_stop(&run->loop);
}

static void on_failed(void *user, const struct err *err)
{
    struct run *run = user;
    fprintf(stderr, "bench-channel: %s\n", err->message);
    run->failed = true;
    uv_stop(&run->loop);
}

static void die(const struct err *err)
{
    fprintf(stderr, "bench-channel: %s\n", err->message);
    exit(1);
}

/* A RAM file of its own, gone when the program ends. */
static struct ram make_ram(size_t mib)
{
    char path[] = "/dev/shm/bench-channel-XXXXXX";
    struct err err;
    struct ram ram;
    int fd = mkstemp(path);
    if (fd < 0 || ftruncate(fd, (off_t)(mib << 20)) < 0) {
        perror("bench-channel: /dev/shm");
        exit(1);
    }
    if (ram_open(path, (uint64_t)mib << 20, &err, &ram) < 0)
        die(&err);
    close(fd);
    unlink(path);
    return ram;
}

static void fill_ram(const struct ram *ram, unsigned random_percent)
{
    uint64_t state = 88172645463325252u, words[PAGE_BYTES / 8];
    struct err err;
    for (size_t page = 0; page < ram->pages; page++) {
        for (size_t i = 0; i < PAGE_BYTES / 8; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            words[i] = i * 100 < random_percent * (PAGE_BYTES / 8) ? state : page;
        }
        if (ram_write(ram, page, 1, words, &err) < 0)
            die(&err);
    }
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void send_all(struct run *run, struct sender *sender, size_t pages)
{
    struct bitmap all = bitmap_new(pages);
    bitmap_set_range(&all, 0, pages);
    double cpu = cpu_seconds();
    sender_pass(sender, &all);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    if (!run->failed)
        printf("{\"seconds\": %.4f, \"cpu_seconds\": %.4f, \"raw_bytes\": %llu, \"wire_bytes\": %llu}\n",
            (double)run->stats.duration_ns / 1e9, cpu_seconds() - cpu, (unsigned long long)run->stats.raw_bytes,
            (unsigned long long)run->stats.wire_bytes);
    bitmap_free(&all);
}

int main(int argc, char **argv)
{
    size_t mib = argc == 5 ? strtoul(argv[1], NULL, 10) : 0;
    uint32_t stripes = argc == 5 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    if (mib == 0 || stripes == 0 || stripes > SENDER_STRIPES_MAX) {
        fprintf(stderr, "usage: bench-channel MIB STRIPES RANDOM RECEIPT\n");
        return 2;
    }
    bool receipt = strtoul(argv[4], NULL, 10) != 0;
    struct run run = {.failed = false};
    struct ram from = make_ram(mib), to = make_ram(mib);
    struct digests sent, held;
    struct receiver *receiver;
    struct sender *sender;
    struct err err;
    uint8_t key[SEAL_KEY_BYTES];
    const char *addresses[SENDER_STRIPES_MAX];

    fill_ram(&from, (unsigned)strtoul(argv[3], NULL, 10));
    digests_init(&sent, from.pages, 1, receipt);
    digests_init(&held, to.pages, 1, true);
    seal_make_key(key);
    ENSURE(uv_loop_init(&run.loop) == 0);
    const struct receiver_options to_options = {.ram = &to,
        .digests = receipt ? &held : NULL,
        .key = key,
        .host = "127.0.0.1",
        .stripes = stripes,
        .on_failed = on_failed,
        .user = &run};
    if (receiver_open(&run.loop, &to_options, &err, &receiver) < 0)
        die(&err);
    for (uint32_t i = 0; i < stripes; i++)
        addresses[i] = receiver_address(receiver, i);
    const struct sender_options from_options = {.ram = &from,
        .key = key,
        .addresses = addresses,
        .stripes = stripes,
        .window_bytes = RECEIVER_WINDOW_BYTES,
        .digests = receipt ? &sent : NULL,
        .silent = true,
        .on_pass = on_pass,
        .on_failed = on_failed,
        .user = &run};
    if (sender_open(&run.loop, &from_options, &err, &sender) < 0)
        die(&err);
    send_all(&run, sender, from.pages);
    sender_close(sender, NULL);
    receiver_close(receiver, NULL);
    uv_run(&run.loop, UV_RUN_DEFAULT);
    uv_loop_close(&run.loop);
    digests_free(&sent);
    digests_free(&held);
    ram_close(&from);
    ram_close(&to);
    return run.failed;
}
