#include "raft/codec.h"

#include <endian.h>
#include <string.h>

#include "base/ensure.h"
#include "proto/bounded.h"
#include "raft/entry.h"
#include "raft/member.h"

/* ---- encoding ---- */

size_t codec_part(const struct raft_append_entries *args, size_t first)
{
    size_t bytes = 0, n = 0;
    while (first + n < args->n_entries && n < CODEC_PART_ENTRIES) {
        const struct raft_entry *entry = &args->entries[first + n];
        if (n > 0 && (entry->type == RAFT_CHANGE || bytes + entry->buf.len > CODEC_PART_BYTES))
            break;
        bytes += entry->buf.len;
        n++;
    }
    return n;
}

static void encode_append(const struct raft_append_entries *in, size_t first, size_t count, struct codec_outgoing *out)
{
    ENSURE(first + count <= in->n_entries);
    drover__raft_append__init(&out->append);
    out->append.prev_index = in->prev_log_index + first;
    out->append.prev_term = first > 0 ? in->entries[first - 1].term : in->prev_log_term;
    out->append.leader_commit = in->leader_commit;
    out->terms = mem_alloc((count + 1) * sizeof *out->terms);
    out->types = mem_alloc((count + 1) * sizeof *out->types);
    out->lengths = mem_alloc((count + 1) * sizeof *out->lengths);
    for (size_t i = 0; i < count; i++) {
        const struct raft_entry *entry = &in->entries[first + i];
        out->terms[i] = entry->term;
        out->types[i] = entry->type;
        out->lengths[i] = (uint32_t)entry->buf.len;
        buf_append(&out->data, entry->buf.base, entry->buf.len);
    }
    out->append.entry_terms = out->terms;
    out->append.entry_types = out->types;
    out->append.entry_lengths = out->lengths;
    out->append.n_entry_terms = out->append.n_entry_types = out->append.n_entry_lengths = count;
    out->append.data = (ProtobufCBinaryData){.len = out->data.len, .data = out->data.data};
    out->message.kind_case = DROVER__RAFT_MESSAGE__KIND_APPEND;
    out->message.append = &out->append;
}

static void encode_append_result(const struct raft_append_entries_result *in, struct codec_outgoing *out)
{
    /* libraft leaves last_log_index unset when all it has to say is that the term is old. */
    uint64_t last_index = in->last_log_index <= INT64_MAX ? in->last_log_index : 0;
    drover__raft_append_result__init(&out->append_result);
    out->append_result.rejected = in->rejected;
    out->append_result.last_index = in->rejected > 0 && last_index >= in->rejected ? in->rejected - 1 : last_index;
    out->append_result.features = in->features;
    out->append_result.capacity = in->capacity;
    out->message.kind_case = DROVER__RAFT_MESSAGE__KIND_APPEND_RESULT;
    out->message.append_result = &out->append_result;
}

static void encode_vote(const struct raft_request_vote *in, struct codec_outgoing *out)
{
    drover__raft_vote__init(&out->vote);
    out->vote.last_index = in->last_log_index;
    out->vote.last_term = in->last_log_term;
    out->vote.disrupt_leader = in->disrupt_leader;
    out->vote.pre_vote = in->pre_vote;
    out->message.kind_case = DROVER__RAFT_MESSAGE__KIND_VOTE;
    out->message.vote = &out->vote;
}

static void encode_vote_result(const struct raft_request_vote_result *in, struct codec_outgoing *out)
{
    drover__raft_vote_result__init(&out->vote_result);
    out->vote_result.granted = in->vote_granted;
    out->vote_result.pre_vote = in->pre_vote;
    out->vote_result.features = in->features;
    out->vote_result.capacity = in->capacity;
    out->message.kind_case = DROVER__RAFT_MESSAGE__KIND_VOTE_RESULT;
    out->message.vote_result = &out->vote_result;
}

static void encode_timeout_now(const struct raft_timeout_now *in, struct codec_outgoing *out)
{
    drover__raft_timeout_now__init(&out->timeout_now);
    out->timeout_now.last_index = in->last_log_index;
    out->timeout_now.last_term = in->last_log_term;
    out->message.kind_case = DROVER__RAFT_MESSAGE__KIND_TIMEOUT_NOW;
    out->message.timeout_now = &out->timeout_now;
}

