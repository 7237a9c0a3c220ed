#include "raft/transport.h"

#include <stdio.h>
#include <string.h>

#include "base/ensure.h"
#include "raft/chunks.h"
#include "raft/codec.h"
#include "raft/kick.h"
#include "raft/member.h"

/* How long a member may take to say that it has the snapshot. */
#define SETTLE_MS 2000u

/* A link to another controller: the client to it if it is a member, and the session it has opened to us, if it has. */
struct link {
    struct link *next;
    struct transport *transport;
    raft_id id;
    struct replica_member member; /* the name always; the rest if `is_member` */
    bool is_member;
    char text[MEMBER_TEXT_MAX]; /* the address libraft is told */
    struct wire_client *client;
    struct wire_peer *session;
    struct chunk_sender *snapshot; /* on its way, with the request it answers */
    struct raft_io_send *snapshot_request;
    raft_io_send_cb snapshot_done;
    raft_term snapshot_term;
    uint64_t settled_ms; /* when refusals count again, after it has arrived */
};

/* The end of a request, to be told from outside the call that made it. */
struct sent {
    struct sent *next;
    struct raft_io_send *request;
    raft_io_send_cb done;
    int status;
};

struct transport {
    struct transport_options options;
    struct wire_server *server;
    struct chunk_receiver *receiver;
    struct kick *flush;
    struct link *links;
    struct sent *sent, **last_sent;
    struct raft_io *io;
    raft_io_recv_cb receive; /* NULL: not started, or stopped */
    bool stopped;
};

/* ---- links ---- */

static struct link *link_find(const struct transport *transport, raft_id id)
{
    struct link *link = transport->links;
    while (link && link->id != id)
        link = link->next;
    return link;
}

/* The link to a controller of this name; NULL if another name has its id already. */
static struct link *link_get(struct transport *transport, const char *name)
{
    raft_id id = member_id(name);
    struct link *link = link_find(transport, id);
    if (link)
        return strcmp(link->member.name, name) == 0 ? link : NULL;
    link = mem_zalloc(sizeof *link);
    link->transport = transport;
    link->id = id;
    snprintf(link->member.name, sizeof link->member.name, "%s", name);
    snprintf(link->text, sizeof link->text, "%s", name);
    link->next = transport->links;
    transport->links = link;
    return link;
}

static void link_end_snapshot(struct link *link, int status);

static void link_disconnect(struct link *link)
{
    link_end_snapshot(link, RAFT_CANCELED);
    wire_client_close(link->client);
    link->client = NULL;
    link->is_member = false;
}

static void link_free(struct link *link)
{
    struct link **at = &link->transport->links;
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    link_disconnect(link);
    free(link);
}

static struct wire_peer *link_peer(const struct link *link)
{
    if (link->client && (wire_client_connected(link->client) || !link->session))
        return wire_client_peer(link->client);
    return link->session;
}

/* ---- receiving ---- */

/* While a snapshot is on its way to a member, that member refuses the heartbeats, which are anchored behind the
 * snapshot. Taken literally, libraft would begin to send the snapshot anew with every one of them; so it only learns
 * that the member is alive. The last refusals come after the transfer's end, on the other connection. */
static void soften_refusal(struct link *link, struct raft_message *message)
{
    struct raft_append_entries_result *result = &message->append_entries_result;
    if (message->type != RAFT_APPEND_ENTRIES_RESULT || result->term != link->snapshot_term)
        return;
    if (result->rejected == 0)
        link->settled_ms = 0;
    else if (link->snapshot || uv_now(link->transport->options.loop) < link->settled_ms)
        result->rejected = result->last_log_index = 0;
}

/* Gives libraft a message of which it takes the memory. */
static void deliver(struct link *link, struct raft_message *message)
{
    struct transport *transport = link->transport;
    message->server_id = link->id;
    message->server_address = link->text;
    if (message->type == RAFT_REQUEST_VOTE)
        message->request_vote.candidate_id = link->id;
    if (!transport->receive || !transport->options.admit(transport->options.user, link->member.name, message)) {
        codec_message_free(message);
        return;
    }
    soften_refusal(link, message);
    transport->receive(transport->io, message);
}

static void receive_note(struct link *link, uint32_t method, const uint8_t *body, size_t len)
{
    struct transport *transport = link->transport;
    struct raft_message message;
    struct err err;
    if (method != DROVER__RAFT_METHOD__RAFT_METHOD_MESSAGE)
        transport->options.other(transport->options.user, link->id, method, body, len);
    else if (codec_decode(body, len, &err, &message))
        log_event(LOG_WARN, "raft.message_refused", "from=%s cause=%s", link->member.name, LOG_QUOTE(err.message));
    else
        deliver(link, &message);
}

