/* Before the first page: stripes, disks that come along, and the hello that they answer. */
#include <stdio.h>
#include <string.h>

#include "base/crashpoint.h"
#include "base/log.h"
#include "base/loop.h"
#include "migrate/batch.h"
#include "migrate/destination_private.h"
#include "migrate/seal.h"
#include "proto/bounded.h"

#define IMAGE_TAGS_MAX 8192u /* in one answer: of 32 MiB of RAM, 128 KiB */

/* ---- stripes ---- */

/* The IP we listen at. */
static void destination_host(const struct destination *d, char *out, size_t size)
{
    const char *address = wire_server_address(d->server) + strlen("tcp://");
    snprintf(out, size, "%.*s", (int)(strrchr(address, ':') - address), address);
}

/* What comes through it goes to QEMU as it is. */
static int destination_open_tunnel(
    struct destination *d, const char *host, const char *from, const uint8_t *key, struct err *err)
{
    const struct tunnel_options options = {
        .key = key, .socket = d->pipe_path, .host = host, .from = from, .on_failed = destination_on_broken, .user = d};
    return tunnel_open_destination(&d->side.loop, &options, err, &d->tunnel);
}

int destination_open_receiver(struct destination *d, const char *from, const uint8_t *key, struct err *err)
{
    char host[64];
    destination_host(d, host, sizeof host);
    if (d->whole)
        return destination_open_tunnel(d, host, from, key, err);
    struct receiver_options options = {
        .ram = &d->side.ram,
        .filler = d->puller ? puller_filler(d->puller) : NULL,
        .digests = d->digests.page ? &d->digests : NULL,
        .image = d->image,
        .key = key,
        .host = host,
        .from = from,
        .stripes = (uint32_t)d->side.options->stripes,
        .quota = &d->side.quota,
        .on_failed = destination_on_broken,
        .user = d,
    };
    return receiver_open(&d->side.loop, &options, err, &d->receiver);
}

size_t destination_addresses(const struct destination *d, char *out[static STRIPES_MAX])
{
    if (d->tunnel) {
        out[0] = (char *)tunnel_address(d->tunnel);
        return 1;
    }
    for (uint32_t i = 0; i < d->side.options->stripes; i++)
        out[i] = (char *)receiver_address(d->receiver, i);
    return d->side.options->stripes;
}

static void destination_welcome(struct destination *d);

/* ---- disks ---- */

static void destination_disks_offered(void *user)
{
    struct destination *d = user;
    d->disks_open = true;
    crashpoint("destination", "disks-exported");
    destination_welcome(d);
}

static int destination_open_disks(struct destination *d, const char *from, const uint8_t *key, struct err *err)
{
    char host[64];
    const struct mirror_options mirror = {
        .qmp = guest_qmp(d->side.guest),
        .numbers = d->side.options->disks,
        .path = d->disks_path,
        .id = d->side.options->migration_id,
        .on_exported = destination_disks_offered,
        .on_failed = destination_on_broken,
        .user = d,
    };
    destination_host(d, host, sizeof host);
    if (relay_open_destination(&d->side.loop, host, from, d->disks_path, key, err, &d->relay) < 0 ||
        mirror_new(&mirror, err, &d->disks) < 0)
        return -1;
    mirror_export(d->disks);
    return 0;
}

static void destination_disks_closed(void *user, const struct err *err, json_t *result)
{
    struct destination *d = user;
    (void)result;
    if (!d->disks_over || (err && err->code == ERR_CANCELLED))
        return;
    d->disks_closed = err == NULL;
    Drover__EngineDisksOverReply reply = DROVER__ENGINE_DISKS_OVER_REPLY__INIT;
    if (err)
        wire_reply_error(d->disks_over, err);
    else
        wire_reply(d->disks_over, &reply.base);
    d->disks_over = NULL;
    crashpoint("destination", "disks-taken");
}

/* The guest stands still there, and its disks are equal to ours: QEMU stops offering them before it loads any device
 * that uses them. */
void destination_on_disks_over(struct destination *d, struct wire_request *request)
{
    struct err err;
    if (d->phase != DESTINATION_RECEIVING || !d->disks || d->disks_over || d->disks_closed) {
        err_set(&err, ERR_PROTOCOL, "no disks to take over now");
        wire_reply_error(request, &err);
        return;
    }
    d->disks_over = request;
    mirror_unexport(d->disks, destination_disks_closed, d);
}

/* ---- the image of the guest's last visit ---- */

/* Without it all pages come. */
static void destination_open_image(struct destination *d)
{
    const struct options *o = d->side.options;
    struct err err;
    if (!o->image[0] || d->whole)
        return;
    if (image_open(o->image, o->image_key, o->ram_bytes, &err, &d->image) < 0)
        log_event(LOG_INFO, "image.unused", "message=%s", LOG_QUOTE(err.message));
    crashpoint("destination", "image-opened");
}

void destination_on_image(struct destination *d, struct wire_request *request, const uint8_t *body, size_t len)
{
    static uint8_t tags[IMAGE_TAGS_MAX * IMAGE_TAG_BYTES]; /* answered before the next is asked for */
    struct err err;
    Drover__EngineImage *asked = BOUNDED_UNPACK(engine_image, body, len);
    size_t page = asked ? (size_t)asked->first_page : 0;
    int count = asked && d->image && d->phase == DESTINATION_RECEIVING
                    ? image_tags(d->image, IMAGE_TAGS_MAX, &err, &page, tags)
                    : err_set(&err, ERR_PROTOCOL, "no image is offered now");
    drover__engine_image__free_unpacked(asked, NULL);
    if (count < 0) {
        wire_reply_error(request, &err);
        return;
    }
    Drover__EngineImageReply reply = DROVER__ENGINE_IMAGE_REPLY__INIT;
    reply.first_page = page;
    reply.tags = (ProtobufCBinaryData){(size_t)count * IMAGE_TAG_BYTES, tags};
    wire_reply(request, &reply.base);
    crashpoint("destination", "image-told");
}

