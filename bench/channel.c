/* bench-channel: how fast pages get from one RAM file into another through the engine's own sender and receiver, each
 * in a process of its own as in a migration. bench/channel runs both; bench-channel-plain is the same program with
 * channel_plain.c in place of the cipher.
 *
 *   bench-channel receive IP MIB STRIPES RECEIPT
 *   bench-channel send MIB STRIPES RECEIPT RANDOM ENDPOINT...
 *
 * RECEIPT: 1 keeps digests on both sides, 0 does not. RANDOM: percent of each page that does not compress. `receive`
 * prints the endpoint of each stripe, one a line, receives until its input ends, and prints, as `send` does, one JSON
 * object: its CPU seconds from when it was ready on and the most memory it had; `send` also how long it took and the
 * bytes. The key is no secret here, as the pages are none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ensure.h"
#include "migrate/heap.h"
#include "migrate/receiver.h"
#include "migrate/sender.h"

static const uint8_t key[SEAL_KEY_BYTES] = {1};

struct run {
    uv_loop_t loop;
    struct ram ram;
    struct digests digests;
    bool receipt;
    uint32_t stripes;
    struct sender_stats stats;
};

static void on_pass(void *user, const struct sender_stats *stats)
{
    struct run *run = user;
    run->stats = *stats;
    uv_stop(&run->loop);
}

static void die(const struct err *err)
{
    fprintf(stderr, "bench-channel: %s\n", err->message);
    exit(1);
}

static void on_failed(void *user, const struct err *err)
{
    (void)user;
    die(err);
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

/* Of this program since it was executed, which ru_maxrss is not. No page of the RAM file is mapped. */
static double peak_mib(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    double kib = 0;
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtod(line + 6, NULL);
    if (status)
        fclose(status);
    return kib / 1024;
}

static void begin(struct run *run, const char *mib, const char *stripes, const char *receipt)
{
    size_t size = strtoul(mib, NULL, 10);
    run->stripes = (uint32_t)strtoul(stripes, NULL, 10);
    run->receipt = strtoul(receipt, NULL, 10) != 0;
    if (size == 0 || run->stripes == 0 || run->stripes > SENDER_STRIPES_MAX) {
        fprintf(stderr, "bench-channel: at least one MiB over 1 to %u stripes\n", SENDER_STRIPES_MAX);
        exit(2);
    }
    run->ram = make_ram(size);
    digests_init(&run->digests, run->ram.pages, 1, run->receipt);
    ENSURE(uv_loop_init(&run->loop) == 0);
}

static void end(struct run *run)
{
    uv_run(&run->loop, UV_RUN_DEFAULT);
    uv_loop_close(&run->loop);
    digests_free(&run->digests);
    ram_close(&run->ram);
}

static int run_receiver(char **argv)
{
    struct run run = {.receipt = false};
    struct receiver *receiver;
    struct err err;
    begin(&run, argv[1], argv[2], argv[3]);
    const struct receiver_options options = {.ram = &run.ram,
        .digests = run.receipt ? &run.digests : NULL,
        .key = key,
        .host = argv[0],
        .stripes = run.stripes,
        .on_failed = on_failed,
        .user = &run};
    if (receiver_open(&run.loop, &options, &err, &receiver) < 0)
        die(&err);
    double cpu = cpu_seconds();
    for (uint32_t i = 0; i < run.stripes; i++)
        puts(receiver_address(receiver, i));
    fflush(stdout);
    while (getchar() != EOF) /* a failure is seen by the sender, who hears no more */
        continue;
    printf("{\"cpu_seconds\": %.4f, \"peak_mib\": %.1f}\n", cpu_seconds() - cpu, peak_mib());
    receiver_close(receiver, NULL);
    end(&run);
    return 0;
}

static void send_all(struct run *run, struct sender *sender)
{
    struct bitmap all = bitmap_new(run->ram.pages);
    bitmap_set_range(&all, 0, run->ram.pages);
    double cpu = cpu_seconds();
    sender_pass(sender, &all);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    printf(
        "{\"seconds\": %.4f, \"cpu_seconds\": %.4f, \"peak_mib\": %.1f, \"raw_bytes\": %llu, \"wire_bytes\": %llu}\n",
        (double)run->stats.duration_ns / 1e9, cpu_seconds() - cpu, peak_mib(), (unsigned long long)run->stats.raw_bytes,
        (unsigned long long)run->stats.wire_bytes);
    bitmap_free(&all);
}

static int run_sender(int argc, char **argv)
{
    struct run run = {.receipt = false};
    struct sender *sender;
    struct err err;
    begin(&run, argv[0], argv[1], argv[2]);
    if ((uint32_t)argc != 4 + run.stripes) {
        fprintf(stderr, "bench-channel: one endpoint a stripe\n");
        return 2;
    }
    fill_ram(&run.ram, (unsigned)strtoul(argv[3], NULL, 10));
    const struct sender_options options = {.ram = &run.ram,
        .key = key,
        .addresses = (const char *const *)argv + 4,
        .stripes = run.stripes,
        .window_bytes = RECEIVER_WINDOW_BYTES,
        .digests = run.receipt ? &run.digests : NULL,
        .silent = true,
        .on_pass = on_pass,
        .on_failed = on_failed,
        .user = &run};
    if (sender_open(&run.loop, &options, &err, &sender) < 0)
        die(&err);
    send_all(&run, sender);
    sender_close(sender, NULL);
    end(&run);
    return 0;
}

int main(int argc, char **argv)
{
    heap_keep();
    if (argc == 6 && strcmp(argv[1], "receive") == 0)
        return run_receiver(argv + 2);
    if (argc > 6 && strcmp(argv[1], "send") == 0)
        return run_sender(argc - 2, argv + 2);
    fprintf(stderr, "usage: bench-channel receive IP MIB STRIPES RECEIPT\n"
                    "       bench-channel send MIB STRIPES RECEIPT RANDOM ENDPOINT...\n");
    return 2;
}
