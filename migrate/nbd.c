#include "migrate/nbd.h"

#include <endian.h>
#include <string.h>

#define GREETING_BYTES 18u /* of the server: NBDMAGIC, IHAVEOPT, flags */
#define FLAGS_BYTES    4u  /* of the client, before its first option */

/* How a frame begins. */
#define OPTION           0x49484156u
#define OPTION_REPLY     0x0003e889u
#define REQUEST          0x25609513u
#define REQUEST_EXTENDED 0x21e41c71u
#define REPLY_SIMPLE     0x67446698u
#define REPLY            0x668e33efu
#define REPLY_EXTENDED   0x6e8a278cu

enum { CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS };

#define CMD_HAS_PAYLOAD (1u << 5)
#define REPLY_IS_LAST   1u
#define OPTION_ACK      1u
#define OPTION_ERROR    (1u << 31)

static uint16_t get16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return be16toh(value);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

void nbd_init(struct nbd *nbd)
{
    *nbd = (struct nbd){.client.skip = FLAGS_BYTES, .server.skip = GREETING_BYTES};
}

/* 0: that is not NBD. */
static size_t head_bytes(uint32_t magic)
{
    switch (magic) {
    case OPTION:
    case REPLY_SIMPLE:
        return 16;
    case OPTION_REPLY:
    case REPLY:
        return 20;
    case REQUEST:
        return 28;
    case REQUEST_EXTENDED:
    case REPLY_EXTENDED:
        return 32;
    default:
        return 0;
    }
}

/* --- the client's frames --- */

static void request_begins(struct nbd *nbd, bool extended)
{
    const uint8_t *head = nbd->client.head;
    uint16_t flags = get16(head + 4), type = get16(head + 6);
    uint64_t len = extended ? get64(head + 24) : get32(head + 24);
    nbd->passing = (struct nbd_request){.cookie = get64(head + 8),
        .offset = get64(head + 16),
        .type = type,
        .extended = extended,
        .data_bytes = type == CMD_READ ? len : 0};
    nbd->client.skip = type == CMD_WRITE || (extended && (flags & CMD_HAS_PAYLOAD)) ? len : 0;
}

static void client_head(struct nbd *nbd, uint32_t magic)
{
    if (magic == OPTION)
        nbd->client.skip = get32(nbd->client.head + 12);
    else if (magic == REQUEST || magic == REQUEST_EXTENDED)
        request_begins(nbd, magic == REQUEST_EXTENDED);
    else
        nbd->unknown = true;
}

static void client_frame(struct nbd *nbd, uint32_t magic)
{
    if (magic == OPTION)
        nbd->option = true;
    else if (nbd->passing.type == CMD_DISC)
        return; /* is not answered */
    else if (nbd->count == NBD_REQUESTS_MAX)
        nbd->unknown = true;
    else
        nbd->requests[nbd->count++] = nbd->passing;
}

/* --- the server's frames --- */

static struct nbd_request *request_find(struct nbd *nbd, uint64_t cookie)
{
    for (unsigned i = 0; i < nbd->count; i++)
        if (nbd->requests[i].cookie == cookie)
            return &nbd->requests[i];
    return NULL;
}

static void server_head(struct nbd *nbd, uint32_t magic)
{
    struct nbd_frame *f = &nbd->server;
    const struct nbd_request *request;
    if (magic == OPTION_REPLY) {
        f->skip = get32(f->head + 16);
    } else if (magic == REPLY_SIMPLE) {
        request = request_find(nbd, get64(f->head + 8));
        f->skip = request && get32(f->head + 4) == 0 ? request->data_bytes : 0;
    } else if (magic == REPLY) {
        f->skip = get32(f->head + 16);
    } else if (magic == REPLY_EXTENDED) {
        f->skip = get64(f->head + 24);
    } else {
        nbd->unknown = true;
    }
}

