/* drover-pinger: how long is a guest dark? Probes an address at 1 kHz and says how long it was without an answer.
 *
 *   drover-pinger [--interval-us 1000] [--seconds N] [--threshold-ms 5] [--udp PORT] ADDRESS
 *
 * Sends an ICMP echo request (needs CAP_NET_RAW), or with --udp a datagram to an echo service, every interval.
 * On standard input:
 *   - report    prints the JSON object for the time since the last report (or the start), and goes on
 *   - stop      prints the object for the rest and ends; so do SIGINT, SIGTERM, and the end of N seconds or, where no
 *               number of seconds is given, of the input
 *
 * Fields: sent received lost blackout_ms blackout_at_ms rtt_median_ms rtt_p99_ms rtt_max_ms send_gap_ms interval_ms
 * spans[{at_ms length_ms}] span_count begin_monotonic_ns. Times "at" count from begin_monotonic_ns. probes.h says what
 * the blackout is; spans are those over the threshold; lost is what has no answer when the report is made.
 *
 * One thread, real-time priority where that is allowed: the prober must not measure its own scheduling. Replies carry
 * the kernel's receive time. The array of probes is reserved for the longest run and touched as it fills. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/ip.h>
#include <linux/icmp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/probes.h"

#define PROBES_MAX     (4U << 20) /* over an hour at 1 kHz */
#define PAYLOAD_MAGIC  0x64726f766572706eULL
#define DEFAULT_REPORT 5

struct payload {
    uint64_t magic;
    uint64_t token;
    uint64_t index;
};

struct icmp_probe {
    struct icmphdr header;
    struct payload payload;
};

static struct {
    uint64_t interval_ns, threshold_ns, seconds;
    uint16_t udp_port;
    struct sockaddr_in peer;
    int socket;
    uint64_t token; /* tells our replies from those of another run */
    struct probe *probes;
    size_t count;
    size_t window; /* first probe of the report to come */
} pinger = {.interval_ns = 1000000, .threshold_ns = DEFAULT_REPORT * 1000000ULL};

static void die(const char *what)
{
    fprintf(stderr, "drover-pinger: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t clock_read(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static uint16_t checksum(const void *data, size_t bytes)
{
    const uint16_t *words = data;
    uint32_t sum = 0;
    for (size_t i = 0; i < bytes / 2; i++) {
        sum += words[i];
    }
    sum = (sum >> 16) + (sum & 0xffff);
    sum += sum >> 16;
    return (uint16_t)~sum;
}

static void probe_send(void)
{
    struct icmp_probe probe = {
        .header = {.type = ICMP_ECHO,
            .un.echo = {.id = htons((uint16_t)pinger.token), .sequence = htons((uint16_t)pinger.count)}},
        .payload = {PAYLOAD_MAGIC, pinger.token, pinger.count},
    };
    const void *data = &probe;
    size_t bytes = sizeof(probe);

    if (pinger.count == PROBES_MAX) {
        return;
    }
    if (pinger.udp_port != 0) {
        data = &probe.payload;
        bytes = sizeof(probe.payload);
    } else {
        probe.header.checksum = checksum(&probe, sizeof(probe));
    }
    pinger.probes[pinger.count].sent_ns = clock_read(CLOCK_MONOTONIC);
    pinger.count++;
    /* A failure (no neighbour, full queue) is a probe that is not answered. */
    (void)!send(pinger.socket, data, bytes, MSG_DONTWAIT);
}

/* The kernel stamps replies with the wall clock; steps of it between stamp and now would need milliseconds of bad luck.
 */
static uint64_t receive_time(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
            uint64_t age =
                clock_read(CLOCK_REALTIME) - ((uint64_t)stamp.tv_sec * 1000000000ULL + (uint64_t)stamp.tv_nsec);
            return clock_read(CLOCK_MONOTONIC) - (age < 60000000000ULL ? age : 0);
        }
    }
    return clock_read(CLOCK_MONOTONIC);
}

