/* The acknowledgement of one stripe: a sealed u64, the total of bytes of sealed batches applied so far. */
#ifndef MIGRATE_ACK_H
#define MIGRATE_ACK_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#include "migrate/seal.h"

#define ACK_BODY_BYTES  8u
#define ACK_FRAME_BYTES (ACK_BODY_BYTES + SEAL_OVERHEAD)

static inline void ack_encode(uint64_t applied_bytes, uint8_t out[ACK_BODY_BYTES])
{
    applied_bytes = htole64(applied_bytes);
    memcpy(out, &applied_bytes, ACK_BODY_BYTES);
}

static inline uint64_t ack_decode(const uint8_t in[ACK_BODY_BYTES])
{
    uint64_t applied_bytes;
    memcpy(&applied_bytes, in, ACK_BODY_BYTES);
    return le64toh(applied_bytes);
}

#endif
