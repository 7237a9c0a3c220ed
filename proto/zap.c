#include "proto/zap.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "proto/context.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_PART_MAX 255

/* The parts of a request, in order. */
enum { ZAP_VERSION, ZAP_REQUEST_ID, ZAP_DOMAIN_NAME, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_KEY, ZAP_PARTS };

struct zap_part {
    uint8_t data[ZAP_PART_MAX + 1]; /* with a NUL, for those that are text */
    size_t len;
};

struct zap {
    struct wire *wire;
    struct zsock *zsock;
};

/* Reads one request. 1: read; 0: nothing there; -1: read, but it is none. */
static int zap_receive(struct zap *zap, struct zap_part parts[ZAP_PARTS])
{
    bool valid = true, more = true;
    size_t count = 0;
    for (; more; count++) {
        zmq_msg_t message;
        if (zsock_receive(zap->zsock, &message) < 0)
            return count == 0 ? 0 : -1;
        more = zmq_msg_more(&message);
        size_t len = zmq_msg_size(&message);
        if (count < ZAP_PARTS && len <= ZAP_PART_MAX) {
            memcpy(parts[count].data, zmq_msg_data(&message), len);
            parts[count].data[len] = '\0';
            parts[count].len = len;
        } else {
            valid = false;
        }
        zmq_msg_close(&message);
    }
    return valid && count == ZAP_PARTS ? 1 : -1;
}

static bool zap_part_is(const struct zap_part *part, const char *text)
{
    return part->len == strlen(text) && memcmp(part->data, text, part->len) == 0;
}

static void zap_send(struct zap *zap, const void *data, size_t len, int flags)
{
    while (zmq_send(zsock_socket(zap->zsock), data, len, flags | ZMQ_DONTWAIT) < 0)
        if (errno != EINTR)
            break; /* the connection that asked is gone already */
}

static void zap_answer(struct zap *zap, const struct zap_part *request_id, const char *user_id)
{
    zap_send(zap, "1.0", 3, ZMQ_SNDMORE);
    zap_send(zap, request_id->data, request_id->len, ZMQ_SNDMORE);
    zap_send(zap, user_id ? "200" : "300", 3, ZMQ_SNDMORE);
    zap_send(zap, "", 0, ZMQ_SNDMORE);
    zap_send(zap, user_id ? user_id : "", user_id ? strlen(user_id) : 0, ZMQ_SNDMORE);
    zap_send(zap, "", 0, 0);
}

static void zap_judge(struct zap *zap, const struct zap_part parts[ZAP_PARTS])
{
    char user_id[KEY_TEXT];
    struct principal principal;
    bool known = zap_part_is(&parts[ZAP_VERSION], "1.0") && zap_part_is(&parts[ZAP_DOMAIN_NAME], ZAP_DOMAIN) &&
                 zap_part_is(&parts[ZAP_MECHANISM], "CURVE") && parts[ZAP_KEY].len == KEY_BYTES;
    if (known) {
        key_format(parts[ZAP_KEY].data, user_id);
        known = wire_authorize(zap->wire, parts[ZAP_KEY].data, &principal);
        if (!known)
            wire_refused(zap->wire, (const char *)parts[ZAP_ADDRESS].data, user_id);
    }
    zap_answer(zap, &parts[ZAP_REQUEST_ID], known ? user_id : NULL);
}

static bool zap_turn(void *user, bool readable, bool writable)
{
    struct zap *zap = user;
    (void)readable;
    (void)writable;
    for (int i = 0; i < WIRE_TURN_MESSAGES; i++) {
        struct zap_part parts[ZAP_PARTS] = {0};
        int rc = zap_receive(zap, parts);
        if (rc == 0)
            return false;
        if (rc < 0)
            zap_answer(zap, &parts[ZAP_REQUEST_ID], NULL);
        else
            zap_judge(zap, parts);
    }
    return true;
}

int zap_open(struct wire *wire, struct err *err, struct zap **out)
{
    struct zsock *zsock;
    if (zsock_open(wire->loop, wire->zmq, ZMQ_REP, err, &zsock) < 0)
        return -1;
    zsock_set(zsock, ZMQ_LINGER, 0);
    if (zmq_bind(zsock_socket(zsock), ZAP_ENDPOINT) < 0) {
        err_set(err, ERR_INTERNAL, "cannot bind the authentication handler: %s", zmq_strerror(errno));
        zsock_close(zsock);
        return -1;
    }
    struct zap *zap = mem_zalloc(sizeof *zap);
    zap->wire = wire;
    zap->zsock = zsock;
    zsock_start(zsock, zap_turn, zap);
    *out = zap;
    return 0;
}

void zap_close(struct zap *zap)
{
    if (!zap)
        return;
    zsock_close(zap->zsock);
    free(zap);
}