static bool payload_find(const uint8_t *data, size_t bytes, struct payload *out)
{
    size_t skip = 0;
    if (pinger.udp_port == 0) {
        if (bytes < sizeof(struct iphdr)) {
            return false;
        }
        skip = (size_t)(data[0] & 0xf) * 4 + sizeof(struct icmphdr);
    }
    if (bytes < skip + sizeof(*out)) {
        return false;
    }
    memcpy(out, data + skip, sizeof(*out));
    return out->magic == PAYLOAD_MAGIC && out->token == pinger.token && out->index < pinger.count;
}

static void replies_read(void)
{
    for (;;) {
        uint8_t data[256];
        union {
            char bytes[CMSG_SPACE(sizeof(struct timespec))];
            struct cmsghdr align;
        } control;
        struct iovec part = {data, sizeof(data)};
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        struct payload payload;

        ssize_t got = recvmsg(pinger.socket, &message, MSG_DONTWAIT);
        if (got < 0) {
            if (errno == EAGAIN) {
                return;
            }
            continue; /* an ICMP error for an earlier probe */
        }
        if (payload_find(data, (size_t)got, &payload) && pinger.probes[payload.index].answered_ns == 0) {
            uint64_t at = receive_time(&message);
            uint64_t sent = pinger.probes[payload.index].sent_ns;
            pinger.probes[payload.index].answered_ns = at > sent ? at : sent + 1;
        }
    }
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void report(void)
{
    static struct probe_stats stats;
    const struct probe *first = pinger.probes + pinger.window;
    size_t count = pinger.count - pinger.window;
    uint64_t begin_ns = count > 0 ? first->sent_ns : clock_read(CLOCK_MONOTONIC);
    const struct probe **scratch = malloc((count + 1) * sizeof(*scratch));

    if (scratch == NULL) {
        die("memory");
    }
    replies_read();
    probes_evaluate(
        first, count, pinger.interval_ns, pinger.threshold_ns, clock_read(CLOCK_MONOTONIC), scratch, &stats);
    free(scratch);
    printf("{\"sent\":%llu,\"received\":%llu,\"lost\":%llu,\"blackout_ms\":%.3f,\"blackout_at_ms\":%.3f,\"rtt_median_"
           "ms\":%.3f,"
           "\"rtt_p99_ms\":%.3f,\"rtt_max_ms\":%.3f,\"send_gap_ms\":%.3f,\"interval_ms\":%.3f,\"spans\":[",
        (unsigned long long)stats.sent, (unsigned long long)stats.received,
        (unsigned long long)(stats.sent - stats.received), ms(stats.blackout.length_ns),
        stats.blackout.begin_ns > begin_ns ? ms(stats.blackout.begin_ns - begin_ns) : 0.0, ms(stats.rtt_median_ns),
        ms(stats.rtt_p99_ns), ms(stats.rtt_max_ns), ms(stats.send_gap_ns), ms(pinger.interval_ns));
    for (size_t i = 0; i < stats.span_count && i < DARK_SPANS_MAX; i++) {
        const struct dark_span *span = &stats.spans[i];
        printf("%s{\"at_ms\":%.3f,\"length_ms\":%.3f}", i > 0 ? "," : "",
            span->begin_ns > begin_ns ? ms(span->begin_ns - begin_ns) : 0.0, ms(span->length_ns));
    }
    printf("],\"span_count\":%zu,\"begin_monotonic_ns\":%llu}\n", stats.span_count, (unsigned long long)begin_ns);
    fflush(stdout);
    pinger.window = pinger.count;
}

static uint64_t number_option(const char *text, uint64_t min, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value < min || value > max) {
        fprintf(stderr, "drover-pinger: %s: expected a number from %llu to %llu\n", text, (unsigned long long)min,
            (unsigned long long)max);
        exit(2);
    }
    return value;
}

static void options_read(int argc, char **argv)
{
    static const struct option options[] = {{"interval-us", required_argument, NULL, 'i'},
        {"seconds", required_argument, NULL, 's'}, {"threshold-ms", required_argument, NULL, 't'},
        {"udp", required_argument, NULL, 'u'}, {NULL, 0, NULL, 0}};

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        switch (option) {
        case 'i':
            pinger.interval_ns = number_option(optarg, 100, 10000000) * 1000;
            break;
        case 's':
            pinger.seconds = number_option(optarg, 1, 3600);
            break;
        case 't':
            pinger.threshold_ns = number_option(optarg, 1, 60000) * 1000000;
            break;
        case 'u':
            pinger.udp_port = (uint16_t)number_option(optarg, 1, 65535);
            break;
        default:
            optind = argc;
        }
    }
    pinger.peer = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(pinger.udp_port)};
    if (optind != argc - 1 || inet_pton(AF_INET, argv[optind], &pinger.peer.sin_addr) != 1) {
        fprintf(
            stderr, "usage: drover-pinger [--interval-us N] [--seconds N] [--threshold-ms N] [--udp PORT] ADDRESS\n");
        exit(2);
    }
}