void codec_encode(const struct raft_message *in, size_t first, size_t count, struct codec_outgoing *out)
{
    drover__raft_message__init(&out->message);
    /* version and term are the first fields of every kind, but only the kind says so. */
    switch (in->type) {
    case RAFT_APPEND_ENTRIES:
        out->message.version = in->append_entries.version;
        out->message.term = in->append_entries.term;
        encode_append(&in->append_entries, first, count, out);
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        out->message.version = in->append_entries_result.version;
        out->message.term = in->append_entries_result.term;
        encode_append_result(&in->append_entries_result, out);
        break;
    case RAFT_REQUEST_VOTE:
        out->message.version = in->request_vote.version;
        out->message.term = in->request_vote.term;
        encode_vote(&in->request_vote, out);
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        out->message.version = in->request_vote_result.version;
        out->message.term = in->request_vote_result.term;
        encode_vote_result(&in->request_vote_result, out);
        break;
    case RAFT_TIMEOUT_NOW:
        out->message.version = in->timeout_now.version;
        out->message.term = in->timeout_now.term;
        encode_timeout_now(&in->timeout_now, out);
        break;
    case RAFT_INSTALL_SNAPSHOT:
        ENSURE(!"a snapshot travels in chunks");
    }
}

void codec_outgoing_free(struct codec_outgoing *out)
{
    free(out->terms);
    free(out->types);
    free(out->lengths);
    buf_free(&out->data);
    *out = (struct codec_outgoing){0};
}

void codec_encode_snapshot(const struct raft_install_snapshot *in, struct codec_snapshot *out)
{
    unsigned n = in->conf.n;
    drover__raft_snapshot__init(&out->message);
    out->message.version = in->version;
    out->message.term = in->term;
    out->message.last_index = in->last_index;
    out->message.last_term = in->last_term;
    out->message.configuration_index = in->conf_index;
    out->servers = mem_zalloc((n + 1) * sizeof *out->servers);
    out->pointers = mem_zalloc((n + 1) * sizeof *out->pointers);
    for (unsigned i = 0; i < n; i++) {
        drover__raft_server__init(&out->servers[i]);
        out->servers[i].id = in->conf.servers[i].id;
        out->servers[i].address = in->conf.servers[i].address;
        out->servers[i].role = (uint32_t)in->conf.servers[i].role;
        out->pointers[i] = &out->servers[i];
    }
    out->message.servers = out->pointers;
    out->message.n_servers = n;
}

void codec_snapshot_free(struct codec_snapshot *out)
{
    free(out->servers);
    free(out->pointers);
    *out = (struct codec_snapshot){0};
}

/* ---- decoding ---- */

static int refuse(struct err *err, const char *what)
{
    return err_set(err, ERR_PROTOCOL, "raft message: %s", what);
}

static int check_u16(uint32_t value, struct err *err)
{
    return value <= UINT16_MAX ? 0 : refuse(err, "a capacity or features out of range");
}

/* A term and an index are both zero (before the first entry) or both not. */
static int check_position(uint64_t index, uint64_t term, uint64_t message_term, struct err *err)
{
    if ((index == 0) != (term == 0) || term > message_term || index > INT64_MAX)
        return refuse(err, "an index and its term do not fit");
    return 0;
}

static int check_server_list(const struct raft_configuration *configuration, struct err *err)
{
    struct replica_member member = {0};
    if (configuration->n == 0 || configuration->n > MEMBERS_MAX)
        return refuse(err, "a configuration without members or with too many");
    for (unsigned i = 0; i < configuration->n; i++) {
        const struct raft_server *server = &configuration->servers[i];
        if (strlen(server->address) >= MEMBER_TEXT_MAX || member_parse(server->address, err, &member))
            return refuse(err, "a member's address in a configuration is malformed");
        if (member_id(member.name) != server->id)
            return refuse(err, "a member's id in a configuration is not its name's");
        if (server->role != RAFT_STANDBY && server->role != RAFT_VOTER && server->role != RAFT_SPARE)
            return refuse(err, "an unknown role in a configuration");
    }
    return 0;
}

/* libraft's decoder of configuration entries trusts their lengths, so that they are walked here first: format byte,
 * number of servers, and per server its id, its address with the NUL and its role. */
static bool change_entry_fits(const struct raft_buffer *buf)
{
    const uint8_t *bytes = buf->base;
    size_t at = 1 + sizeof(uint64_t);
    uint64_t count;
    if (buf->len < at)
        return false;
    memcpy(&count, bytes + 1, sizeof count);
    count = le64toh(count);
    if (count == 0 || count > MEMBERS_MAX)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        if (buf->len - at < sizeof(raft_id))
            return false;
        at += sizeof(raft_id);
        size_t len = strnlen((const char *)bytes + at, buf->len - at);
        if (len + 2 > buf->len - at)
            return false;
        at += len + 2;
    }
    return buf->len - at < ENTRY_ALIGN;
}

static int check_change_entry(const struct raft_buffer *buf, struct err *err)
{
    struct raft_configuration configuration;
    if (!change_entry_fits(buf) || raft_configuration_decode(buf, &configuration) != 0)
        return refuse(err, "a configuration entry is malformed");
    int rv = check_server_list(&configuration, err);
    raft_configuration_close(&configuration);
    return rv;
}