static void server_frame(struct nbd *nbd, uint32_t magic)
{
    const uint8_t *head = nbd->server.head;
    if (magic == OPTION_REPLY) {
        uint32_t type = get32(head + 12);
        if (type == OPTION_ACK || (type & OPTION_ERROR))
            nbd->option = false;
    } else if (magic == REPLY_SIMPLE || (get16(head + 4) & REPLY_IS_LAST)) {
        struct nbd_request *request = request_find(nbd, get64(head + 8));
        if (request)
            *request = nbd->requests[--nbd->count];
        else
            nbd->unknown = true;
    }
}

/* --- both --- */

/* More of a head. True: it is whole. */
static bool head_take(struct nbd *nbd, struct nbd_frame *f, const uint8_t **data, size_t *len)
{
    size_t whole = f->have < 4 ? 4 : head_bytes(get32(f->head));
    size_t n = whole - f->have < *len ? whole - f->have : *len;
    memcpy(f->head + f->have, *data, n);
    f->have += n;
    *data += n;
    *len -= n;
    if (f->have == 4 && head_bytes(get32(f->head)) == 0)
        nbd->unknown = true;
    return f->have > 4 && f->have == whole;
}

static void follow(struct nbd *nbd, struct nbd_frame *f, const uint8_t *data, size_t len,
    void (*head)(struct nbd *, uint32_t), void (*frame)(struct nbd *, uint32_t))
{
    while (len > 0 && !nbd->unknown) {
        if (f->skip > 0) {
            size_t n = f->skip < len ? (size_t)f->skip : len;
            f->skip -= n;
            data += n;
            len -= n;
        } else if (head_take(nbd, f, &data, &len)) {
            head(nbd, get32(f->head));
        } else {
            continue;
        }
        if (f->skip > 0 || nbd->unknown)
            continue;
        if (f->have > 0) /* else it was what comes before the first frame */
            frame(nbd, get32(f->head));
        f->have = 0;
    }
}

void nbd_sent(struct nbd *nbd, const uint8_t *data, size_t len)
{
    follow(nbd, &nbd->client, data, len, client_head, client_frame);
}

void nbd_answered(struct nbd *nbd, const uint8_t *data, size_t len)
{
    follow(nbd, &nbd->server, data, len, server_head, server_frame);
    nbd->greeted = nbd->greeted || nbd->server.skip == 0;
}

static enum nbd_wait wait_of(uint16_t type)
{
    return type == CMD_FLUSH ? NBD_FLUSH : type == CMD_TRIM || type == CMD_WRITE_ZEROES ? NBD_RANGE : NBD_DATA;
}

enum nbd_wait nbd_waits_for(const struct nbd *nbd)
{
    enum nbd_wait most = NBD_NOTHING;
    if (nbd->unknown)
        return NBD_NOTHING;
    if (!nbd->greeted || nbd->option || nbd->client.have > 0)
        return NBD_DATA;
    for (unsigned i = 0; i < nbd->count; i++)
        if (wait_of(nbd->requests[i].type) > most)
            most = wait_of(nbd->requests[i].type);
    return most;
}

static void answer(const struct nbd_request *request, struct buf *out)
{
    uint64_t cookie = htobe64(request->cookie), offset = htobe64(request->offset);
    uint8_t reply[32] = {0}; /* simple: no error; extended: no content */
    uint32_t magic = htobe32(request->extended ? REPLY_EXTENDED : REPLY_SIMPLE);
    uint16_t last = htobe16(REPLY_IS_LAST);
    memcpy(reply, &magic, sizeof magic);
    memcpy(reply + 8, &cookie, sizeof cookie);
    if (request->extended) {
        memcpy(reply + 4, &last, sizeof last);
        memcpy(reply + 16, &offset, sizeof offset);
    }
    buf_append(out, reply, head_bytes(be32toh(magic)));
}

bool nbd_answer_all(struct nbd *nbd, struct buf *out)
{
    if (nbd->unknown || !nbd->greeted || nbd->option || nbd->server.have > 0)
        return false;
    for (unsigned i = 0; i < nbd->count; i++)
        if (nbd->requests[i].type == CMD_READ || nbd->requests[i].type == CMD_BLOCK_STATUS)
            return false;
    for (unsigned i = 0; i < nbd->count; i++)
        answer(&nbd->requests[i], out);
    nbd->count = 0;
    return true;
}
