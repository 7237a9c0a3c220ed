/* Private to proto/: the handler of ZeroMQ's authentication protocol (RFC 27). It decides who may connect.
 *
 * For every CURVE handshake with a server of the context ZeroMQ asks at inproc://zeromq.zap.01; the handler asks the
 * context's auth function whom the client's key belongs to. A known key is let in and its text becomes the User-Id
 * property of every message of that connection; an unknown one is cut off without a word (status 300: with 400 ZeroMQ
 * would tell it). */
#ifndef PROTO_ZAP_H
#define PROTO_ZAP_H

#include "base/err.h"

#define ZAP_DOMAIN "drover"
/* ZMQ_ZAP_ENFORCE_DOMAIN: 4.3 has the option, but declares it only to programs that take draft interfaces. */
#define ZAP_ENFORCE_DOMAIN 93

struct wire;
struct zap;

/* Must be open before the context's first server: a CURVE server without handler lets everybody in. Take: zap_close().
 */
MUST_CHECK int zap_open(struct wire *wire, struct err *err, struct zap **out);
void zap_close(struct zap *zap);

#endif
