/* ear: hears the guest speak at its new host's ports (taps).
 *
 * What the guest sends comes in there, and what is sent to it goes out; so do our own announcements, which are not its
 * words, and neither is the reverse ARP that QEMU itself sends when it has loaded a guest. All other frames that come
 * in are told with the time that the kernel stamped them with (the wall clock's, converted when it is read: a step in
 * between would show), until the owner has heard enough. From then on nothing
 * is read any more, so that a busy guest costs a comparison a frame; and until then at most a few frames are kept.
 *
 * Nothing fails for want of it: a port that cannot be listened at is logged. Single-threaded. */
#ifndef MIGRATE_EAR_H
#define MIGRATE_EAR_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct ear;

/* A frame of the guest's came in `at_ns`, by clock_now_ns(). True: that was enough. */
typedef bool (*ear_fn)(void *user, uint64_t at_ns);

/* `ports`: names of interfaces, separated by newlines; may be empty. Take: ear_close(). */
struct ear *ear_open(uv_loop_t *loop, const char *ports, ear_fn fn, void *user);
/* Takes the kernel some 10 ms a port (base/packet.h): not while anybody waits. NULL is fine. */
void ear_close(struct ear *ear);

#endif