static void socket_open(void)
{
    int one = 1, receive_bytes = 1 << 20;
    uint32_t replies_only = ~(1U << ICMP_ECHOREPLY);

    pinger.socket = pinger.udp_port != 0 ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
                                         : socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    if (pinger.socket < 0) {
        die(pinger.udp_port != 0 ? "socket" : "raw socket (needs CAP_NET_RAW; --udp does not)");
    }
    if (pinger.udp_port == 0) {
        setsockopt(pinger.socket, SOL_RAW, ICMP_FILTER, &replies_only, sizeof(replies_only));
    }
    setsockopt(pinger.socket, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one));
    setsockopt(pinger.socket, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    if (connect(pinger.socket, (struct sockaddr *)&pinger.peer, sizeof(pinger.peer)) != 0) {
        die("connect");
    }
}

enum input { INPUT_MORE, INPUT_STOP, INPUT_END };

static enum input commands_read(void)
{
    static char line[64];
    static size_t used;
    char next;
    ssize_t got;

    while ((got = read(STDIN_FILENO, &next, 1)) == 1) {
        if (next != '\n') {
            line[used < sizeof(line) - 1 ? used++ : used] = next;
            continue;
        }
        line[used] = '\0';
        used = 0;
        if (strcmp(line, "stop") == 0) {
            return INPUT_STOP;
        }
        if (strcmp(line, "report") == 0) {
            report();
        }
        struct pollfd more = {STDIN_FILENO, POLLIN, 0};
        if (poll(&more, 1, 0) <= 0) {
            return INPUT_MORE;
        }
    }
    return got == 0 ? INPUT_END : INPUT_MORE;
}

int main(int argc, char **argv)
{
    struct sched_param priority = {.sched_priority = 1};
    sigset_t ends;

    options_read(argc, argv);
    socket_open();
    pinger.token = clock_read(CLOCK_MONOTONIC) ^ (uint64_t)getpid();
    pinger.probes = mmap(NULL, PROBES_MAX * sizeof(*pinger.probes), PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pinger.probes == MAP_FAILED) {
        die("memory");
    }
    sched_setscheduler(0, SCHED_FIFO, &priority); /* not allowed: measures a little of its own waiting */

    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    int signals = signalfd(-1, &ends, SFD_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct timespec period = {
        .tv_sec = (time_t)(pinger.interval_ns / 1000000000ULL), .tv_nsec = (long)(pinger.interval_ns % 1000000000ULL)};
    struct itimerspec schedule = {period, period};
    if (signals < 0 || timer < 0 || timerfd_settime(timer, 0, &schedule, NULL) != 0) {
        die("timer");
    }

    uint64_t end_ns = pinger.seconds > 0 ? clock_read(CLOCK_MONOTONIC) + pinger.seconds * 1000000000ULL : UINT64_MAX;
    struct pollfd events[] = {
        {timer, POLLIN, 0}, {pinger.socket, POLLIN, 0}, {signals, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    for (bool on = true; on && clock_read(CLOCK_MONOTONIC) < end_ns;) {
        uint64_t expirations;
        if (poll(events, 4, -1) < 0) {
            continue;
        }
        if (events[0].revents != 0 && read(timer, &expirations, sizeof(expirations)) > 0) {
            probe_send(); /* one, also when the prober was late: a burst would not show more */
        }
        if (events[1].revents != 0) {
            replies_read();
        }
        on = events[2].revents == 0;
        if (on && events[3].revents != 0) {
            enum input input = commands_read();
            on = input == INPUT_MORE || (input == INPUT_END && pinger.seconds > 0);
            events[3].fd = input == INPUT_END ? -1 : STDIN_FILENO;
        }
    }
    report();
    return 0;
}