static int check_entry(const struct raft_entry *entry, size_t position, struct err *err)
{
    const uint8_t *data;
    size_t len;
    switch (entry->type) {
    case RAFT_COMMAND:
        return entry_unwrap(&entry->buf, &data, &len) ? 0 : refuse(err, "a command is malformed");
    case RAFT_BARRIER:
        return entry->buf.len == ENTRY_ALIGN ? 0 : refuse(err, "a barrier of unusual size");
    case RAFT_CHANGE:
        if (position > 0)
            return refuse(err, "a configuration entry behind another one");
        return check_change_entry(&entry->buf, err);
    }
    return refuse(err, "an entry of unknown type");
}

/* The arrays agree with each other and with the data; terms never fall and never pass the message's. */
static int check_append_shape(const Drover__RaftAppend *in, uint64_t term, struct err *err)
{
    size_t n = in->n_entry_terms, sum = 0;
    uint64_t last_term = in->prev_term;
    if (check_position(in->prev_index, in->prev_term, term, err))
        return -1;
    if (in->n_entry_types != n || in->n_entry_lengths != n || n > CODEC_PART_ENTRIES)
        return refuse(err, "the arrays of its entries differ or are too long");
    for (size_t i = 0; i < n; i++) {
        if (in->entry_terms[i] < last_term || in->entry_terms[i] == 0 || in->entry_terms[i] > term)
            return refuse(err, "the terms of its entries are out of order");
        if (in->entry_lengths[i] == 0 || in->entry_lengths[i] % ENTRY_ALIGN || in->entry_lengths[i] > ENTRY_WRAPPED_MAX)
            return refuse(err, "an entry of bad length");
        last_term = in->entry_terms[i];
        sum += in->entry_lengths[i];
    }
    return sum == in->data.len ? 0 : refuse(err, "the lengths of its entries do not add up");
}

static int decode_append(const Drover__RaftMessage *in, struct err *err, struct raft_message *out)
{
    const Drover__RaftAppend *append = in->append;
    size_t n = append->n_entry_terms, offset = 0;
    if (check_append_shape(append, in->term, err))
        return -1;
    struct raft_entry *entries = NULL;
    uint8_t *batch = NULL;
    if (n > 0) {
        entries = raft_calloc(n, sizeof *entries);
        batch = raft_malloc(append->data.len);
        ENSURE(entries && batch);
        memcpy(batch, append->data.data, append->data.len);
    }
    for (size_t i = 0; i < n; i++) {
        entries[i] = (struct raft_entry){.term = append->entry_terms[i],
            .type = (enum raft_entry_type)append->entry_types[i],
            .buf = {.base = batch + offset, .len = append->entry_lengths[i]},
            .batch = batch};
        offset += append->entry_lengths[i];
        if (check_entry(&entries[i], i, err)) {
            raft_free(batch);
            raft_free(entries);
            return -1;
        }
    }
    out->type = RAFT_APPEND_ENTRIES;
    out->append_entries = (struct raft_append_entries){.version = (unsigned char)in->version,
        .term = in->term,
        .prev_log_index = append->prev_index,
        .prev_log_term = append->prev_term,
        .leader_commit = append->leader_commit,
        .entries = entries,
        .n_entries = (unsigned)n};
    return 0;
}

static int decode_append_result(const Drover__RaftMessage *in, struct err *err, struct raft_message *out)
{
    const Drover__RaftAppendResult *result = in->append_result;
    if (check_u16(result->features, err) || check_u16(result->capacity, err))
        return -1;
    if (result->rejected > INT64_MAX || result->last_index > INT64_MAX ||
        (result->rejected > 0 && result->last_index >= result->rejected))
        return refuse(err, "a refusal that contradicts itself");
    out->type = RAFT_APPEND_ENTRIES_RESULT;
    out->append_entries_result = (struct raft_append_entries_result){.version = (unsigned char)in->version,
        .term = in->term,
        .rejected = result->rejected,
        .last_log_index = result->last_index,
        .features = (unsigned short)result->features,
        .capacity = (unsigned short)result->capacity};
    return 0;
}

static int decode_vote(const Drover__RaftMessage *in, struct err *err, struct raft_message *out)
{
    if (check_position(in->vote->last_index, in->vote->last_term, in->term, err))
        return -1;
    out->type = RAFT_REQUEST_VOTE;
    out->request_vote = (struct raft_request_vote){.version = (unsigned char)in->version,
        .term = in->term,
        .last_log_index = in->vote->last_index,
        .last_log_term = in->vote->last_term,
        .disrupt_leader = in->vote->disrupt_leader,
        .pre_vote = in->vote->pre_vote};
    return 0;
}