/* On our server anybody enrolled may connect: hosts and users are turned away here. */
static void server_handle(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    const struct principal *principal = wire_peer_principal(peer);
    struct transport *transport = user;
    struct err err;
    if (request) {
        err_set(&err, ERR_DENIED, "the log's port answers no requests");
        wire_reply_error(request, &err);
        return;
    }
    if (principal->kind != PRINCIPAL_CONTROLLER || strcmp(principal->name, transport->options.name) == 0)
        return;
    struct link *link = link_get(transport, principal->name);
    if (link)
        receive_note(link, method, body, len);
}

static void server_peer(void *user, struct wire_peer *peer, bool up)
{
    const struct principal *principal = wire_peer_principal(peer);
    struct transport *transport = user;
    if (principal->kind != PRINCIPAL_CONTROLLER)
        return;
    if (up) {
        struct link *link = link_get(transport, principal->name);
        if (link)
            link->session = peer;
        return;
    }
    for (struct link *link = transport->links; link; link = link->next)
        if (link->session == peer)
            link->session = NULL;
}

/* What a member sends back over the connection we opened to it; its key has been checked then. */
static void client_handle(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct err err;
    (void)peer;
    if (!request) {
        receive_note(user, method, body, len);
        return;
    }
    err_set(&err, ERR_DENIED, "the log's port answers no requests");
    wire_reply_error(request, &err);
}

static void snapshot_arrived(void *user, const char *from, struct raft_message *message)
{
    struct link *link = link_get(user, from);
    if (link)
        deliver(link, message);
    else
        codec_message_free(message);
}

/* ---- sending ---- */

static void finish_later(struct transport *transport, struct raft_io_send *request, raft_io_send_cb done, int status)
{
    struct sent *sent = mem_alloc(sizeof *sent);
    *sent = (struct sent){.request = request, .done = done, .status = status};
    *transport->last_sent = sent;
    transport->last_sent = &sent->next;
    kick_arm(transport->flush);
}

static void flush_sent(void *user)
{
    struct transport *transport = user;
    struct sent *sent = transport->sent;
    transport->sent = NULL;
    transport->last_sent = &transport->sent;
    while (sent) {
        struct sent *next = sent->next;
        if (sent->done)
            sent->done(sent->request, sent->status);
        free(sent);
        sent = next;
    }
}

bool transport_note(struct transport *transport, raft_id to, uint32_t method, const ProtobufCMessage *message)
{
    struct link *link = link_find(transport, to);
    struct wire_peer *peer = link ? link_peer(link) : NULL;
    struct err err;
    return peer && wire_note(peer, method, message, &err) == 0;
}

static bool send_part(struct transport *transport, const struct raft_message *message, size_t first, size_t count)
{
    struct codec_outgoing outgoing = {0};
    codec_encode(message, first, count, &outgoing);
    bool sent =
        transport_note(transport, message->server_id, DROVER__RAFT_METHOD__RAFT_METHOD_MESSAGE, &outgoing.message.base);
    codec_outgoing_free(&outgoing);
    return sent;
}

static int send_entries(struct transport *transport, const struct raft_message *message)
{
    const struct raft_append_entries *args = &message->append_entries;
    size_t first = 0, bytes = 0;
    do {
        size_t count = codec_part(args, first);
        if (!send_part(transport, message, first, count))
            return RAFT_NOCONNECTION;
        for (size_t i = first; i < first + count; i++)
            bytes += args->entries[i].buf.len;
        first += count;
    } while (first < args->n_entries && bytes < TRANSPORT_BURST_BYTES);
    return 0;
}

static void link_end_snapshot(struct link *link, int status)
{
    if (!link->snapshot)
        return;
    chunk_sender_free(link->snapshot);
    link->snapshot = NULL;
    finish_later(link->transport, link->snapshot_request, link->snapshot_done, status);
}

static void snapshot_finished(void *user, int status)
{
    struct link *link = user;
    link->snapshot = NULL; /* it is gone by itself */
    link->settled_ms = status == 0 ? uv_now(link->transport->options.loop) + SETTLE_MS : 0;
    finish_later(link->transport, link->snapshot_request, link->snapshot_done, status);
}

static bool snapshot_wanted(void *user, raft_term term)
{
    struct link *link = user;
    return link->transport->options.leading(link->transport->options.user) == term;
}

static int send_snapshot(
    struct link *link, struct raft_io_send *request, const struct raft_install_snapshot *snapshot, raft_io_send_cb done)
{
    struct err err;
    if (!link->is_member || snapshot->data.len == 0 || (link->snapshot && link->snapshot_term == snapshot->term))
        return RAFT_NOCONNECTION; /* one that is on its way already goes on */
    link_end_snapshot(link, RAFT_CANCELED);
    struct chunk_sender_options options = {.wire = link->transport->options.wire,
        .loop = link->transport->options.loop,
        .to = &link->member,
        .snapshot = snapshot,
        .wanted = snapshot_wanted,
        .done = snapshot_finished,
        .user = link};
    if (chunk_sender_new(&options, &err, &link->snapshot)) {
        log_event(LOG_WARN, "raft.snapshot_not_sent", "to=%s cause=%s", link->member.name, LOG_QUOTE(err.message));
        return RAFT_NOCONNECTION;
    }
    link->snapshot_request = request;
    link->snapshot_done = done;
    link->snapshot_term = snapshot->term;
    return 0;
}

