#include "migrate/listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define HANDSHAKE_MS 2000
#define QUEUE        8 /* messages, each way */

static int listener_setup(void *socket, const char *from, size_t message_max)
{
    static const struct {
        int option, value;
    } fixed[] = {{ZMQ_LINGER, 0}, {ZMQ_RCVHWM, QUEUE}, {ZMQ_ROUTER_MANDATORY, 1}, {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS}};
    int64_t max = (int64_t)message_max;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (zmq_setsockopt(socket, fixed[i].option, &fixed[i].value, sizeof fixed[i].value) < 0)
            return -1;
    if (from && zmq_setsockopt(socket, ZMQ_TCP_ACCEPT_FILTER, from, strlen(from)) < 0)
        return -1;
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof max);
}

int listener_open(void *zmq, const char *host, const char *from, size_t message_max, struct err *err,
    char address[static LISTENER_ADDRESS_MAX], void **out)
{
    char bind[LISTENER_ADDRESS_MAX];
    size_t size = LISTENER_ADDRESS_MAX;
    snprintf(bind, sizeof bind, "tcp://%s:*", host);
    void *socket = zmq_socket(zmq, ZMQ_ROUTER);
    if (socket && listener_setup(socket, from, message_max) == 0 && zmq_bind(socket, bind) == 0 &&
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, address, &size) == 0) {
        *out = socket;
        return 0;
    }
    err_set(err, ERR_INTERNAL, "cannot listen at %s for '%s': %s", bind, from ? from : "anyone", zmq_strerror(errno));
    if (socket)
        zmq_close(socket);
    return -1;
}
