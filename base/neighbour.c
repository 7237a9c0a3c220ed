#include "base/neighbour.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/mac.h"

bool neighbour_parse_mac(const char *text, uint8_t out[static 6])
{
    return mac_parse(text, out);
}

/* An address that one station may have. */
static bool unicast(const struct neighbour *n)
{
    static const uint8_t zero[16];
    if (n->ipv6)
        return n->ip[0] != 0xff && memcmp(n->ip, zero, 16) != 0;
    return n->ip[0] != 0 && n->ip[0] != 127 && n->ip[0] < 224;
}

int neighbour_parse(const char *line, size_t len, struct err *err, struct neighbour *out)
{
    char text[NEIGHBOUR_TEXT_MAX], mac[18], ip[INET6_ADDRSTRLEN], role[8] = "", extra;
    struct neighbour n = {0};
    int words = 0;
    if (len < sizeof text) {
        memcpy(text, line, len);
        text[len] = '\0';
        words = sscanf(text, "%17s %45s %7s %c", mac, ip, role, &extra);
    }
    if ((words != 2 && words != 3) || strlen(text) != len || !mac_parse(mac, n.mac) ||
        (words == 3 && strcmp(role, "router") != 0))
        return err_set(err, ERR_INVALID, "not 'MAC IP' or 'MAC IP router'");
    n.ipv6 = strchr(ip, ':') != NULL;
    n.router = words == 3;
    if (inet_pton(n.ipv6 ? AF_INET6 : AF_INET, ip, n.ip) != 1 || !unicast(&n))
        return err_set(err, ERR_INVALID, "'%s' is not the IP address of one station", ip);
    *out = n;
    return 0;
}

const char *neighbour_print(const struct neighbour *n, char out[static NEIGHBOUR_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN];
    inet_ntop(n->ipv6 ? AF_INET6 : AF_INET, n->ip, ip, sizeof ip);
    snprintf(out, NEIGHBOUR_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x %s%s", n->mac[0], n->mac[1], n->mac[2], n->mac[3],
        n->mac[4], n->mac[5], ip, n->router ? " router" : "");
    return out;
}

bool neighbour_equal(const struct neighbour *a, const struct neighbour *b)
{
    return memcmp(a->mac, b->mac, 6) == 0 && a->ipv6 == b->ipv6 && a->router == b->router &&
           memcmp(a->ip, b->ip, 16) == 0;
}

/* ARP, RFC 826: 14 bytes of Ethernet, types and lengths, operation, sender's MAC and IP. */
static bool learn_arp(const uint8_t *frame, size_t len, struct neighbour *out)
{
    static const uint8_t head[6] = {0, 1, 8, 0, 6, 4};
    if (len < 42 || memcmp(frame + 14, head, sizeof head) != 0 || memcmp(frame + 22, frame + 6, 6) != 0)
        return false;
    memcpy(out->ip, frame + 28, 4);
    return true;
}

/* Neighbour discovery, RFC 4861: ICMPv6 right behind the IPv6 header, with hop limit 255. A solicitation is sent from
 * the sender's address, an advertisement names the target. */
static bool learn_nd(const uint8_t *frame, size_t len, struct neighbour *out)
{
    if (len < 78 || frame[20] != 58 || frame[21] != 255 || (frame[54] != 135 && frame[54] != 136) || frame[55] != 0)
        return false;
    bool advertisement = frame[54] == 136;
    out->ipv6 = true;
    out->router = advertisement && frame[58] & 0x80;
    memcpy(out->ip, frame + (advertisement ? 62 : 22), 16);
    return true;
}

bool neighbour_learn(const uint8_t *frame, size_t len, struct neighbour *out)
{
    struct neighbour n = {0};
    if (len < 14)
        return false;
    unsigned type = (unsigned)frame[12] << 8 | frame[13];
    memcpy(n.mac, frame + 6, 6);
    if (type == 0x0806 ? !learn_arp(frame, len, &n) : type != 0x86dd || !learn_nd(frame, len, &n))
        return false;
    if (!unicast(&n) || n.mac[0] & 1)
        return false;
    *out = n;
    return true;
}
