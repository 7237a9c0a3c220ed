#include "migrate/announce.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

struct arp_frame {
    struct ether_header ethernet;
    uint16_t hardware, protocol;
    uint8_t hardware_len, protocol_len;
    uint16_t operation;
    uint8_t sender_mac[6], sender_ip[4], target_mac[6], target_ip[4];
    uint8_t padding[18]; /* up to the least length of an Ethernet frame */
} __attribute__((packed));

#define ARP_REQUEST   1
#define RARP_REQUEST  3
#define ND_OPTION_MAC 2 /* target link-layer address */
#define ND_HOP_LIMIT  255

struct advertisement_frame {
    struct ether_header ethernet;
    struct ip6_hdr ip;
    struct nd_neighbor_advert advert;
    uint8_t option, option_len, mac[6];
} __attribute__((packed));

int announce_open(struct err *err, int *out)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(err, ERR_DENIED, errno, "cannot make a packet socket");
    *out = fd;
    return 0;
}

static int announce_send(int socket, const char *interface, const void *frame, size_t len, struct err *err)
{
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface), .sll_halen = 6};
    if (to.sll_ifindex == 0)
        return err_errno(err, ERR_NOT_FOUND, errno, "interface %s", interface);
    memcpy(to.sll_addr, frame, 6); /* a frame begins with its destination */
    if (sendto(socket, frame, len, 0, (struct sockaddr *)&to, sizeof to) < 0)
        return err_errno(err, ERR_UNAVAILABLE, errno, "cannot send from %s", interface);
    return 0;
}

/* Broadcast from this MAC address, about itself. */
static struct arp_frame arp_frame(uint16_t type, uint16_t operation, const uint8_t mac[static 6])
{
    struct arp_frame frame = {
        .ethernet.ether_type = htons(type),
        .hardware = htons(1),
        .protocol = htons(ETHERTYPE_IP),
        .hardware_len = 6,
        .protocol_len = 4,
        .operation = htons(operation),
    };
    memset(frame.ethernet.ether_dhost, 0xff, 6);
    memcpy(frame.ethernet.ether_shost, mac, 6);
    memcpy(frame.sender_mac, mac, 6);
    return frame;
}

int announce_mac(int socket, const char *interface, const char *mac, struct err *err)
{
    uint8_t bytes[6];
    if (!neighbour_parse_mac(mac, bytes))
        return err_set(err, ERR_INVALID, "'%.32s' is not the MAC address of one station", mac);
    struct arp_frame frame = arp_frame(ETHERTYPE_REVARP, RARP_REQUEST, bytes);
    memcpy(frame.target_mac, bytes, 6);
    return announce_send(socket, interface, &frame, sizeof frame, err);
}

/* RFC 1071, over the pseudo header of RFC 8200 and the message: both are a whole number of 16-bit words. */
static uint16_t icmp6_sum(const struct advertisement_frame *frame)
{
    const uint8_t *addresses = (const uint8_t *)&frame->ip.ip6_src, *message = (const uint8_t *)&frame->advert;
    size_t len = sizeof *frame - offsetof(struct advertisement_frame, advert);
    uint32_t sum = (uint32_t)len + IPPROTO_ICMPV6;
    for (size_t i = 0; i < 32; i += 2)
        sum += (uint32_t)addresses[i] << 8 | addresses[i + 1];
    for (size_t i = 0; i < len; i += 2)
        sum += (uint32_t)message[i] << 8 | message[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

/* To all nodes. It overrides what they hold, and repeats what the guest said of its being a router: neighbours drop a
 * default route through one that says it is none. */
static struct advertisement_frame advertisement_frame(const struct neighbour *n)
{
    static const uint8_t all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
    struct advertisement_frame frame = {
        .ethernet.ether_type = htons(ETHERTYPE_IPV6),
        .advert.nd_na_type = ND_NEIGHBOR_ADVERT,
        .advert.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE | (n->router ? ND_NA_FLAG_ROUTER : 0),
        .option = ND_OPTION_MAC,
        .option_len = 1,
    };
    memcpy(frame.ethernet.ether_dhost, all_nodes_mac, 6);
    memcpy(frame.ethernet.ether_shost, n->mac, 6);
    frame.ip.ip6_flow = htonl(6u << 28);
    frame.ip.ip6_plen = htons(sizeof frame - offsetof(struct advertisement_frame, advert));
    frame.ip.ip6_nxt = IPPROTO_ICMPV6;
    frame.ip.ip6_hlim = ND_HOP_LIMIT;
    memcpy(&frame.ip.ip6_src, n->ip, 16);
    frame.ip.ip6_dst = (struct in6_addr){.s6_addr = {0xff, 2, [15] = 1}};
    memcpy(&frame.advert.nd_na_target, n->ip, 16);
    memcpy(frame.mac, n->mac, 6);
    frame.advert.nd_na_cksum = icmp6_sum(&frame);
    return frame;
}

size_t announce_frame(const struct neighbour *n, uint8_t out[static ANNOUNCE_FRAME_MAX])
{
    if (n->ipv6) {
        struct advertisement_frame frame = advertisement_frame(n);
        memcpy(out, &frame, sizeof frame);
        return sizeof frame;
    }
    struct arp_frame frame = arp_frame(ETHERTYPE_ARP, ARP_REQUEST, n->mac);
    memcpy(frame.sender_ip, n->ip, 4);
    memcpy(frame.target_ip, n->ip, 4);
    memcpy(out, &frame, sizeof frame);
    return sizeof frame;
}

int announce_address(int socket, const char *interface, const struct neighbour *n, struct err *err)
{
    uint8_t frame[ANNOUNCE_FRAME_MAX];
    size_t len = announce_frame(n, frame);
    return announce_send(socket, interface, frame, len, err);
}
