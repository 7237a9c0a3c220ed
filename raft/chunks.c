#include "raft/chunks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "proto/bounded.h"
#include "raft/assembly.h"
#include "raft/codec.h"
#include "raft/kick.h"
#include "raft/member.h"

#define CHUNK_DEADLINE_MS 5000u
#define CHUNK_CHECK_MS    500u
/* A transfer without progress for this long is given up, as is what was put together of it. */
#define CHUNK_STALL_MS 30000u

/* ---- sender ---- */

struct chunk_sender {
    struct chunk_sender_options options;
    struct wire_client *client;
    struct loop_timer *check;
    struct kick *finish;
    uint64_t transfer, offset, progress_ms;
    bool under_way, finished;
    int status;
};

static void sender_finish(struct chunk_sender *sender, int status)
{
    if (sender->finished)
        return;
    sender->finished = true;
    sender->status = status;
    kick_arm(sender->finish);
}

static void sender_acked(void *user, const struct err *error, const uint8_t *body, size_t len);

static void sender_send(struct chunk_sender *sender)
{
    const struct raft_install_snapshot *snapshot = sender->options.snapshot;
    struct codec_snapshot head = {0};
    Drover__RaftChunk chunk = DROVER__RAFT_CHUNK__INIT;
    size_t left = snapshot->data.len - sender->offset;
    if (sender->under_way || sender->finished || !wire_client_connected(sender->client))
        return;
    chunk.transfer = sender->transfer;
    chunk.total_bytes = snapshot->data.len;
    chunk.offset = sender->offset;
    chunk.data.data = (uint8_t *)snapshot->data.base + sender->offset;
    chunk.data.len = left < ASSEMBLY_CHUNK_MAX ? left : ASSEMBLY_CHUNK_MAX;
    if (sender->offset == 0) {
        codec_encode_snapshot(snapshot, &head);
        chunk.snapshot = &head.message;
    }
    sender->under_way = true;
    wire_call(wire_client_peer(sender->client), DROVER__RAFT_METHOD__RAFT_METHOD_CHUNK, &chunk.base, CHUNK_DEADLINE_MS,
        sender_acked, sender);
    codec_snapshot_free(&head);
}

static void sender_take_ack(struct chunk_sender *sender, uint64_t next)
{
    size_t total = sender->options.snapshot->data.len;
    if (next > sender->offset)
        sender->progress_ms = clock_now_ms();
    if (next > total) {
        sender_finish(sender, RAFT_MALFORMED);
    } else if (next == total) {
        log_event(LOG_INFO, "raft.snapshot_sent", "to=%s bytes=%zu index=%llu", sender->options.to->name, total,
            sender->options.snapshot->last_index);
        sender_finish(sender, 0);
    } else {
        sender->offset = next;
        sender_send(sender);
    }
}

static void sender_acked(void *user, const struct err *error, const uint8_t *body, size_t len)
{
    struct chunk_sender *sender = user;
    sender->under_way = false;
    if (sender->finished || error)
        return; /* the check sends it again */
    Drover__RaftChunkAck *ack = BOUNDED_UNPACK(raft_chunk_ack, body, len);
    if (!ack) {
        sender_finish(sender, RAFT_MALFORMED);
        return;
    }
    uint64_t next = ack->next_offset;
    drover__raft_chunk_ack__free_unpacked(ack, NULL);
    if (sender->options.wanted(sender->options.user, sender->options.snapshot->term))
        sender_take_ack(sender, next);
    else
        sender_finish(sender, RAFT_CANCELED);
}

static void sender_check(void *user)
{
    struct chunk_sender *sender = user;
    if (!sender->options.wanted(sender->options.user, sender->options.snapshot->term))
        sender_finish(sender, RAFT_CANCELED);
    else if (clock_now_ms() - sender->progress_ms > CHUNK_STALL_MS)
        sender_finish(sender, RAFT_NOCONNECTION);
    else
        sender_send(sender);
}

static void sender_peer(void *user, struct wire_peer *peer, bool up)
{
    (void)peer;
    if (up)
        sender_send(user);
}

static void sender_finished(void *user)
{
    struct chunk_sender *sender = user;
    void (*done)(void *, int) = sender->options.done;
    void *done_user = sender->options.user;
    int status = sender->status;
    chunk_sender_free(sender);
    done(done_user, status);
}

int chunk_sender_new(const struct chunk_sender_options *options, struct err *err, struct chunk_sender **out)
{
    char address[WIRE_ADDRESS_MAX];
    struct chunk_sender *sender = mem_zalloc(sizeof *sender);
    struct replica_member *to = mem_alloc(sizeof *to);
    struct wire_options wire_options = {.on_peer = sender_peer, .user = sender, .max_message = ASSEMBLY_MESSAGE_MAX};
    *to = *options->to;
    sender->options = *options;
    sender->options.to = to;
    sender->transfer = clock_now_ns();
    sender->progress_ms = clock_now_ms();
    if (member_snapshot_address(to->address, err, address) ||
        wire_client_open(options->wire, address, to->public_key, &wire_options, err, &sender->client)) {
        free(to);
        free(sender);
        return -1;
    }
    sender->finish = kick_new(options->loop, sender_finished, sender);
    sender->check = loop_timer_new(options->loop, sender_check, sender);
    loop_timer_start(sender->check, CHUNK_CHECK_MS, CHUNK_CHECK_MS);
    *out = sender;
    return 0;
}

