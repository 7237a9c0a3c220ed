#include "base/packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/ensure.h"

struct packet {
    uv_poll_t poll;
    int fd;
    packet_fn fn;
    void *user;
};

static int packet_listen(const char *interface, const struct sock_fprog *filter, struct err *err, int *out)
{
    struct sockaddr_ll at = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(interface)};
    if (at.sll_ifindex == 0)
        return err_errno(err, ERR_NOT_FOUND, errno, "interface %s", interface);
    /* Of protocol 0 it hears nothing until it is bound, so nothing that the filter would drop. */
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, ERR_DENIED, errno, "cannot make a packet socket");
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, filter, sizeof *filter) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        err_errno(err, ERR_INTERNAL, errno, "cannot listen at interface %s", interface);
        close(fd);
        return -1;
    }
    *out = fd;
    return 0;
}

static void packet_ready(uv_poll_t *poll, int status, int events)
{
    struct packet *packet = poll->data;
    (void)events;
    if (status < 0)
        uv_poll_stop(poll); /* the interface is gone */
    else
        packet->fn(packet->user, packet->fd);
}

int packet_open(uv_loop_t *loop, const char *interface, const struct sock_fprog *filter, packet_fn fn, void *user,
    struct err *err, struct packet **out)
{
    int fd = -1;
    if (packet_listen(interface, filter, err, &fd) < 0)
        return -1;
    struct packet *packet = mem_zalloc(sizeof *packet);
    packet->fd = fd;
    packet->fn = fn;
    packet->user = user;
    packet->poll.data = packet;
    ENSURE(uv_poll_init(loop, &packet->poll, fd) == 0);
    ENSURE(uv_poll_start(&packet->poll, UV_READABLE, packet_ready) == 0);
    *out = packet;
    return 0;
}

int packet_fd(const struct packet *packet)
{
    return packet->fd;
}

void packet_deafen(struct packet *packet)
{
    uv_poll_stop(&packet->poll);
}

static void packet_closed(uv_handle_t *handle)
{
    struct packet *packet = handle->data;
    close(packet->fd);
    free(packet);
}

void packet_close(struct packet *packet)
{
    if (packet)
        uv_close((uv_handle_t *)&packet->poll, packet_closed);
}
