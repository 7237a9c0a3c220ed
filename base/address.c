#include "base/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME       "tcp://"
#define SCHEME_BYTES (sizeof SCHEME - 1)
#define HOST_MAX     (INET6_ADDRSTRLEN + 2) /* brackets; the NUL is counted */

static bool ip_parse(const char *ip, bool ipv6, struct address *out)
{
    out->ipv6 = ipv6;
    return inet_pton(ipv6 ? AF_INET6 : AF_INET, ip, out->ip) == 1;
}

static bool host_parse(const char *text, size_t len, struct address *out)
{
    char host[HOST_MAX];
    if (len == 0 || len >= sizeof host)
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    if (host[0] != '[' || host[len - 1] != ']')
        return ip_parse(host, false, out);
    host[len - 1] = '\0';
    return ip_parse(host + 1, true, out);
}

static bool port_parse(const char *text, struct address *out)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits])
        return false;
    unsigned long port = strtoul(text, NULL, 10);
    out->port = (uint16_t)port;
    return port <= UINT16_MAX;
}

static bool host_port_parse(const char *text, struct address *out)
{
    struct address parsed = {0};
    const char *colon = strrchr(text, ':');
    if (!colon || !host_parse(text, (size_t)(colon - text), &parsed) || !port_parse(colon + 1, &parsed))
        return false;
    *out = parsed;
    return true;
}

int address_parse(const char *text, struct err *err, struct address *out)
{
    if (strncmp(text, SCHEME, SCHEME_BYTES) != 0 || !host_port_parse(text + SCHEME_BYTES, out))
        return err_set(err, ERR_INVALID,
            "address '%.100s' is not of the form tcp://IP:PORT, with an IPv6 address in [brackets]", text);
    return 0;
}

int address_parse_bare(const char *text, struct err *err, struct address *out)
{
    if (!host_port_parse(text, out))
        return err_set(
            err, ERR_INVALID, "address '%.100s' is not of the form IP:PORT, with an IPv6 address in [brackets]", text);
    return 0;
}

int address_of_ip(const char *ip, uint16_t port, struct err *err, struct address *out)
{
    struct address parsed = {.port = port};
    if (!ip_parse(ip, strchr(ip, ':') != NULL, &parsed))
        return err_set(err, ERR_INVALID, "'%.64s' is not an IP address", ip);
    *out = parsed;
    return 0;
}

const char *address_print(const struct address *address, char out[static ADDRESS_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN];
    inet_ntop(address->ipv6 ? AF_INET6 : AF_INET, address->ip, ip, sizeof ip);
    snprintf(out, ADDRESS_TEXT_MAX, address->ipv6 ? SCHEME "[%s]:%u" : SCHEME "%s:%u", ip, (unsigned)address->port);
    return out;
}

bool address_equal(const struct address *a, const struct address *b)
{
    return a->ipv6 == b->ipv6 && a->port == b->port && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

socklen_t address_socket(const struct address *address, struct sockaddr_storage *out)
{
    *out = (struct sockaddr_storage){0};
    if (address->ipv6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(address->port);
        memcpy(&v6->sin6_addr, address->ip, 16);
        return sizeof *v6;
    }
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address->port);
    memcpy(&v4->sin_addr, address->ip, 4);
    return sizeof *v4;
}
