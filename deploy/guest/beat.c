#include "beat.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "load.h"

#define PERIOD_US_MIN 500
#define PERIOD_US_MAX 1000000

struct client {
    struct sockaddr_in address;
    uint64_t period_ns;
    uint64_t until_ns;
};

/* The latest request, waited for only when `wait`; anything but a number within bounds changes nothing. */
static void request_read(int fd, bool wait, struct client *client)
{
    char text[16];
    struct sockaddr_in peer;
    socklen_t length = sizeof(peer);
    ssize_t got = recvfrom(fd, text, sizeof(text) - 1, wait ? 0 : MSG_DONTWAIT, (struct sockaddr *)&peer, &length);

    if (got <= 0 || length != sizeof(peer)) {
        return;
    }
    char *end;
    text[got] = '\0';
    unsigned long period_us = strtoul(text, &end, 10);
    if (*end == '\0' && period_us >= PERIOD_US_MIN && period_us <= PERIOD_US_MAX) {
        *client = (struct client){peer, period_us * 1000ULL, now_ns() + BEAT_LEASE_S * 1000000000ULL};
    }
}

static void *beat(void *arg)
{
    int fd = (int)(intptr_t)arg;
    struct client client = {0};
    struct beat beat = {0};
    uint64_t next = 0;

    for (;;) {
        bool idle = now_ns() >= client.until_ns;
        request_read(fd, idle, &client);
        if (idle) {
            next = now_ns();
            continue;
        }
        beat.number++;
        beat.now_ns = now_ns();
        beat.work = work_total();
        sendto(fd, &beat, sizeof(beat), MSG_DONTWAIT, (struct sockaddr *)&client.address, sizeof(client.address));
        tick_wait(&next, client.period_ns);
    }
    return NULL;
}

int beat_start(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(BEAT_PORT)};
    pthread_t thread;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        return -1;
    }
    return pthread_create(&thread, NULL, beat, (void *)(intptr_t)fd) == 0 ? 0 : -1;
}