/* ---- hello ---- */

/* Answers the hello once QEMU listens for device state and the stripes are open. */
static void destination_welcome(struct destination *d)
{
    if (!d->prepared || !d->hello || (d->disks && !d->disks_open))
        return;
    struct err err;
    struct statepipe_options pipe = {.on_failed = destination_on_broken, .user = d};
    if (!d->tunnel && statepipe_connect(&d->side.loop, d->pipe_path, &pipe, &err, &d->pipe) < 0) {
        destination_fail(d, &err);
        return;
    }
    char *addresses[STRIPES_MAX];
    Drover__EngineHelloReply reply = DROVER__ENGINE_HELLO_REPLY__INIT;
    reply.verifies_early = !d->tunnel;
    reply.n_bulk_addresses = destination_addresses(d, addresses);
    reply.bulk_addresses = addresses;
    reply.window_bytes = RECEIVER_WINDOW_BYTES;
    reply.bandwidth_bytes_per_s = quota_bytes_per_s(&d->side.quota);
    reply.disk_address = d->relay ? (char *)relay_address(d->relay) : reply.disk_address;
    if (d->image)
        reply.image_key = (ProtobufCBinaryData){IMAGE_KEY_BYTES, (uint8_t *)(uintptr_t)image_key(d->image)};
    wire_reply(d->hello, &reply.base);
    d->hello = NULL;
    crashpoint("destination", "welcomed");
}

static void destination_take_addresses(struct destination *d, const Drover__EngineHello *hello)
{
    const struct options *o = d->side.options;
    struct err err;
    addresses_take(hello->addresses, hello->n_addresses, o->announce_macs, &d->addresses);
    if (o->announce_addresses[0] && addresses_save(&d->addresses, o->announce_addresses, &err) < 0)
        log_event(LOG_WARN, "addresses.unsaved", "message=%s", LOG_QUOTE(err.message));
}

/* Is this the source that is waited for? Nothing has changed if not. */
static int destination_check(const struct destination *d, const Drover__EngineHello *hello, struct err *err)
{
    const struct options *o = d->side.options;
    if (d->phase != DESTINATION_LISTENING)
        return err_set(err, ERR_BUSY, "this engine serves one migration, and it has begun");
    if (strcmp(hello->migration_id, o->migration_id) != 0)
        return err_set(err, ERR_INVALID, "this engine waits for another migration");
    if (hello->page_format != BATCH_FORMAT)
        return err_set(err, ERR_UNSUPPORTED,
            "the source's engine sends pages in format %u, and this one knows format %u; install the same version of "
            "drover on both hosts",
            hello->page_format, BATCH_FORMAT);
    if (hello->page_bytes != PAGE_BYTES || hello->ram_bytes != o->ram_bytes || hello->stripes != o->stripes ||
        hello->bulk_key.len != SEAL_KEY_BYTES)
        return err_set(err, ERR_INVALID, "RAM, page size or stripes differ: %llu bytes there, %llu here",
            (unsigned long long)hello->ram_bytes, (unsigned long long)o->ram_bytes);
    if (strcmp(hello->disks, o->disks) != 0)
        return err_set(
            err, ERR_INVALID, "disks '%.64s' are to come, and '%.64s' are waited for", hello->disks, o->disks);
    if (hello->whole != d->whole)
        return err_set(err, ERR_INVALID, "tracker.kind must be qemu on both sides or on none; it is on the %s",
            d->whole ? "destination" : "source");
    return 0;
}

static int destination_accept(
    struct destination *d, const char *from, const Drover__EngineHello *hello, struct err *err)
{
    const struct options *o = d->side.options;
    if (hello->receipt)
        digests_init(&d->digests, d->side.ram.pages, seal_derive(hello->bulk_key.data, "page digests"), true);
    destination_take_addresses(d, hello);
    destination_open_image(d);
    if (destination_open_receiver(d, from, hello->bulk_key.data, err) < 0)
        return -1;
    return o->disks[0] ? destination_open_disks(d, from, hello->bulk_key.data, err) : 0;
}

void destination_on_hello(
    struct destination *d, struct wire_request *request, struct wire_peer *peer, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineHello *hello = BOUNDED_UNPACK(engine_hello, body, len);
    int rc = hello ? destination_check(d, hello, &err) : err_set(&err, ERR_PROTOCOL, "hello makes no sense");
    bool mine = rc == 0;
    if (mine)
        rc = destination_accept(d, wire_peer_ip(peer), hello, &err);
    drover__engine_hello__free_unpacked(hello, NULL);
    if (rc < 0) {
        wire_reply_error(request, &err);
        if (mine) /* what is open of it must not be opened once more */
            destination_fail(d, &err);
        return;
    }
    d->source = peer;
    d->hello = request;
    loop_timer_stop(d->deadline);
    destination_move(d, DESTINATION_RECEIVING);
    destination_welcome(d);
}

void destination_prepared(void *user, const struct err *err)
{
    struct destination *d = user;
    if (err) {
        destination_on_broken(d, err);
        return;
    }
    d->prepared = true;
    destination_welcome(d);
}
