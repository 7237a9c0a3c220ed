#include "migrate/ear.h"

#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/packet.h"

#define FRAMES_AT_ONCE 16
#define RECEIVE_BYTES  1 /* the kernel makes of it the least it allows: room for a frame or two */

struct port {
    struct port *next;
    struct ear *ear;
    struct packet *packet;
};

struct ear {
    struct port *ports;
    ear_fn fn;
    void *user;
};

/* That there was a frame is all we want to know of it. */
static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 2, 0),
    BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_REVARP, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, 0),
    BPF_STMT(BPF_RET | BPF_K, 1),
};

/* When the frame came in; now, where the kernel does not say. */
static uint64_t stamp_of(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        struct timespec at;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS || c->cmsg_len < CMSG_LEN(sizeof at))
            continue;
        memcpy(&at, CMSG_DATA(c), sizeof at);
        return clock_of_wall_ns((int64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000);
    }
    return clock_now_ns();
}

static void ear_deafen(struct ear *ear)
{
    for (struct port *port = ear->ports; port; port = port->next)
        packet_deafen(port->packet);
}

static void port_ready(void *user, int fd)
{
    struct port *port = user;
    for (int i = 0; i < FRAMES_AT_ONCE; i++) {
        char byte;
        union {
            struct cmsghdr header;
            char room[CMSG_SPACE(sizeof(struct timespec))];
        } control;
        struct iovec data = {&byte, sizeof byte};
        struct msghdr message = {
            .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        if (recvmsg(fd, &message, MSG_DONTWAIT) < 0)
            return;
        if (port->ear->fn(port->ear->user, stamp_of(&message))) {
            ear_deafen(port->ear);
            return;
        }
    }
}

static void port_open(uv_loop_t *loop, struct ear *ear, const char *name)
{
    const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    struct err err;
    const int on = 1, room = RECEIVE_BYTES;
    struct port *port = mem_zalloc(sizeof *port);
    if (packet_open(loop, name, &program, port_ready, port, &err, &port->packet) < 0) {
        log_event(LOG_WARN, "port.not_heard", "port=%s reason=%s", name, LOG_QUOTE(err.message));
        free(port);
        return;
    }
    int fd = packet_fd(port->packet);
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room) < 0)
        log_event(LOG_WARN, "port.not_stamped", "port=%s reason=%s", name, LOG_QUOTE(strerror(errno)));
    port->ear = ear;
    LL_PREPEND(ear->ports, port);
}

struct ear *ear_open(uv_loop_t *loop, const char *ports, ear_fn fn, void *user)
{
    struct ear *ear = mem_zalloc(sizeof *ear);
    ear->fn = fn;
    ear->user = user;
    while (*ports) {
        size_t len = strcspn(ports, "\n");
        char name[IF_NAMESIZE];
        snprintf(name, sizeof name, "%.*s", (int)len, ports);
        port_open(loop, ear, name);
        ports += len + (ports[len] == '\n');
    }
    return ear;
}

void ear_close(struct ear *ear)
{
    if (!ear)
        return;
    for (struct port *port = ear->ports, *next; port; port = next) {
        next = port->next;
        packet_close(port->packet);
        free(port);
    }
    free(ear);
}