void chunk_sender_free(struct chunk_sender *sender)
{
    if (!sender)
        return;
    sender->finished = true;
    wire_client_close(sender->client);
    loop_timer_free(sender->check);
    kick_free(sender->finish);
    free((void *)sender->options.to);
    free(sender);
}

/* ---- receiver ---- */

struct chunk_receiver {
    struct chunk_receiver_options options;
    struct wire_server *server;
    struct loop_timer *idle;
    struct assembly assembly;
    struct wire_request *last; /* of the chunk that completed it, unanswered */
};

static void acknowledge(struct wire_request *request, uint64_t next)
{
    Drover__RaftChunkAck ack = DROVER__RAFT_CHUNK_ACK__INIT;
    ack.next_offset = next;
    wire_reply(request, &ack.base);
}

static void drop_last(struct chunk_receiver *receiver)
{
    struct err err;
    if (!receiver->last)
        return;
    err_set(&err, ERR_CANCELLED, "the snapshot was replaced by another one");
    wire_reply_error(receiver->last, &err);
    receiver->last = NULL;
}

void chunk_receiver_poll(struct chunk_receiver *receiver)
{
    struct raft_message message;
    char from[WIRE_PRINCIPAL_MAX];
    if (!assembly_complete(&receiver->assembly) || !receiver->options.may_deliver(receiver->options.user))
        return;
    struct wire_request *request = receiver->last;
    uint64_t total = receiver->assembly.total;
    memcpy(from, receiver->assembly.from, sizeof from);
    receiver->last = NULL;
    assembly_release(&receiver->assembly, &message);
    loop_timer_stop(receiver->idle);
    log_event(LOG_INFO, "raft.snapshot_received", "from=%s bytes=%" PRIu64 " index=%llu", from, total,
        message.install_snapshot.last_index);
    receiver->options.deliver(receiver->options.user, from, &message);
    if (request)
        acknowledge(request, total);
}

static void receiver_idle(void *user)
{
    struct chunk_receiver *receiver = user;
    drop_last(receiver);
    assembly_clear(&receiver->assembly);
}

static void receiver_take(
    struct chunk_receiver *receiver, struct wire_request *request, const char *from, const Drover__RaftChunk *chunk)
{
    struct err err;
    uint64_t next;
    if (assembly_take(&receiver->assembly, from, chunk, &err, &next)) {
        wire_reply_error(request, &err);
        return;
    }
    loop_timer_start(receiver->idle, CHUNK_STALL_MS, 0);
    drop_last(receiver);
    if (!assembly_complete(&receiver->assembly) || next != chunk->total_bytes) {
        acknowledge(request, next);
        return;
    }
    receiver->last = request;
    chunk_receiver_poll(receiver);
}

static void receiver_handle(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct chunk_receiver *receiver = user;
    const struct principal *principal = wire_peer_principal(peer);
    struct err err;
    if (!request)
        return;
    if (principal->kind != PRINCIPAL_CONTROLLER || method != DROVER__RAFT_METHOD__RAFT_METHOD_CHUNK) {
        err_set(&err, ERR_DENIED, "only controllers may send snapshots");
        wire_reply_error(request, &err);
        return;
    }
    Drover__RaftChunk *chunk = BOUNDED_UNPACK(raft_chunk, body, len);
    if (!chunk) {
        err_set(&err, ERR_PROTOCOL, "snapshot chunk: not decodable");
        wire_reply_error(request, &err);
        return;
    }
    receiver_take(receiver, request, principal->name, chunk);
    drover__raft_chunk__free_unpacked(chunk, NULL);
}

int chunk_receiver_new(const struct chunk_receiver_options *options, struct err *err, struct chunk_receiver **out)
{
    struct chunk_receiver *receiver = mem_zalloc(sizeof *receiver);
    struct wire_options wire_options = {
        .handler = receiver_handle, .user = receiver, .max_message = ASSEMBLY_MESSAGE_MAX};
    receiver->options = *options;
    if (wire_server_open(options->wire, options->address, &wire_options, err, &receiver->server)) {
        free(receiver);
        return -1;
    }
    receiver->idle = loop_timer_new(options->loop, receiver_idle, receiver);
    *out = receiver;
    return 0;
}

void chunk_receiver_free(struct chunk_receiver *receiver)
{
    if (!receiver)
        return;
    drop_last(receiver);
    wire_server_close(receiver->server);
    loop_timer_free(receiver->idle);
    assembly_clear(&receiver->assembly);
    free(receiver);
}
