/* Unpacking of messages that came from elsewhere. An empty message within a message takes two bytes on the wire and a
 * hundred in memory, so that the length alone bounds little. Every program unpacks what it is told with this and with
 * nothing else (`tests/lint bounds`), so that a message of WIRE_MESSAGE_MAX takes at most BOUNDED_RATIO times that, and
 * only for as long as it is looked at. What this program has packed itself is no stranger: bounded_copy(), or the
 * controllers' pb_unpack(). */
#ifndef PROTO_BOUNDED_H
#define PROTO_BOUNDED_H

#include <stddef.h>
#include <protobuf-c/protobuf-c.h>

/* Memory that a message may take: so much at least, and so many times its length. Ours take 2 to 8 times theirs. */
#define BOUNDED_BYTES_MIN (256u << 10)
#define BOUNDED_RATIO     16u

/* NULL when it cannot be read, could not be read again once packed, or would take more than that. Take:
 * protobuf_c_message_free_unpacked(.., NULL). */
void *bounded_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len);
/* The same where the message is known by name ("host_hello_request"): the compiler sees its type. */
#define BOUNDED_UNPACK(name, data, len)                                                                                \
    ((__typeof__(drover__##name##__unpack(NULL, 0, NULL)))bounded_unpack(&drover__##name##__descriptor, data, len))

/* A copy of a message that is here already. Never NULL; take, likewise. */
void *bounded_copy(const void *message);

#endif
