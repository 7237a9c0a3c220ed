/* Opening and closing a relay. */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ensure.h"
#include "migrate/relay_private.h"

static void relay_closed(uv_handle_t *handle)
{
    struct relay *relay = handle->data;
    explicit_bzero(relay->key, sizeof relay->key);
    free(relay);
}

static struct relay *relay_new(uv_loop_t *loop, bool source, const char *path, const uint8_t *key)
{
    struct relay *relay = mem_zalloc(sizeof *relay);
    relay->loop = loop;
    relay->source = source;
    memcpy(relay->key, key, SEAL_KEY_BYTES);
    ENSURE(strlen(path) < sizeof relay->path);
    strcpy(relay->path, path);
    if (source)
        ENSURE(uv_pipe_init(loop, &relay->listener.pipe, 0) == 0);
    else
        ENSURE(uv_tcp_init(loop, &relay->listener.tcp) == 0);
    relay->listener.handle.data = relay;
    return relay;
}

/* "tcp://IP:PORT", with brackets around an IPv6 address. */
static int address_parse(const char *address, struct sockaddr_storage *out)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "tcp://", 6) != 0 || !colon || (size_t)(colon - address) >= sizeof host + 6)
        return -1;
    int port = atoi(colon + 1);
    snprintf(host, sizeof host, "%.*s", (int)(colon - address - 6), address + 6);
    size_t len = strlen(host);
    if (host[0] == '[' && host[len - 1] == ']') {
        host[len - 1] = '\0';
        return uv_ip6_addr(host + 1, port, (struct sockaddr_in6 *)out) == 0 ? 0 : -1;
    }
    return uv_ip4_addr(host, port, (struct sockaddr_in *)out) == 0 ? 0 : -1;
}

int relay_open_source(uv_loop_t *loop, const char *path, const char *address, const uint8_t *key,
    const struct relay_watch *watch, struct err *err, struct relay **out)
{
    struct relay *relay = relay_new(loop, true, path, key);
    relay->watch = *watch;
    if (address_parse(address, &relay->to) < 0) {
        relay_close(relay);
        return err_set(err, ERR_PROTOCOL, "'%.64s' is not where disks can be sent to", address);
    }
    unlink(path);
    mode_t old = umask(0177);
    int rc = uv_pipe_bind(&relay->listener.pipe, path);
    umask(old);
    if (rc == 0)
        rc = uv_listen(&relay->listener.stream, 16, relay_source_accept);
    if (rc != 0) {
        relay_close(relay);
        return err_set(err, ERR_INTERNAL, "cannot listen at %s: %s", path, uv_strerror(rc));
    }
    relay_watch_start(relay);
    *out = relay;
    return 0;
}

static void address_print(struct relay *relay, const char *host)
{
    struct sockaddr_storage bound;
    int len = sizeof bound;
    ENSURE(uv_tcp_getsockname(&relay->listener.tcp, (struct sockaddr *)&bound, &len) == 0);
    uint16_t port = bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                : ((struct sockaddr_in *)&bound)->sin_port;
    snprintf(relay->address, sizeof relay->address, "tcp://%s:%u", host, (unsigned)be16toh(port));
}

int relay_open_destination(uv_loop_t *loop, const char *host, const char *from, const char *path, const uint8_t *key,
    struct err *err, struct relay **out)
{
    struct relay *relay = relay_new(loop, false, path, key);
    struct sockaddr_storage bind_to;
    char any_port[128];
    if (uv_ip4_addr(from, 0, (struct sockaddr_in *)&relay->from) != 0 &&
        uv_ip6_addr(from, 0, (struct sockaddr_in6 *)&relay->from) != 0) {
        relay_close(relay);
        return err_set(err, ERR_INTERNAL, "'%.64s' is not the source's address", from);
    }
    snprintf(any_port, sizeof any_port, "tcp://%.100s:0", host);
    int rc = address_parse(any_port, &bind_to) < 0 ? UV_EINVAL
                                                   : uv_tcp_bind(&relay->listener.tcp, (struct sockaddr *)&bind_to, 0);
    if (rc == 0)
        rc = uv_listen(&relay->listener.stream, 16, relay_destination_accept);
    if (rc != 0) {
        relay_close(relay);
        return err_set(err, ERR_INTERNAL, "cannot listen for disks at %s: %s", host, uv_strerror(rc));
    }
    address_print(relay, host);
    *out = relay;
    return 0;
}

const char *relay_address(const struct relay *relay)
{
    return relay->address;
}

uint64_t relay_wire_bytes(const struct relay *relay)
{
    return relay->wire_bytes;
}

void relay_close(struct relay *relay)
{
    if (!relay)
        return;
    while (relay->links) {
        struct link *link = relay->links;
        relay_link_close(link);
        link->relay = NULL;
    }
    loop_timer_free(relay->looking);
    if (relay->source)
        unlink(relay->path);
    uv_close(&relay->listener.handle, relay_closed);
}