static int decode_vote_result(const Drover__RaftMessage *in, struct err *err, struct raft_message *out)
{
    const Drover__RaftVoteResult *result = in->vote_result;
    if (check_u16(result->features, err) || check_u16(result->capacity, err))
        return -1;
    out->type = RAFT_REQUEST_VOTE_RESULT;
    out->request_vote_result = (struct raft_request_vote_result){.version = (unsigned char)in->version,
        .term = in->term,
        .vote_granted = result->granted,
        .pre_vote = result->pre_vote,
        .features = (unsigned short)result->features,
        .capacity = (unsigned short)result->capacity};
    return 0;
}

static int decode_timeout_now(const Drover__RaftMessage *in, struct err *err, struct raft_message *out)
{
    if (check_position(in->timeout_now->last_index, in->timeout_now->last_term, in->term, err))
        return -1;
    out->type = RAFT_TIMEOUT_NOW;
    out->timeout_now = (struct raft_timeout_now){.version = (unsigned char)in->version,
        .term = in->term,
        .last_log_index = in->timeout_now->last_index,
        .last_log_term = in->timeout_now->last_term};
    return 0;
}

static int check_term(uint32_t version, uint64_t term, struct err *err)
{
    if (version > UINT8_MAX)
        return refuse(err, "a version out of range");
    /* A term at the end of its range would stop every later election. */
    if (term == 0 || term > INT64_MAX)
        return refuse(err, "a term out of range");
    return 0;
}

static int decode_message(const Drover__RaftMessage *in, struct err *err, struct raft_message *out)
{
    if (check_term(in->version, in->term, err))
        return -1;
    switch (in->kind_case) {
    case DROVER__RAFT_MESSAGE__KIND_APPEND:
        return decode_append(in, err, out);
    case DROVER__RAFT_MESSAGE__KIND_APPEND_RESULT:
        return decode_append_result(in, err, out);
    case DROVER__RAFT_MESSAGE__KIND_VOTE:
        return decode_vote(in, err, out);
    case DROVER__RAFT_MESSAGE__KIND_VOTE_RESULT:
        return decode_vote_result(in, err, out);
    case DROVER__RAFT_MESSAGE__KIND_TIMEOUT_NOW:
        return decode_timeout_now(in, err, out);
    default:
        return refuse(err, "of no known kind");
    }
}

int codec_decode(const uint8_t *body, size_t len, struct err *err, struct raft_message *out)
{
    Drover__RaftMessage *message = BOUNDED_UNPACK(raft_message, body, len);
    if (!message)
        return refuse(err, "not decodable");
    struct raft_message decoded = {0};
    int rv = decode_message(message, err, &decoded);
    drover__raft_message__free_unpacked(message, NULL);
    if (rv == 0)
        *out = decoded;
    return rv;
}

void codec_message_free(struct raft_message *message)
{
    if (message->type == RAFT_APPEND_ENTRIES && message->append_entries.n_entries > 0) {
        raft_free(message->append_entries.entries[0].batch);
        raft_free(message->append_entries.entries);
    }
    if (message->type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&message->install_snapshot.conf);
        raft_free(message->install_snapshot.data.base);
    }
    *message = (struct raft_message){0};
}

int codec_decode_snapshot(const Drover__RaftSnapshot *in, struct err *err, struct raft_message *out)
{
    struct raft_configuration configuration;
    if (check_term(in->version, in->term, err) || check_position(in->last_index, in->last_term, in->term, err))
        return -1;
    if (in->last_index == 0 || in->configuration_index == 0 || in->configuration_index > in->last_index)
        return refuse(err, "the indexes of a snapshot do not fit");
    if (in->n_servers == 0 || in->n_servers > MEMBERS_MAX)
        return refuse(err, "a snapshot without members or with too many");
    raft_configuration_init(&configuration);
    for (size_t i = 0; i < in->n_servers; i++) {
        const Drover__RaftServer *server = in->servers[i];
        if (server->id == 0 || server->role > INT32_MAX ||
            raft_configuration_add(&configuration, server->id, server->address, (int)server->role) != 0) {
            raft_configuration_close(&configuration);
            return refuse(err, "a member of a snapshot's configuration is malformed");
        }
    }
    if (check_server_list(&configuration, err)) {
        raft_configuration_close(&configuration);
        return -1;
    }
    *out = (struct raft_message){.type = RAFT_INSTALL_SNAPSHOT,
        .install_snapshot = {.version = (unsigned char)in->version,
            .term = in->term,
            .last_index = in->last_index,
            .last_term = in->last_term,
            .conf = configuration,
            .conf_index = in->configuration_index}};
    return 0;
}