static int network_send(
    void *user, struct raft_io_send *request, const struct raft_message *message, raft_io_send_cb done)
{
    struct transport *transport = user;
    struct link *link = link_find(transport, message->server_id);
    int status = RAFT_NOCONNECTION;
    if (transport->stopped || !link) {
        finish_later(transport, request, done, status);
        return 0;
    }
    if (message->type == RAFT_INSTALL_SNAPSHOT) {
        status = send_snapshot(link, request, &message->install_snapshot, done);
        if (status == 0)
            return 0; /* it ends later */
    } else if (message->type == RAFT_APPEND_ENTRIES) {
        status = send_entries(transport, message);
    } else if (send_part(transport, message, 0, 0)) {
        status = 0;
    }
    finish_later(transport, request, done, status);
    return 0;
}

/* ---- life ---- */

static int network_start(void *user, struct raft_io *io, raft_io_recv_cb receive)
{
    struct transport *transport = user;
    transport->io = io;
    transport->receive = receive;
    return 0;
}

static void network_stop(void *user)
{
    struct transport *transport = user;
    transport->receive = NULL;
    transport->stopped = true;
    while (transport->links)
        link_free(transport->links);
    chunk_receiver_free(transport->receiver);
    wire_server_close(transport->server);
    transport->receiver = NULL;
    transport->server = NULL;
    flush_sent(transport);
}

struct disk_network transport_network(struct transport *transport)
{
    return (struct disk_network){.user = transport, .start = network_start, .send = network_send, .stop = network_stop};
}

void transport_mute(struct transport *transport)
{
    transport->receive = NULL;
}

static void connect_member(struct transport *transport, const struct replica_member *member)
{
    struct wire_options options = {.handler = client_handle, .max_message = CODEC_MESSAGE_MAX};
    struct link *link = link_get(transport, member->name);
    struct err err;
    if (!link) {
        log_event(LOG_ERROR, "raft.member_refused", "name=%s cause=\"its id is another member's\"", member->name);
        return;
    }
    if (link->client && strcmp(link->member.address, member->address) == 0 &&
        memcmp(link->member.public_key, member->public_key, KEY_BYTES) == 0) {
        link->is_member = true;
        return;
    }
    link_disconnect(link);
    link->member = *member;
    options.user = link;
    if (member_format(member, &err, link->text) ||
        wire_client_open(transport->options.wire, member->address, member->public_key, &options, &err, &link->client))
        log_event(LOG_ERROR, "raft.member_refused", "name=%s cause=%s", member->name, LOG_QUOTE(err.message));
    else
        link->is_member = true;
}

void transport_set_members(struct transport *transport, const struct replica_member *members, size_t count)
{
    struct link *link, *next;
    if (transport->stopped)
        return;
    for (link = transport->links; link; link = link->next)
        link->is_member = false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(members[i].name, transport->options.name) != 0)
            connect_member(transport, &members[i]);
    for (link = transport->links; link; link = next) {
        next = link->next;
        if (link->is_member)
            continue;
        if (link->session)
            link_disconnect(link);
        else
            link_free(link);
    }
}

bool transport_reaches(const struct transport *transport, raft_id id)
{
    const struct link *link = link_find(transport, id);
    return link && (link->session || (link->client && wire_client_connected(link->client)));
}

void transport_poll(struct transport *transport)
{
    if (transport->receiver)
        chunk_receiver_poll(transport->receiver);
}

static bool may_deliver(void *user)
{
    struct transport *transport = user;
    return !transport->receive || transport->options.may_install(transport->options.user);
}

int transport_new(const struct transport_options *options, struct err *err, struct transport **out)
{
    char address[WIRE_ADDRESS_MAX];
    struct transport *transport = mem_zalloc(sizeof *transport);
    struct wire_options wire_options = {
        .handler = server_handle, .on_peer = server_peer, .user = transport, .max_message = CODEC_MESSAGE_MAX};
    struct chunk_receiver_options receiver_options = {.wire = options->wire,
        .loop = options->loop,
        .address = address,
        .may_deliver = may_deliver,
        .deliver = snapshot_arrived,
        .user = transport};
    transport->options = *options;
    transport->last_sent = &transport->sent;
    if (member_snapshot_address(options->listen, err, address))
        goto fail;
    if (wire_server_open(options->wire, options->listen, &wire_options, err, &transport->server))
        goto fail;
    if (chunk_receiver_new(&receiver_options, err, &transport->receiver))
        goto fail_server;
    transport->flush = kick_new(options->loop, flush_sent, transport);
    *out = transport;
    return 0;
fail_server:
    wire_server_close(transport->server);
fail:
    free(transport);
    return -1;
}

void transport_free(struct transport *transport)
{
    if (!transport)
        return;
    network_stop(transport);
    kick_free(transport->flush);
    free(transport);
}
