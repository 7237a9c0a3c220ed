#include "base/linkspeed.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ANY_PORT 9 /* connecting a UDP socket sends nothing */

static socklen_t parse(const char *address, struct sockaddr_storage *out)
{
    char ip[INET6_ADDRSTRLEN];
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    *out = (struct sockaddr_storage){0};
    if (sscanf(address, "tcp://%45[0-9.]:", ip) == 1 && inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(ANY_PORT);
        return sizeof *v4;
    }
    if (sscanf(address, "tcp://[%45[0-9a-fA-F:.]]", ip) == 1 && inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(ANY_PORT);
        return sizeof *v6;
    }
    return 0;
}

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
    socklen_t len = parse(address, &peer), local_len = sizeof local;
    cleanup_fd int fd = len ? socket(peer.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&peer, len) < 0 ||
        getsockname(fd, (struct sockaddr *)&local, &local_len) < 0)
        return 0;
    return speed_of(fd, &local);
}

uint64_t linkspeed_at(const char *ip)
{
    char address[INET6_ADDRSTRLEN + 16];
    struct sockaddr_storage local;
    snprintf(address, sizeof address, strchr(ip, ':') ? "tcp://[%s]:1" : "tcp://%s:1", ip);
    socklen_t len = parse(address, &local);
    cleanup_fd int fd = len ? socket(local.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    return fd < 0 ? 0 : speed_of(fd, &local);
}
