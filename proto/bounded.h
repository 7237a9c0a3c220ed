/* Unpacking of messages that came from elsewhere. An empty message within a message takes two bytes on the wire and a
 * hundred in memory, so that the length alone bounds little. */
#ifndef PROTO_BOUNDED_H
#define PROTO_BOUNDED_H

#include <stddef.h>
#include <protobuf-c/protobuf-c.h>

/* Memory that a message may take: so much at least, and so many times its length. Ours take 2 to 8 times theirs. */
#define BOUNDED_BYTES_MIN (256u << 10)
#define BOUNDED_RATIO     16u

/* NULL when it cannot be read, or would take more than that. Take: protobuf_c_message_free_unpacked(.., NULL). */
void *bounded_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len);

#endif
