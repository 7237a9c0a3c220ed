#include "base/packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <sys/socket.h>
#include <unistd.h>

int packet_listen(const char *interface, const struct sock_fprog *filter, struct err *err, int *out)
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
