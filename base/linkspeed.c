#include "base/linkspeed.h"

#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/address.h"
#include "base/cleanup.h"

#define ANY_PORT 9 /* connecting a UDP socket sends nothing */

static bool same_address(const struct sockaddr *a, const struct sockaddr_storage *b)
{
    if (!a || a->sa_family != b->ss_family)
        return false;
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr,
               sizeof(struct in6_addr)) == 0;
}

static bool interface_of(const struct sockaddr_storage *local, char out[IFNAMSIZ])
{
    struct ifaddrs *all;
    bool found = false;
    if (getifaddrs(&all) < 0)
        return false;
    for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        found = same_address(i->ifa_addr, local);
        if (found)
            snprintf(out, IFNAMSIZ, "%s", i->ifa_name);
    }
    freeifaddrs(all);
    return found;
}

/* Of the interface that has the address `local`; `fd` is any socket. */
static uint64_t speed_of(int fd, const struct sockaddr_storage *local)
{
    struct ethtool_cmd command = {.cmd = ETHTOOL_GSET};
    struct ifreq request = {.ifr_data = (char *)&command};
    if (!interface_of(local, request.ifr_name) || ioctl(fd, SIOCETHTOOL, &request) < 0)
        return 0;
    uint32_t mbit = ethtool_cmd_speed(&command);
    return mbit == 0 || mbit == (uint32_t)SPEED_UNKNOWN ? 0 : (uint64_t)mbit * 1000000 / 8;
}

uint64_t linkspeed_to(const char *address)
{
    struct sockaddr_storage peer, local;
    struct address parsed;
    struct err err;
    if (address_parse(address, &err, &parsed) < 0)
        return 0;
    parsed.port = ANY_PORT;
    socklen_t len = address_socket(&parsed, &peer), local_len = sizeof local;
    cleanup_fd int fd = socket(peer.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&peer, len) < 0 ||
        getsockname(fd, (struct sockaddr *)&local, &local_len) < 0)
        return 0;
    return speed_of(fd, &local);
}

uint64_t linkspeed_at(const char *ip)
{
    struct sockaddr_storage local;
    struct address parsed;
    struct err err;
    if (address_of_ip(ip, 0, &err, &parsed) < 0)
        return 0;
    address_socket(&parsed, &local);
    cleanup_fd int fd = socket(local.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? 0 : speed_of(fd, &local);
}
