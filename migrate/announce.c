#include "migrate/announce.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

struct rarp_frame {
    struct ether_header ethernet;
    uint16_t hardware, protocol;
    uint8_t hardware_len, protocol_len;
    uint16_t operation;
    uint8_t sender_mac[6], sender_ip[4], target_mac[6], target_ip[4];
    uint8_t padding[18]; /* up to the least length of an Ethernet frame */
} __attribute__((packed));

#define RARP_REQUEST 3

int announce_mac(const char *interface, const char *mac, struct err *err)
{
    unsigned byte[6];
    char extra;
    if (sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x%c", &byte[0], &byte[1], &byte[2], &byte[3], &byte[4], &byte[5], &extra) !=
        6)
        return err_set(err, ERR_INVALID, "'%.32s' is not a MAC address", mac);
    struct rarp_frame frame = {
        .ethernet.ether_type = htons(ETHERTYPE_REVARP),
        .hardware = htons(1),
        .protocol = htons(ETHERTYPE_IP),
        .hardware_len = 6,
        .protocol_len = 4,
        .operation = htons(RARP_REQUEST),
    };
    memset(frame.ethernet.ether_dhost, 0xff, 6);
    for (int i = 0; i < 6; i++)
        frame.ethernet.ether_shost[i] = frame.sender_mac[i] = frame.target_mac[i] = (uint8_t)byte[i];

    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface), .sll_halen = 6};
    if (to.sll_ifindex == 0)
        return err_errno(err, ERR_NOT_FOUND, errno, "interface %s", interface);
    memset(to.sll_addr, 0xff, 6);
    cleanup_fd int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(err, ERR_DENIED, errno, "cannot make a packet socket");
    if (sendto(fd, &frame, sizeof frame, 0, (struct sockaddr *)&to, sizeof to) < 0)
        return err_errno(err, ERR_UNAVAILABLE, errno, "cannot send from %s", interface);
    return 0;
}
